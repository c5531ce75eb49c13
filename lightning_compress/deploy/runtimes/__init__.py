"""Runtimes: programs that run an exported file on this machine's CPU; a file each."""

from lightning_compress.deploy.runtimes.executorch import ExecuTorch
from lightning_compress.deploy.runtimes.interface import IntegerOperators, Run, Runtime, installed
from lightning_compress.deploy.runtimes.litert import LiteRT
from lightning_compress.deploy.runtimes.onnx_runtime import OnnxRuntime
from lightning_compress.deploy.runtimes.onnx_web import OnnxRuntimeWeb
from lightning_compress.deploy.runtimes.openvino import OpenVINO
from lightning_compress.deploy.runtimes.tflm import TFLM

__all__ = [
    "TFLM",
    "ExecuTorch",
    "IntegerOperators",
    "LiteRT",
    "OnnxRuntime",
    "OnnxRuntimeWeb",
    "OpenVINO",
    "Run",
    "Runtime",
    "installed",
]
