from dataclasses import replace

from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.report.views.stages import Stage, stages
from lightning_compress.report.views.tables import as_dict, markdown

DENSE = ModelProfile(
    (LayerProfile("fc.weight", (10, 20), 200, 190, 800, 700), LayerProfile("fc.bias", (10,), 10, 10, 40, 70)),
    state_bytes=860,
    archive_bytes=750,
)


def with_weight(archive_bytes, **changes):
    return replace(DENSE, layers=(replace(DENSE.layers[0], **changes), DENSE.layers[1]), archive_bytes=archive_bytes)


def test_a_dense_model_is_only_coded():
    assert stages(DENSE, DENSE) == [Stage("dense", 860), Stage("entropy coded", 750)]


def test_zeros_need_a_bit_for_each_position():
    pruned = with_weight(150, nonzeros=20, distinct=21)
    # 20 x 4 bytes and 200 bits; a table of 20 values would cost more than it saves. 40 of the bias, 20 of buffers.
    assert stages(DENSE, pruned)[1:] == [Stage("zeros left out", 80 + 25 + 60), Stage("entropy coded", 150)]


def test_codes_have_a_fixed_width_and_a_table():
    shared = with_weight(90, nonzeros=20, distinct=5)
    # 20 codes of 2 bits, 4 values of 4 bytes.
    assert stages(DENSE, shared)[2:] == [Stage("values shared", 5 + 16 + 25 + 60), Stage("entropy coded", 90)]


def test_without_zeros_no_positions_are_stored():
    quantized = with_weight(200, distinct=16)
    assert stages(DENSE, quantized)[1] == Stage("values shared", 100 + 64 + 60)


def test_integers_need_their_bits_and_scales():
    quantized = with_weight(150, nonzeros=20, distinct=21, bits=4, scales=10)
    # 20 codes of 4 bits, 10 scales of 4 bytes, 200 bits of positions.
    assert stages(DENSE, quantized)[1:] == [
        Stage("zeros left out", 80 + 25 + 60),
        Stage("quantized", 10 + 40 + 25 + 60),
    ]


def test_shared_integers_have_shorter_codes():
    both = with_weight(60, distinct=4, bits=8, scales=1)
    assert stages(DENSE, both)[1:] == [
        Stage("quantized", 200 + 4 + 60),
        Stage("values shared", 50 + 4 * 4 + 60),
        Stage("entropy coded", 60),
    ]


def test_binary_weights_take_a_bit_each():
    assert stages(DENSE, with_weight(100, distinct=2))[1] == Stage("values shared", 25 + 8 + 60)


def test_removed_channels_come_first():
    narrow = ModelProfile((LayerProfile("fc.weight", (5, 20), 100, 95, 400, 350),), 400, 380)
    assert stages(DENSE, narrow) == [Stage("dense", 860), Stage("channels removed", 400), Stage("entropy coded", 380)]


def test_stages_are_in_the_report():
    comparison = Comparison(DENSE, with_weight(90, nonzeros=20, distinct=5))
    assert "| values shared | 106 | 8.11x |" in markdown(comparison)
    assert as_dict(comparison)["stages"]["entropy coded"] == 90
