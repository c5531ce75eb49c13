from functools import partial

import pytest

from lightning_compress.evidence import evidence_of, reads


@reads("inputs")
def marked(weight, inputs, power=1):
    return weight * inputs**power


def test_a_mark_is_read_through_a_partial():
    assert evidence_of(marked) == evidence_of(partial(marked, power=2)) == "inputs"


def test_a_function_without_a_mark_reads_gradients():
    assert evidence_of(lambda weight, gradient: weight) == "gradient"


def test_an_unknown_evidence_is_refused():
    with pytest.raises(ValueError, match="need evidence 'gradient', 'inputs' or 'nothing', got 'activations'"):
        reads("activations")
