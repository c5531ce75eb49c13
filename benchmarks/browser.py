"""Opens a report in a browser: ``python -m benchmarks.browser FOLDER``, with Chromium installed.

At the widths of a desktop and of a phone, the table of layers is sorted and filtered. The page has to be no wider than
the window, and to print no error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.tables import show

_PROBE = """<script>
const heads = document.querySelectorAll("#layers th button");
const firsts = () => [...document.querySelectorAll("#layers tbody tr")].map((row) => row.cells[0].textContent);
const before = firsts();
heads[2].click();
const sorted = firsts();
const numbers = [...document.querySelectorAll("#layers tbody tr")].map((row) => sortKey(row.cells[2].textContent));
const input = document.querySelector("#layers input");
input.value = before[0];
input.dispatchEvent(new Event("input"));
const shown = [...document.querySelectorAll("#layers tbody tr")].filter((row) => !row.hidden).length;
const falls = numbers.every((number, index) => !index || numbers[index - 1] >= number);
document.title = JSON.stringify([sorted.length === before.length && falls, shown,
  document.documentElement.scrollWidth <= window.innerWidth]);
</script>"""


def main(folder: str) -> None:
    """Print the table, and exit with 1 if something is wrong."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("need chromium or google-chrome, got neither")
    text = (Path(folder) / "report.html").read_text(encoding="utf-8").replace("</body>", f"{_PROBE}</body>")
    rows = [_opened(browser, text, width) for width in (1280, 390)]
    show("The report in a browser", ("width", "sorted", "rows of the first name", "fits the window", "errors"), rows)
    if any(row[1] != "true" or row[3] != "true" or row[4] != "0" for row in rows):
        raise SystemExit(1)


def _opened(browser: str, text: str, width: int) -> tuple[str, ...]:
    with TemporaryDirectory() as place:
        framed = Path(place) / "report.html"
        framed.write_text(text, encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--enable-logging=stderr", f"--window-size={width},900"]
        done = subprocess.run([*command, "--dump-dom", framed.as_uri()], capture_output=True, text=True, check=True)
    title = re.search(r"<title>\[(.*?)\]</title>", done.stdout)
    sorted_, shown, fits = title.group(1).split(",") if title else ("", "", "")
    errors = sum("CONSOLE" in line for line in done.stderr.splitlines())
    return str(width), sorted_, shown, fits, str(errors)


if __name__ == "__main__":
    main(sys.argv[1])
