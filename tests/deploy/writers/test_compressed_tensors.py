"""Folders for transformers and vLLM: transformers is the reference that reads them."""

import json
import logging

import lightning as L
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from lightning_compress import CompressionReport, PerGroup, PruningCallback, QATCallback, export
from lightning_compress.deploy.writers.compressed_tensors import CompressedTensors, packed
from lightning_compress.quantization import profiles, scales
from lightning_compress.quantization.grids import AffineGrid
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Constant
from tests.support.runs import trainer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PROJECTIONS = ("*_proj.weight",)
IDS = torch.randint(64, (2, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("transformers").setLevel(logging.ERROR)


class Lit(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids).logits

    def training_step(self, batch, batch_idx):
        return self(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW((p for p in self.parameters() if p.requires_grad), 0.01)


def llama(tied=False):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=64, num_hidden_layers=1, tie_word_embeddings=tied, **sizes)
    return LlamaForCausalLM(config)


def trained(*callbacks, model=None):
    module = Lit(llama() if model is None else model)
    trainer(*callbacks, max_epochs=1).fit(module, DataLoader(torch.randint(64, (4, 8)), 2))
    return module.eval()


def weights(bits=4, include=PROJECTIONS, **options):
    return QATCallback(bits, activation_bits=None, include=include, schedule=Constant(), **options)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize(
    ("callbacks", "schemes"),
    [
        ([weights(8)], [(8, "channel", None)]),
        ([weights(3)], [(3, "channel", None)]),
        ([weights(4, granularity=PerGroup(16))], [(4, "group", 16)]),
        (
            [weights(4, ("*self_attn*_proj.weight",), granularity=PerGroup(16)), weights(8, ("*mlp*_proj.weight",))],
            [(4, "group", 16), (8, "channel", None)],
        ),
    ],
    ids=["8 bits", "3 bits", "groups", "two schemes"],
)
def test_transformers_computes_the_same_bits(callbacks, schemes, tmp_path):
    module = trained(*callbacks)
    folder = export(module, tmp_path / "tiny.v1", writer=CompressedTensors())
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(logits(loaded), logits(module.model))
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    groups = [group["weights"] for group in config["config_groups"].values()]
    assert [(group["num_bits"], group["strategy"], group["group_size"]) for group in groups] == schemes
    assert config["ignore"] == ["lm_head"]


def test_integers_of_each_token_are_a_scheme_of_vllm(tmp_path):
    dynamic = QATCallback(8, profile=profiles.Dynamic(), include=("*mlp*_proj.weight",), schedule=Constant())
    module = trained(dynamic, weights(4, ("*self_attn*_proj.weight",)))
    folder = export(module, tmp_path / "tiny", writer=CompressedTensors())
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    tokens = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    groups = {group["format"]: group.get("input_activations") for group in config["config_groups"].values()}
    assert groups == {"int-quantized": tokens, "pack-quantized": None}
    assert config["format"] == "mixed-precision"
    stored, name = load_file(folder / "model.safetensors"), "model.layers.0.mlp.up_proj"
    assert stored[f"{name}.weight"].dtype == torch.int8
    weight = module.model.get_submodule(name).weight.detach()
    assert torch.equal(stored[f"{name}.weight"] * stored[f"{name}.weight_scale"], weight)
    # transformers divides the range of a token by 127.5, and vLLM, as the module, by 127: a step differs by 0.4 %.
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert (logits(loaded) - logits(module.model)).abs().max() < 0.02 * logits(module.model).abs().max()


def test_codes_and_scales_are_those_of_the_grid(tmp_path):
    module = trained(weights(4, granularity=PerGroup(16)), PruningCallback(0.5, include=PROJECTIONS))
    folder = export(module, tmp_path / "tiny", writer=CompressedTensors())
    stored, name = load_file(folder / "model.safetensors"), "model.layers.0.mlp.up_proj"
    weight = module.model.get_submodule(name).weight.detach()
    codes = unpack_from_int32(stored[f"{name}.weight_packed"], 4, stored[f"{name}.weight_shape"])
    values = codes.view(48, 2, 16) * stored[f"{name}.weight_scale"].view(48, 2, 1)
    assert torch.equal(values.view(48, 32), weight)
    assert (codes == 0).sum() == (weight == 0).sum() > 700
    assert stored[f"{name}.weight_packed"].nbytes == 48 * 32 // 2


def test_a_merged_adapter_is_written_on_its_grid(tmp_path):
    module = trained(
        weights(4, granularity=PerGroup(16)),
        model=get_peft_model(llama(), LoraConfig(r=2, target_modules=["up_proj", "q_proj"])),
    )
    folder = export(module, tmp_path / "tiny", writer=CompressedTensors())
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(logits(loaded), module(IDS).detach(), rtol=1e-5, atol=1e-5)
    assert {name.rpartition(".")[2] for name, part in loaded.named_modules() if hasattr(part, "weight_scale")}


def test_what_the_format_does_not_pack_is_named_and_in_floating_point(tmp_path):
    module = trained(weights(4, ("*",)), model=llama(tied=True))
    assert "model.embed_tokens.weight" in grids_of(module.model)
    with pytest.warns(UserWarning, match=r"in floating point: model.embed_tokens.weight, lm_head.weight"):
        folder = export(module, tmp_path / "tiny", writer=CompressedTensors())
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)), logits(module.model))


