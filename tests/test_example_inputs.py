"""One way to run a module on an example: whoever takes one reads it alike."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_compress import export, freeze
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.example_inputs import as_arguments, call, first_examples, first_samples, input_from
from lightning_compress.macs import count_macs
from lightning_compress.timing import measure_latencies


class Two(nn.Module):
    """Needs two tensors: a list that is handed on as one argument fails."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(one + two)))


PAIR = tuple(torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)).unbind())
EXAMPLES = {"tuple": PAIR, "list": list(PAIR), "mapping": {"two": PAIR[1], "one": PAIR[0]}}
READERS: dict[str, Callable[..., Any]] = {
    "call": lambda module, example, path: call(module, example),
    "export": lambda module, example, path: export(module, path, example).stat().st_size > 0,
    "freeze": lambda module, example, path: freeze(module, example)(*PAIR),
    "channels": lambda module, example, path: find_removable(module, example).groups[0].units,
    "MACs": lambda module, example, path: count_macs(module, example).total,
    "latencies": lambda module, example, path: len(measure_latencies([module], example)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_list_is_a_tuple_and_a_mapping_names_arguments(reader, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_compress.timing._ROUNDS", 2)
    monkeypatch.setattr("lightning_compress.deploy.freezing._compiled", lambda module, args, kwargs: module)
    torch.manual_seed(0)
    module = Two()
    want, *others = [READERS[reader](module, example, tmp_path / "m.pt2") for example in EXAMPLES.values()]
    for got in others:
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("example", ["images", 3, None])
def test_another_kind_is_refused(example):
    with pytest.raises(TypeError, match=f"need example_input as a tensor, a tuple .* got {example!r}"):
        as_arguments(example)


class Named(nn.Module):
    def forward(self, ids, mask=None):
        return ids


class Loose(nn.Module):
    def forward(self, **batch):
        return batch


@pytest.mark.parametrize(
    ("module", "batch", "want"),
    [
        (nn.Identity(), 1, 1),
        (nn.Identity(), [1, 2], 1),
        (Two(), [[1, 2], 3], [1, 2]),
        (nn.Identity(), [[1, 2], 3], 1),
        (Named(), {"ids": 1, "labels": 2, "mask": 3}, {"ids": 1, "mask": 3}),
        (Named(), ({"ids": 1, "labels": 2}, 5), {"ids": 1}),
        (Loose(), {"ids": 1, "labels": 2}, {"ids": 1, "labels": 2}),
        (nn.Identity(), {"a": [1, 2], "b": [3, 4]}, 1),
        (nn.Identity(), [], []),
    ],
)
def test_the_input_in_a_batch(module, batch, want):
    assert input_from(batch, module) == want


def test_the_first_samples():
    found = first_samples({"x": torch.arange(6).view(3, 2), "scale": torch.tensor(2.0), "name": "a"}, 2)
    assert (found["x"].tolist(), found["scale"].item(), found["name"]) == ([[0, 1], [2, 3]], 2.0, "a")


def test_the_first_examples_of_a_loader():
    data = torch.utils.data.TensorDataset(torch.arange(10.0).view(5, 2), torch.zeros(5))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    assert first_examples([loader], nn.Linear(2, 1)).tolist() == [[0.0, 1.0], [2.0, 3.0]]
