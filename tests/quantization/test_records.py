"""Hostile records of quantization end in one error, before anything is built or allocated."""

import copy

import pytest
import torch
from torch import nn

from lightning_compress import RecordError
from lightning_compress.carried import attach_structure, record_structures
from lightning_compress.quantization.activations.quantizers import (
    ActivationQuantizer,
    Place,
    attach_quantizer,
    quantizers_of,
)
from lightning_compress.quantization.grids import AffineGrid
from lightning_compress.quantization.records import QUANTIZATION
from lightning_compress.quantization.weights import grids_of, set_grid


def module():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.fixture
def record():
    net = module()
    set_grid(net, "0.weight", AffineGrid(torch.full((4, 1), 0.5), torch.zeros(4, 1), -7, 7))
    attach_quantizer(net, Place("0", "input"), ActivationQuantizer(8, torch.tensor(-1.0), torch.tensor(2.0)))
    return record_structures(net, [QUANTIZATION])["compression_structures"]["quantization"]


def attached(record):
    net = module()
    checkpoint = {"compression_structures": {"quantization": record}, "state_dict": net.state_dict()}
    attach_structure(net, QUANTIZATION, checkpoint)
    return net


def test_a_valid_record_is_attached(record):
    net = attached(record)
    assert grids_of(net)["0.weight"].scale.tolist() == [[0.5]] * 4
    assert quantizers_of(net)[Place("0", "input")].bits == 8


def changed(record, path, value):
    *way, last = path
    inside = record = copy.deepcopy(record)
    for key in way:
        inside = inside[key]
    if value is KeyError:
        del inside[last]
    else:
        inside[last] = value
    return record


QUANTIZER = ("quantizers", 0)
FIELDS = ("grids", "0.weight", "fields")
NAN = torch.tensor(torch.nan)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        *(((*QUANTIZER, "bits"), bits, r"quantizers\[0\].bits") for bits in (10**10, 0, -1, 2.5, True, None, "8")),
        *(
            ((*QUANTIZER, "low"), low, r"quantizers\[0\].low")
            for low in (NAN, -NAN / 0, 0.5, torch.ones(2), torch.tensor(1))
        ),
        ((*QUANTIZER, "high"), torch.tensor(torch.inf), r"quantizers\[0\].high as finite numbers"),
        ((*QUANTIZER, "high"), torch.empty((), device="meta"), r"quantizers\[0\].high"),
        ((*QUANTIZER, "side"), "zzz", r"quantizers\[0\].side as one of input, output, got 'zzz'"),
        ((*QUANTIZER, "module"), "nowhere", r"quantizers\[0\].module as the name of a layer, got 'nowhere'"),
        ((*QUANTIZER, "module"), ["0"], r"quantizers\[0\].module"),
        ((*QUANTIZER, "positive"), 1, r"quantizers\[0\].positive"),
        ((*QUANTIZER, "enabled"), KeyError, r"quantizers\[0\] as a dictionary with the keys"),
        ((*QUANTIZER, "code"), "x", r"quantizers\[0\] as a dictionary with the keys"),
        (("quantizers",), {}, "quantizers as a list"),
        (("quantizers",), KeyError, "quantization as a dictionary with the keys grids, quantizers"),
        (("grids",), [], "grids as a dictionary"),
        (("grids", 5), {"kind": "AffineGrid", "fields": {}}, "a key of quantization.grids as text, got 5"),
        (
            ("grids", "none.weight"),
            {"kind": "AffineGrid", "fields": {}},
            r"grids\['none.weight'\] as the grid of a weight",
        ),
        (("grids", "0.weight", "kind"), "os.system", "class of the grid 'os.system' of '0.weight'"),
        (("grids", "0.weight", "kind"), KeyError, r"grids\['0.weight'\] as a dictionary"),
        ((*FIELDS, "scale"), torch.ones(4), "fields.scale as a floating point tensor of 2 dimensions"),
        ((*FIELDS, "scale"), torch.zeros(4, 1), "fields.scale as numbers above 0"),
        ((*FIELDS, "scale"), torch.full((4, 1), torch.nan), "fields.scale as finite numbers"),
        ((*FIELDS, "scale"), torch.ones(5, 1), r"rows"),
        ((*FIELDS, "zero_point"), torch.ones(2, 1), r"4 rows in every tensor"),
        ((*FIELDS, "low"), 10**10, "fields.low as an integer from"),
        ((*FIELDS, "transposed"), "yes", "fields.transposed as True or False"),
        ((*FIELDS, "high"), KeyError, "fields as a dictionary with the keys"),
    ],
    ids=str,
)
def test_a_hostile_record_is_named(path, value, place, record):
    with pytest.raises(RecordError, match=f"need (the )?(quantization)?.*{place}"):
        attached(changed(record, path, value))


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_no_record_at_all_is_named(value):
    with pytest.raises(RecordError, match="need quantization as a dictionary"):
        attached(value)
