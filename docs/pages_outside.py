"""Pages of the site that lie outside of docs/, and the links between all pages.

The README is the site's first page; the contributor's guide, the changelog, measured results and
the examples' sources are pages, too. Links are written as they work in the repository itself,
relative to the file that they stand in. Here they become links between the pages.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()(?!https?://|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for place, uri in _pages_outside().items():
        path = ROOT / place
        if path.suffix == ".py":
            files.append(File.generated(config, uri, content=_page_of(path)))
        else:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    outside = _pages_outside()
    here = {uri: place for place, uri in outside.items()}
    uri = page.file.src_uri
    folder = posixpath.dirname(here.get(uri, f"docs/{uri}"))

    def in_site(link: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(folder, link["path"]))
        target = outside.get(place, place.removeprefix("docs/"))
        return os.path.relpath(target, posixpath.dirname(uri) or ".") + (link["anchor"] or "")

    return LINK.sub(in_site, markdown)


def _pages_outside() -> dict[str, str]:
    """Place in the repository: place in the site."""
    results = [p for p in sorted(ROOT.glob("bench/results/**/*")) if p.suffix in (".md", ".png")]
    examples = sorted(ROOT.glob("examples/*.py"))
    pages = {
        "README.md": "index.md",
        **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md")},
    }
    for path in (*results, *examples):
        place = path.relative_to(ROOT).as_posix()
        pages[place] = place.removesuffix(".py") + (".md" if path.suffix == ".py" else "")
    return pages


def _page_of(script: Path) -> str:
    return f"# {script.name}\n\n```python\n{script.read_text()}```\n"
