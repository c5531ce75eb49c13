"""Links of a page that leave ``docs/`` lead to the repository: a page is read on its host and in the site."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(\]\(|^\[[^\]]+\]: )(\.\./[^)\s]+)", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs for every page."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def outside(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        inside = path.startswith("docs/")
        return match[0] if inside else f"{match[1]}{config.repo_url}blob/main/{path}"

    return _LINK.sub(outside, markdown)
