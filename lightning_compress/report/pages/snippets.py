"""Snippets: the lines that load a model file."""

from __future__ import annotations

from pathlib import PurePath

__all__ = ["loading_code"]

_CODE = {
    "": "from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained({name!r})",
    ".lcz": "from lightning_compress import load_compressed\n\nmodule = load_compressed(YourModule, {name!r})",
    ".onnx": "import onnxruntime\n\nsession = onnxruntime.InferenceSession({name!r})\n"
    "outputs = session.run(None, {{session.get_inputs()[0].name: array}})",
    ".pt2": "import torch\n\nmodule = torch.export.load({name!r}).module()",
    ".pte": "from executorch.runtime import Runtime\n\n"
    "method = Runtime.get().load_program({name!r}).load_method('forward')\noutputs = method.execute([tensor])",
    ".tflite": "from ai_edge_litert.interpreter import Interpreter\n\n"
    "interpreter = Interpreter(model_path={name!r})\ninterpreter.allocate_tensors()",
    ".mlpackage": "import coremltools\n\nmodel = coremltools.models.MLModel({name!r})  # on macOS",
    ".safetensors": "from safetensors.torch import load_file\n\nstate_dict = load_file({name!r})",
}


def loading_code(name: str) -> str:
    """The lines of Python that load a model file.

    Args:
        name: of the file; its suffix says the format. A name without one is a folder of transformers.

    >>> print(loading_code("model.pt2"))
    import torch
    <BLANKLINE>
    module = torch.export.load('model.pt2').module()
    >>> loading_code("model").splitlines()[-1]  # a folder
    "model = AutoModelForCausalLM.from_pretrained('model')"
    """
    return _CODE.get(PurePath(name).suffix, "# see the page on export in the documentation").format(name=name)
