"""Pages of the catalog, as a terminal of 80 columns shows them."""

import pytest

from lightning_compress.cli import main
from lightning_compress.cli.catalog.kinds import KINDS
from lightning_compress.cli.catalog.pages import catalog_page

NAMES = sorted({name for shelves in KINDS.values() for shelf in shelves for name in shelf.names})


@pytest.mark.parametrize("wanted", [None, *KINDS, *NAMES])
def test_pages_fit_80_columns_and_hold_no_markup(wanted):
    page = catalog_page(wanted)
    assert max(map(len, page.splitlines())) <= 80
    assert "``" not in page
    assert ":class:" not in page
    assert ".. math::" not in page
    assert "| ---" not in page


def test_a_table_is_a_line_for_each_row():
    page = catalog_page("DistillationCallback")
    assert "\nend or failure of the fit: the module gets its class back" in page
    assert "when | effect" not in page


def test_a_name_of_two_callbacks_is_told_for_both():
    assert catalog_page("taylor").count("in YAML:\n  criterion: taylor") == 2


def test_a_suffix_is_the_name_of_its_format():
    assert catalog_page(".onnx").startswith("Onnx, for CompressionReport.formats\n")
    assert "  formats: [.onnx]" in catalog_page("Onnx")


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("PrunningCallback", "; did you mean 'PruningCallback'?"), ("xyz", ": lightning-compress list shows all names")],
)
def test_an_unknown_name_is_refused(wrong, hint):
    with pytest.raises(SystemExit) as stopped:
        main(["list", wrong])
    assert str(stopped.value.code).startswith("lightning-compress: error: need a kind out of callbacks, criteria, ")
    assert str(stopped.value.code).endswith(f"or a name, got {wrong!r}{hint}")
