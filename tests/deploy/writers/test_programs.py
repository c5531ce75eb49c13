"""Programs: a ``.pt2`` file runs in a process that imports torch alone."""

import subprocess
import sys
import warnings
from zipfile import ZipFile

import pytest
import torch
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.writers.programs import Program
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import PerGroup, QATCallback, profiles
from tests.support.classifiers import Classifier, Conv, fit

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
DECOMPOSED = "import torch.ao.quantization.fx._decomposed; "


def elsewhere(path, first=""):
    """The outputs of the file for the images, in a process of its own."""
    torch.save(IMAGES, path.with_name("images"))
    code = f"import torch; {first}program = torch.export.load({str(path)!r}).module(); "
    code += f"torch.save(program(torch.load({str(path.with_name('images'))!r})), {str(path.with_name('outputs'))!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(path.with_name("outputs"))


@pytest.mark.parametrize(
    "callback",
    [QATCallback(), QATCallback(4, activation_bits=5, granularity=PerGroup(8)), QATCallback(profile=profiles.Mobile())],
)
@torch.no_grad()
def test_a_quantized_module_runs_where_torch_alone_is_imported(callback, tmp_path):
    module = Classifier()
    with torch.enable_grad():
        fit(module, callback)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = export(module, tmp_path / "m.pt2", IMAGES[:2])
    assert any(tensor.dtype == torch.int8 for tensor in torch.export.load(path).state_dict.values())
    assert torch.equal(elsewhere(path), lower(module, (IMAGES,))(IMAGES))


@torch.no_grad()
def test_a_fusible_file_says_what_it_needs(tmp_path):
    module = Conv()
    with torch.enable_grad():
        fit(module, QATCallback())
    with pytest.warns(
        UserWarning, match=r"m.pt2 needs operators .*quantized_decomposed.*: write 'import torch.ao.quan"
    ):
        path = export(module, tmp_path / "m.pt2", IMAGES[:2], writer=Program(fusible=True))
    with pytest.raises(AssertionError, match="quantized_decomposed"):
        elsewhere(path)
    torch.testing.assert_close(elsewhere(path, DECOMPOSED), lower(module, (IMAGES,))(IMAGES))
    with pytest.raises(TypeError, match="need fusible as True or False"):
        Program(fusible="yes")


def test_operators_of_other_packages_are_named(tmp_path):
    @torch.library.custom_op("own_package::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    twice.register_fake(torch.empty_like)

    class Twice(nn.Module):
        def forward(self, x):
            return twice(x)

    with pytest.warns(UserWarning, match=r"m.pt2 needs .* own_package.twice.default: import the packages that define"):
        export(Twice(), tmp_path / "m.pt2", IMAGES)


def test_the_example_is_zeros_of_the_same_shapes(tmp_path):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 3)

        def forward(self, words, weights):
            return self.table(words) * weights

    words, weights = torch.arange(6).view(2, 3), torch.rand(2, 3, 3)
    path = export(Words(), tmp_path / "m.pt2", {"words": words, "weights": weights})
    program = torch.export.load(path)
    _, example = program.example_inputs
    assert {name: (value.shape[1:], value.dtype) for name, value in example.items()} == {
        "words": (words.shape[1:], words.dtype),
        "weights": (weights.shape[1:], weights.dtype),
    }
    assert not any(value.any() for value in example.values())
    program.module()(**example)


def test_a_compiled_file_names_no_folder_of_this_machine(tmp_path):
    path = export(nn.Linear(4, 2), tmp_path / "m.pt2", torch.rand(2, 4), writer=Program(compiled=True))
    with ZipFile(path) as package:
        contents = [package.read(entry) for entry in package.infolist()]
    for folder in (torch.__path__[0], str(tmp_path.parent.parent), "torchinductor_", sys.prefix):
        assert not any(folder.encode() in content for content in contents), folder
    assert torch._inductor.aoti_load_package(str(path))(torch.ones(3, 4)).shape == (3, 2)
