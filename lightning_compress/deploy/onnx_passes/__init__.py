"""Passes over an ONNX graph, each of which lets a runtime use a faster kernel."""
