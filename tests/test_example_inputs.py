"""One way to run a module on an example: whoever takes one reads it alike."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lightning_compress import export, freeze
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.example_inputs import (
    as_arguments,
    call,
    example_in,
    first_examples,
    first_samples,
    small_example_in,
    tensors_in,
)
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
        return ids + (0 if mask is None else mask)


class Loose(nn.Module):
    def forward(self, **batch):
        return batch["ids"] + batch["labels"]


class Whole(nn.Module):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["ids"] + batch["mask"]


class Stacked(nn.Module):
    def forward(self, images: list[Tensor]) -> Tensor:
        return torch.stack(images).sum(0)


class Fields(nn.Module):
    def forward(self, sample: "Sample") -> Tensor:
        return sample.ids + sample.mask


@dataclass
class Sample:
    ids: Any
    mask: Any


class Pair(NamedTuple):
    ids: Tensor
    mask: Tensor


A, B, C = torch.arange(12.0).view(3, 4).unbind()


@pytest.mark.parametrize(
    ("module", "batch", "want"),
    [
        (nn.Identity(), A, A),
        (nn.Identity(), [A, B], A),
        (Two(), [torch.stack([A]), torch.stack([B]), C], (torch.stack([A]), torch.stack([B]))),
        (Two(), [[torch.stack([A]), torch.stack([B])], C], (torch.stack([A]), torch.stack([B]))),
        (Stacked(), [[A, B], C], ([A, B],)),
        (nn.Linear(4, 2), [[A, B], C], A),
        (Named(), {"ids": A, "labels": B, "mask": C}, {"ids": A, "mask": C}),
        (Named(), ({"ids": A, "labels": B}, 5), {"ids": A}),
        (Named(), Sample(A, B), {"ids": A, "mask": B}),
        (Named(), [Pair(A, B), C], {"ids": A, "mask": B}),
        (Loose(), {"ids": A, "labels": B}, {"ids": A, "labels": B}),
        (Whole(), {"ids": A, "mask": B}, ({"ids": A, "mask": B},)),
        (Whole(), [{"ids": A, "mask": B}, C], ({"ids": A, "mask": B},)),
        (Fields(), Sample(A, B), (Sample(A, B),)),
        (nn.Linear(4, 2), {"label": C.long(), "image": A}, A),
        (nn.Linear(4, 2), {"first": [A, B], "second": [B, C]}, A),
    ],
)
def test_the_input_in_a_batch(module, batch, want):
    got = example_in(batch, module)
    assert type(got) is type(want)
    torch.testing.assert_close(tensors_in(got), tensors_in(want), rtol=0, atol=0)
    call(module, got)


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout())
    state = torch.get_rng_state()
    example_in([torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), A], module)
    assert (module[0].num_batches_tracked.item(), module[1].training) == (0, True)
    torch.testing.assert_close(torch.get_rng_state(), state)


def test_a_batch_without_an_input_is_refused():
    with pytest.raises(ValueError, match=r"need a batch that holds .* Linear.forward, got \[\(2, 3\), \(2,\)\].*"):
        example_in([torch.zeros(2, 3), torch.zeros(2)], nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"got \[\(4,\)\] \(forward takes other arguments\)"):
        example_in([A], Two())


def test_the_first_samples():
    found = first_samples({"x": torch.arange(6).view(3, 2), "scale": torch.tensor(2.0), "name": "a"}, 2)
    assert (found["x"].tolist(), found["scale"].item(), found["name"]) == ([[0, 1], [2, 3]], 2.0, "a")
    nested = first_samples(Sample(A, Pair(A, B)), 2)
    assert (nested.ids.tolist(), nested.mask.mask.tolist(), type(nested.mask)) == ([0, 1], [4, 5], Pair)


def test_the_first_examples_of_a_loader():
    data = torch.utils.data.TensorDataset(torch.arange(10.0).view(5, 2), torch.zeros(5))
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
    assert first_examples([loader])[0].tolist() == [[0.0, 1.0], [2.0, 3.0]]


class Neighbors(nn.Module):
    """Sums the features of linked nodes: the links are numbers of nodes."""

    def forward(self, features, links):
        return torch.zeros_like(features).index_add(0, links[1], features[links[0]])


def test_a_few_samples_of_a_batch_are_an_example_unless_forward_needs_all():
    images = torch.zeros(5, 3)
    assert small_example_in([images, torch.zeros(5)], nn.Linear(3, 1)).shape == (2, 3)
    graph = images, torch.tensor([[0, 1, 4], [1, 4, 0]])
    features, links = small_example_in(graph, Neighbors())
    assert (features.shape, links.shape) == ((5, 3), (2, 3))
    with pytest.raises(ValueError, match=r"need a batch that holds the input of Neighbors\.forward, got \[\(5, 3\)\]"):
        small_example_in([images], Neighbors())


def test_a_stream_is_not_read():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            raise AssertionError

    assert first_examples(torch.utils.data.DataLoader(Stream(), 8)) is None


@dataclass
class Output:
    logits: Tensor
    state: Any = None


def test_the_tensors_of_an_output():
    got = tensors_in([Output(A, {"cell": [B, 3]}), OrderedDict(loss=C)])
    torch.testing.assert_close(got, [A, B, C])


class Classified(nn.Module):
    """Takes one mapping and returns a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, batch: dict[str, Tensor]) -> Output:
        return Output(self.second(torch.relu(self.first(batch["x"]))))


def test_a_dataclass_of_a_mapping_is_followed_and_exported(tmp_path):
    module = Classified()
    example = example_in([{"x": torch.randn(3, 4)}, torch.zeros(3)], module)
    assert [group.units for group in find_removable(module, example).groups] == [8]
    export(module, tmp_path / "m.onnx", example)
    program = torch.export.load(export(module, tmp_path / "m.pt2", example)).module()
    torch.testing.assert_close(program({"x": torch.ones(5, 4)})["logits"], module({"x": torch.ones(5, 4)}).logits)


def test_an_example_that_forward_does_not_take_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"need an example input that Linear.forward .* got \(2, 3\), which raises"):
        export(nn.Linear(4, 2), tmp_path / "m.pt2", torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"or example_input=\(x,\) for a forward that takes the whole mapping x"):
        export(Classified(), tmp_path / "m.pt2", {"x": torch.zeros(2, 4)})


def test_the_example_input_array_of_a_module_is_the_default(tmp_path):
    module = nn.Linear(4, 2)
    module.example_input_array = torch.zeros(2, 4)
    assert export(module, tmp_path / "m.pt2").is_file()
