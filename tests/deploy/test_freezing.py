"""Compiled with constant weights: in the process, and as a package."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_compress import export, freeze
from lightning_compress.deploy.writers.programs import Program
from lightning_compress.quantization import QATCallback
from tests.support.classifiers import Classifier, loader, trainer


class Net(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.conv = nn.Conv2d(8, 16, 3, 2, 1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(F.relu(self.conv(self.stem(x))).mean((2, 3)))


# torch's own, while it compiles
pytestmark = pytest.mark.filterwarnings("ignore:To copy construct from a tensor")


def trained(channels):
    torch.manual_seed(0)
    module = Classifier(Net(channels))
    callback = QATCallback(7)  # with 8 bits kernels without VNNI saturate
    trainer(callback, max_epochs=2).fit(module, loader(channels=channels), loader(2, channels=channels))
    return module.train(), torch.cat([x for x, _ in loader(channels=channels)])


@pytest.fixture
def counters():
    """What the compiler fuses; it would count nothing that it finds in a cache."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    with torch._inductor.config.patch(fx_graph_cache=False), torch._functorch.config.patch(enable_autograd_cache=False):
        yield torch._dynamo.utils.counters


def test_quantized_layers_become_integer_kernels(counters):
    module, images = trained(channels=3)
    x = images[:16]
    fast = freeze(module, x)
    fused = counters["inductor"]
    assert (fused["qconv_weight_prepack_matcher_count"], fused["qlinear_weight_prepack_matcher_count"]) == (2, 1)
    assert module.training
    with torch.no_grad():
        want = module.eval()(x)
    got = fast(x)
    assert not got.requires_grad
    torch.testing.assert_close(got, want, rtol=0, atol=0.02 * (want.max() - want.min()).item())
    assert torch.equal(got.argmax(1), want.argmax(1))
    torch.testing.assert_close(fast(x[:5]), got[:5], rtol=0, atol=1e-5)  # integers: in no other order of floats


def test_a_package_computes_what_was_trained(tmp_path):
    module, images = trained(channels=1)
    path = export(module, tmp_path / "m.pt2", images[:16], writer=Program(compiled=True))
    package = torch._inductor.aoti_load_package(str(path))
    with torch.no_grad():
        want = module.eval()(images)
        got = package(images)  # of another batch size
    torch.testing.assert_close(got, want, rtol=0, atol=0.02 * (want.max() - want.min()).item())
    assert (got.argmax(1) == want.argmax(1)).float().mean() >= 0.99


def test_a_float_module_is_frozen_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    x = torch.randn(5, 4)
    fast = freeze(net, x[:3])
    with torch.no_grad():
        want = net.eval()(x)
        net.train()[0].weight.zero_()
    torch.testing.assert_close(fast(x[:3]), want[:3])
    torch.testing.assert_close(fast(x), want)  # another batch size
