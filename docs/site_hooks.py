"""What the site has beside docs/: README and CONTRIBUTING, guides cut from these, reports/ and results/.

Pages are written for a Git host, so their links are those of the repository. Here each becomes a link
within the site. A file that the site lacks is a link to `repo_url`, or a bare name where that is unset.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
WHOLE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
GUIDES = {  # page: the sections it has, as (file, title)
    "add_a_family.md": [("README.md", "Add a family"), ("CONTRIBUTING.md", "A family file")],
    "write_a_study.md": [("docs/studies.md", "Your own study"), ("docs/studies.md", "Arms")],
    "submit_results.md": [("CONTRIBUTING.md", "Hand in results")],
}
PUBLISHED = {"reports": ("",), "results": (".json", ".yaml")}  # folders with the endings of what is published as it is
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files from outside of docs/."""
    for source, uri in WHOLE.items():
        files.append(File.generated(config, uri, content=_linked(_read(source), source, uri, config)))
    for uri, sections in GUIDES.items():
        parts = [_linked(_section(*each), each[0], uri, config) for each in sections]
        files.append(File.generated(config, uri, content="\n".join(parts).removeprefix("#")))
    for path in sorted(path for folder in PUBLISHED for path in (ROOT / folder).rglob("*.*")):
        file = path.relative_to(ROOT).as_posix()
        if _place(file) is not None:
            files.append(File.generated(config, file, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of a page of docs/. The search finds a text once: not in a guide, nor in tables."""
    uri = page.file.src_uri
    if uri in GUIDES or uri.startswith("reports/"):
        page.meta["search"] = {"exclude": True}
    return markdown if page.file.generated_by else _linked(markdown, f"docs/{uri}", uri, config)


def _read(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")


def _section(source: str, title: str) -> str:
    """A section of a page, from its heading on. Raises PluginError."""
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", _read(source), re.M | re.S)
    if found is None:
        raise PluginError(f"{source} has no section {title!r}, which docs/site_hooks.py asks for")
    return found[0]


def _linked(markdown: str, source: str, uri: str, config: MkDocsConfig) -> str:
    """The text of `source` with links that hold on the page `uri`; code blocks stay as they are."""
    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.M | re.S)
    parts[::2] = [LINK.sub(partial(_link, source=source, uri=uri, config=config), part) for part in parts[::2]]
    return "".join(parts)


def _link(found: re.Match[str], source: str, uri: str, config: MkDocsConfig) -> str:
    mark, text, target = found.groups()
    path, _, anchor = target.partition("#")
    if "://" in path:
        return found[0]
    file = normpath(join(dirname(source), path)) if path else source
    there = _place(file)
    if there is not None:
        return f"{mark}[{text}]({relpath(there, dirname(uri) or '.')}{anchor and f'#{anchor}'})"
    if config.repo_url:
        return f"{mark}[{text}]({config.repo_url.rstrip('/')}/blob/main/{file})"
    return f"{text} (`{file}`)" if Path(file).name not in text else f"`{file}`"


def _place(file: str) -> str | None:
    """Where a file of the repository is in the site's sources; None if it is not there."""
    folder, _, below = file.partition("/")
    if folder in PUBLISHED:
        return file if file.endswith(PUBLISHED[folder]) and (ROOT / file).is_file() else None
    return below if folder == "docs" else WHOLE.get(file)
