import json

import pytest

from lightning_compress.archive import ArchiveError
from lightning_compress.archive.coding.records import read_records


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "are no JSON"),
        ("[1]", "are no dictionary"),
        ("\xff", "are no JSON"),
        ('{"a": ' + "[" * 200_000, "are no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "are no JSON"),
        ('{"a": 1, "a": 2}', "key 'a' twice"),
        ('{"##a": 1, "#a": 2}', "key '#a' twice, or a foreign one"),
        ('{"a": {"#tensor": 2}}', "#tensor of 2"),
        ('{"a": {"#tensor": -1}}', "#tensor of -1"),
        ('{"a": {"#tensor": true}}', "#tensor of True"),
        ('{"a": {"#tensor": 0.5}}', "#tensor of 0.5"),
        ('{"a": {"#tuple": 5}}', "#tuple of 5"),
        ('{"a": {"#tensor": 0, "b": 1}}', "foreign"),
    ],
)
def test_another_json_is_refused(text, message):
    with pytest.raises(ArchiveError, match=message):
        read_records(text.encode("latin-1"), 0, ["one", "two"])


def test_none_is_no_tensor():
    assert read_records(json.dumps({"a": None, "b": {"#tensor": 4}}).encode(), 3, ["x", "y"]) == {"a": None, "b": "y"}
