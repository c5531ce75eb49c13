"""Tables at 80 columns keep every number whole."""

from rich.console import Console

from lightning_compress.cli.screens.tables import narrow_table, printable


def test_long_names_are_folded_and_numbers_stay_whole(capsys):
    table = narrow_table("name", "bytes", "zeros")
    table.add_row(printable("a.rather.long.name." * 8), "1,234,567,890", "99.9%")
    Console(width=80).print(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("1,234,567,890  99.9%" in line for line in lines)