def test_a_classifier(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(vocab_size=64, max_position_embeddings=16, **sizes))
    module = trained(weights(8, ("*encoder*.weight",)), model=model)
    folder = export(module, tmp_path / "bert", writer=CompressedTensors())
    loaded = BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(logits(loaded), logits(model))
    assert not (folder / "generation_config.json").exists()


def test_one_scale_of_a_whole_weight_is_repeated_for_each_output():
    found = packed(torch.tensor([[0.5, 0.0], [-1.0, 0.5]]), AffineGrid(torch.tensor([[0.5]]), torch.zeros(1, 1), -2, 1))
    assert found.codes.tolist() == [[1, 0], [-2, 1]]
    assert found.scale.tolist() == [[0.5], [0.5]]
    assert (found.bits, found.group_size) == (2, None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), "need one model of transformers to .* got a Linear without one"),
        (lambda: torch.nn.ModuleList([llama(), llama()]), "got 0, 1: pass it alone"),
        (llama, "need a module trained with QATCallback"),
        (
            lambda: trained(weights(4, scale=scales.minmax)),
            "need weights with zero points of 0 to write a compressed-t",
        ),
        (
            lambda: trained(QATCallback(8, include=PROJECTIONS, schedule=Constant())),
            r"got others at .*: train with QATCallback\(activation_bits=None\)",
        ),
    ],
)
def test_what_it_cannot_hold_is_refused(make, message, tmp_path):
    module = make()
    with pytest.raises(ValueError, match=message):
        export(module, tmp_path / "tiny", writer=CompressedTensors())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_differs_is_not_left_behind(tmp_path, monkeypatch):
    module = trained(weights(8))
    earlier = export(module, tmp_path / "tiny", writer=CompressedTensors())
    written = (earlier / "model.safetensors").read_bytes()
    monkeypatch.setattr(
        "lightning_compress.deploy.writers.compressed_tensors.packed",
        lambda weight, grid, **options: packed(weight + grid.scale, grid, **options),
    )
    with pytest.raises(ValueError, match="need tiny to hold the weights bit for bit, got another 'model.layers.0"):
        export(module, tmp_path / "tiny", writer=CompressedTensors())
    assert (earlier / "model.safetensors").read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_with_files_of_the_user_is_not_replaced(tmp_path, monkeypatch):
    module, folder = trained(weights()), tmp_path / "tiny"
    export(module, folder, writer=CompressedTensors())
    export(module, folder, writer=CompressedTensors())
    (folder / "tokenizer.json").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"need path as that of a new folder.*tiny', which holds 'tokenizer.json':"
    ):
        export(module, folder, writer=CompressedTensors())
    assert (folder / "tokenizer.json").read_text() == "mine"
    with pytest.raises(NotADirectoryError, match="need path as that of a folder, got .*json', which is a file"):
        export(module, folder / "tokenizer.json", writer=CompressedTensors())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(FileExistsError, match="got the current one, '.'"):
        export(module, ".", writer=CompressedTensors())


def test_a_report_writes_the_folder_and_counts_its_files(tmp_path):
    report = CompressionReport(tmp_path / "run", formats=[CompressedTensors()], example_input=IDS)
    trained(weights(8), report)
    files = [file for file in (tmp_path / "run" / "model").iterdir() if file.is_file()]
    assert report.result.files == {"model": sum(len(file.read_bytes()) for file in files)}
