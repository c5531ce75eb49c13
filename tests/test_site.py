"""The site of the docs builds without a warning: pages, links and docstrings are whole, and no page needs a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_compress

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.html")}


def test_every_public_name_is_in_the_reference(site):
    reference = "".join(text for name, text in site.items() if name.startswith("reference/"))
    homes = {name: getattr(lightning_compress, name).__module__ for name in lightning_compress.__all__}
    places = {name: {f'id="{home}.{name}"', f'id="lightning_compress.{name}"'} for name, home in homes.items()}
    assert [name for name, ids in places.items() if not any(one in reference for one in ids)] == []


def test_no_page_fetches_from_a_network(site):
    fetched = re.compile(r'<(?:script|img|iframe)[^>]*src="?https?:|<link[^>]*rel="?stylesheet"?[^>]*href="?https?:')
    assert [name for name, text in site.items() if fetched.search(text)] == []


def test_docstrings_are_translated(site):
    """No markup of another language is left in the text of a page."""
    reference = {name: text for name, text in site.items() if name.startswith("reference/")}
    left = re.compile(r":(?:class|func|mod|meth|attr|math):|\.\. math|&gt;&gt;&gt; [^<]*</p>|=====|``")
    assert {name: left.findall(text) for name, text in reference.items() if left.search(text)} == {}
    assert "<math" in "".join(reference.values())


def test_a_name_in_a_docstring_is_a_link(site):
    callbacks, objects = site["reference/callbacks/index.html"], site["reference/objects/index.html"]
    for name in ("pruning.criteria", "pruning.patterns", "channels.criteria", "quantization.scales"):
        assert f'href="../objects/#lightning_compress.{name}"' in callbacks
        assert f'id="lightning_compress.{name}"' in objects
