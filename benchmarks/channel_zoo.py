"""The zoo: tiny architectures of transformers, random weights, each narrowed to half of its MACs or refused.

For each: the groups of channels are found, units are chosen by magnitude until half of the MACs (or as many as there
are to save) are left, and the model is narrowed. ``off`` is the largest difference between the output of the narrow
and the masked model, relative to the largest output; forward and backward of the narrow model are run. Layers left
alone are counted, with the first reason.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.tables import quiet, show
from lightning_compress.channels.budget.costs import sizes_of, total_cost
from lightning_compress.channels.budget.selection import choose_units
from lightning_compress.channels.criteria import magnitude, members
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.channels.groups import mask_, removed_entries
from lightning_compress.channels.removal.surgery import remove_units_
from lightning_compress.example_inputs import float_outputs

IMAGES = {"pixel_values": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))}
TOKENS = {"input_ids": torch.arange(2 * 16).view(2, 16) + 3}
STAGES = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]}
PYRAMID = {**STAGES, "num_attention_heads": [1, 2, 4, 8], "image_size": 64}
TEXT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 99}
VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 64,
    "patch_size": 16,
}

ZOO: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]] = {
    "ResNet:ImageClassification": ({**STAGES, "embedding_size": 16, "layer_type": "basic"}, IMAGES),
    "RegNet:ImageClassification": ({**STAGES, "embedding_size": 16, "groups_width": 8}, IMAGES),
    "ViT:ImageClassification": (VISION, IMAGES),
    "DeiT:ImageClassification": (VISION, IMAGES),
    "Beit:ImageClassification": (VISION, IMAGES),
    "Dinov2:ImageClassification": (VISION, IMAGES),
    "ViTMSN:ImageClassification": (VISION, IMAGES),
    "ConvNext:ImageClassification": (STAGES, IMAGES),
    "ConvNextV2:ImageClassification": (STAGES, IMAGES),
    "MobileNetV1:ImageClassification": ({"depth_multiplier": 0.25, "image_size": 64}, IMAGES),
    "MobileNetV2:ImageClassification": ({"depth_multiplier": 0.35, "image_size": 64}, IMAGES),
    "EfficientNet:ImageClassification": (
        {"width_coefficient": 0.35, "depth_coefficient": 0.3, "image_size": 64, "hidden_dim": 448},
        IMAGES,
    ),
    "Swin:ImageClassification": (
        {"embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "image_size": 64},
        IMAGES,
    ),
    "Swinv2:ImageClassification": (
        {"embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "image_size": 64},
        IMAGES,
    ),
    "PoolFormer:ImageClassification": (STAGES, IMAGES),
    "Segformer:ImageClassification": (PYRAMID, IMAGES),
    "Levit:ImageClassification": (
        {
            "image_size": 64,
            "hidden_sizes": [32, 64, 96],
            "num_attention_heads": [2, 4, 6],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        IMAGES,
    ),
    "Bit:ImageClassification": ({**STAGES, "embedding_size": 32, "num_groups": 8}, IMAGES),
    "Cvt:ImageClassification": ({"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}, IMAGES),
    "FocalNet:ImageClassification": ({"embed_dim": 32, "depths": [1, 1, 1, 1], "image_size": 64}, IMAGES),
    "Pvt:ImageClassification": (
        {
            "hidden_sizes": [16, 32, 64, 128],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 8],
            "image_size": 64,
        },
        IMAGES,
    ),
    "PvtV2:ImageClassification": (
        {
            "hidden_sizes": [16, 32, 64, 128],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 8],
            "image_size": 64,
        },
        IMAGES,
    ),
    "MobileViT:ImageClassification": (
        {
            "hidden_sizes": [32, 48, 64],
            "neck_hidden_sizes": [8, 16, 24, 32, 48, 64, 128],
            "image_size": 64,
        },
        IMAGES,
    ),
    "Bert:SequenceClassification": (TEXT, TOKENS),
    "Roberta:SequenceClassification": ({**TEXT, "max_position_embeddings": 64}, TOKENS),
    "Electra:SequenceClassification": ({**TEXT, "embedding_size": 32}, TOKENS),
    "DistilBert:SequenceClassification": (
        {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 99},
        TOKENS,
    ),
    "GPT2:LMHeadModel": ({"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 99, "use_cache": False}, TOKENS),
    "Llama:ForCausalLM": ({**TEXT, "num_key_value_heads": 4, "use_cache": False}, TOKENS),
    "Llama:ForCausalLM (grouped queries)": ({**TEXT, "num_key_value_heads": 2, "use_cache": False}, TOKENS),
    "T5:EncoderModel": (
        {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 99},
        TOKENS,
    ),
}


def main() -> None:
    """Print one row for each architecture."""
    quiet()
    transformers.logging.set_verbosity_error()
    rows = [_row(name, settings, example) for name, (settings, example) in ZOO.items()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    header = ["architecture", "groups", "MACs left", "parameters left", "off", "seconds", "left alone"]
    show(f"Narrowed to half of the MACs, channels in multiples of 4; peak memory {peak:.2f} GiB", header, rows)


def build(name: str, settings: dict[str, Any]) -> nn.Module:
    """The architecture with random weights."""
    family, _, head = name.partition(":")
    head = head.partition(" ")[0]
    config = getattr(transformers, f"{family}Config")(**settings)
    kind = head if head.endswith("Model") or head.startswith("For") else f"For{head}"
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, f"{family}{kind}")(config)
    return model


def _row(name: str, settings: dict[str, Any], example: dict[str, torch.Tensor]) -> list[str]:
    model = build(name, settings).eval()
    start = time.process_time()
    try:
        groups, macs, parameters, off, left_alone = _narrow(model, example)
    except (ValueError, TypeError) as error:
        return [name, "0", "", "", "", f"{time.process_time() - start:.1f}", f"refused: {str(error)[:110]}"]
    seconds = f"{time.process_time() - start:.1f}"
    return [name, str(groups), f"{macs:.0%}", f"{parameters:.0%}", f"{off:.0e}", seconds, left_alone]


def _narrow(model: nn.Module, example: dict[str, torch.Tensor]) -> tuple[int, float, float, float, str]:
    plan = find_removable(model, example)
    sizes, ones = sizes_of(model), dict.fromkeys(sizes_of(model), 1.0)
    weights = dict(model.named_parameters())
    scores = {group.name: magnitude(members(group, weights, {})) for group in plan.groups}
    limit = total_cost(sizes, plan.prices) / 2
    removed = choose_units(plan.groups, scores, sizes, plan.prices, limit, round_to=4)
    reasons = [f"{name}: {why}" for name, why in plan.left_alone.items() if "output of the model" not in why]
    with torch.no_grad():
        mask_(model.state_dict(), removed_entries(plan.groups, removed))
        masked = float_outputs(model, example)
        remove_units_(model, plan.groups, removed)
        narrow = float_outputs(model, example)
    off = max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) for a, b in zip(masked, narrow, strict=True))
    torch.stack([out.sum() for out in float_outputs(model.train(), example)]).sum().backward()
    now = sizes_of(model)
    macs, parameters = (total_cost(now, prices) / total_cost(sizes, prices) for prices in (plan.prices, ones))
    return len(plan.groups), macs, parameters, off, f"{len(reasons)}; {reasons[0][:100]}" if reasons else ""


if __name__ == "__main__":
    main()
