"""``profile`` measures one module; expected numbers are counted by hand."""

import json

import pytest
import torch
from torch import nn

from lightning_compress import export
from lightning_compress.cli import main
from lightning_compress.timing import Latency


class Half(nn.Module):
    """Two of its four weights are zero."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)

    def forward(self, x):
        return self.net(x)


def test_numbers_and_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "lightning_compress.cli.measures.profiles.measure_latencies", lambda *_: [Latency(0.002, 0.001, 0.003, "cpu")]
    )
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    module = Half()
    with torch.no_grad():
        module.net.weight.copy_(torch.eye(2))
        module.net.bias.fill_(1.0)
    path = export(module, tmp_path / "model.lcz")
    words = ["profile", str(path), "--model", f"{__name__}.Half"]
    main([*words, "--example", "1,2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["parameters"], found["nonzeros"], found["state_bytes"]) == (6, 4, 24)
    assert found["macs"]["total"] == 4
    assert found["latency"]["median"] == 0.002
    main([*words, "--example", "1,2"])
    out = capsys.readouterr().out
    assert "2.000 (1.000-3.000)" in out
    assert "33.33%" in out
    main(words)
    assert "MACs and latency need an example input (there is no config that names data)" in capsys.readouterr().out


def test_an_example_that_forward_does_not_take_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    path = export(Half(), tmp_path / "model.lcz")
    with pytest.raises(SystemExit, match=r"need an example input that Half.forward takes, got \(1, 3\).*as --example"):
        main(["profile", str(path), "--model", f"{__name__}.Half", "--example", "1,3"])
