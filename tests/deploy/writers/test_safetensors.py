"""State dicts for other programs."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lightning_compress import LowRankCallback, PruningCallback, QATCallback, export
from lightning_compress.schedules import Constant
from tests.support.classifiers import Classifier, fit


def test_a_state_dict_is_read_by_the_package_of_the_format(tmp_path):
    module = Classifier()
    fit(module, PruningCallback(0.5))
    module.register_buffer("odd", torch.tensor(float("nan")))
    module.register_buffer("shared", module.odd)
    module.register_buffer("strided", torch.arange(6.0).view(2, 3).t())
    stored = load_file(export(module, tmp_path / "m.safetensors"))
    torch.testing.assert_close(stored, dict(module.state_dict()), rtol=0, atol=0, equal_nan=True)
    assert sum((tensor == 0).sum() for tensor in stored.values()) > 100


@pytest.mark.parametrize("callback", [QATCallback(8, schedule=Constant()), LowRankCallback(0.5, schedule=Constant())])
def test_what_a_state_dict_does_not_describe_is_refused(callback, tmp_path):
    module = Classifier()
    fit(module, callback)
    with pytest.raises(ValueError, match=r"need a model that its state dict describes to write .safetensors"):
        export(module, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_extra_state_is_refused(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(TypeError, match="need tensors to write .safetensors, got '_extra_state' of type dict"):
        export(Extra(2, 2), tmp_path / "m.safetensors")
