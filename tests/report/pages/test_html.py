"""The page: whole, escaped, without a network, and its program."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import quickjs

from lightning_compress.macs import Macs
from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.report.pages.html import Card, cards, page
from lightning_compress.timing import Latency

VOID = {"meta", "input", "br", "path", "use"}
HOSTILE = "</script><img src=x onerror=alert(1)>&{{7*7}}\x1b[31m"


class Parsed(HTMLParser):
    """Tags that are open, texts by the tag around them, and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.links, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def model(names, nonzeros=20, size=1000):
    layers = [LayerProfile(name, (4, 5), nonzeros, distinct=9, state_bytes=80, archive_bytes=20) for name in names]
    return ModelProfile(tuple(layers), 80 * len(layers), size, Macs(100, {}, "1 x 5"))


def comparison(names=("a", "b"), **options):
    return Comparison(model(names), model(names, 5, 250), **options)


def test_every_tag_is_closed_and_nothing_is_fetched():
    found = comparison(files={"model.lcz": 250, "model.onnx": 7}, metrics_after={"acc": 0.5}, versions={"torch": "2"})
    parsed = Parsed(page(found, {name: found.plot(name) for name in found.pictures}))
    assert parsed.open == []
    assert parsed.tags.count("svg") == 2
    assert [link for link in parsed.links if not link.startswith("#")] == []
    assert "https://" not in re.sub(r"<svg.*?</svg>", "", page(found), flags=re.DOTALL)
    texts = [text for tag, text in parsed.texts if tag == "code"]
    assert "module = load_compressed(YourModule, 'model.lcz')" in "\n".join(texts)


def test_names_are_text():
    found = comparison(
        [HOSTILE],
        metrics_after={HOSTILE + "acc": 0.5},
        methods={HOSTILE: {HOSTILE: HOSTILE, "method": HOSTILE}},
        files={HOSTILE: 3},
        failures={HOSTILE: HOSTILE},
        configuration={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
    )
    text = page(found, {name: found.plot(name) for name in found.pictures})
    parsed = Parsed(text)
    assert parsed.open == []
    assert parsed.tags.count("script") == 1
    assert "img" not in parsed.tags
    assert "\x1b" not in text
    assert sum(HOSTILE.replace("\x1b", "\\x1b") in data for _, data in parsed.texts) > 8


def test_all_layers_are_in_the_page():
    text = page(comparison([f"blocks.{n}.fc.weight" for n in range(300)]))
    body = text[text.index('id="layers"') : text.index("</section>", text.index('id="layers"'))]
    assert body.count("<tr>") == 302  # the heads and the total


def test_losses_are_red():
    text = page(comparison(failures={"model.onnx": "need 1"}, metrics_before={"acc": 0.9}, metrics_after={"acc": 0.1}))
    assert '<li class="LOSS"><b>LOSS</b>model.onnx was not written: need 1</li>' in text
    assert text.index('class="LOSS"') < text.index('class="SMALLER"')


def test_cards_are_the_totals_that_changed():
    slow, fast = Latency(2e-3, 1.9e-3, 2.1e-3, "cpu"), Latency(1e-3, 0.9e-3, 1.1e-3, "cpu")
    found = comparison(latencies=(slow, fast), metrics_before={"acc": 0.9}, metrics_after={"acc": 0.85, "loss": 2.0})
    assert cards(found) == [
        Card("archive, bytes", "250", "from 1,000", "4.0x smaller", "good"),
        Card("zeros", "75.0%", "from 0.0%"),
        Card("PyTorch on cpu", "1 ms", "from 2 ms", "2.00x faster", "good"),
        Card("acc", "0.8500", "from 0.9000", "-0.0500", "bad"),
        Card("loss", "2.0000"),
    ]
    assert cards(replace(found, latencies=(fast, slow)))[2].kind == "bad"


@pytest.fixture(scope="module")
def program():
    text = page(comparison())
    context = quickjs.Context()
    context.eval(text[text.index("<script>") + 8 : text.index("</script>")])
    return lambda call: json.loads(context.eval(f"JSON.stringify({call})"))


@pytest.mark.parametrize(
    ("texts", "descending", "order"),
    [
        (["9", "1,000", "72 → 46"], False, [0, 2, 1]),
        (["9", "1,000", "72 → 46"], True, [1, 2, 0]),
        (["0.0% → 9.5%", "36.1%", ""], True, [2, 1, 0]),
        (["b", "c", "a"], False, [2, 0, 1]),
        (["x", "x", "x"], True, [0, 1, 2]),
        (["10 → none", "3"], False, [1, 0]),
    ],
    ids=["numbers", "descending", "percent", "names", "stable", "gone"],
)
def test_the_table_is_sorted_by_the_numbers_after(texts, descending, order, program):
    assert program(f"sortedOrder({json.dumps(texts)}, {json.dumps(descending)})") == order


def test_a_filter_takes_all_words(program):
    assert program('["layers.0.attn.weight", "layers.0.attn.bias", "head"].map((n) => matches(n, "ATTN wei"))') == [
        True,
        False,
        False,
    ]
    assert program('matches("head", "")') is True
