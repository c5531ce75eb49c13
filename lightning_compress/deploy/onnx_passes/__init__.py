"""Passes over an ONNX graph: names of layers, faster kernels, and the reasons why a layer stays float."""
