"""The documentation site is built without a warning, with the report page and each page of its navigation inside."""

import re

import pytest

from .conftest import ROOT, python

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the site needs mkdocs: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = python("-m", "mkdocs", "build", "--strict", "--site-dir", folder, env={"REPO_URL": "", "SITE_URL": ""})
    assert done.returncode == 0 and not re.findall(r"^(?:WARNING|ERROR) .*", done.stderr, re.M), done.stdout + done.stderr
    return folder


def test_each_page_of_the_navigation_is_built(site):
    named = re.findall(r"^ +- [^:]+: (\S+\.\w+)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert "first_run.md" in named and {path.name for path in (ROOT / "docs").glob("*.md")} <= {*named}
    for name in named:
        page = re.sub(r"\.(md|ipynb)$", "", name)
        path = site / name if page == name else site / page.removesuffix("index") / "index.html"
        assert path.is_file() and "<title>" in path.read_text(), name


def test_the_report_and_what_it_shows_are_inside(site):
    for name in ("index.html", "mini-main.csv"):
        assert (site / "reports" / name).read_bytes() == (ROOT / "reports" / name).read_bytes()
    results = {path.relative_to(ROOT) for path in (ROOT / "results").rglob("*.json")}
    assert results == {path.relative_to(site) for path in (site / "results").rglob("*.json")}


def test_links_within_the_site_lead_somewhere(site):
    """Those of the pages that docs/site_hooks.py writes too."""
    for page in site.rglob("*.html"):
        if page.parent.name == "reports":
            continue  # a script writes them
        for link in re.findall(r'(?:href|src)="((?![a-z]+:|//)[^"#?]+)', page.read_text()):
            path = (site / link.lstrip("/")) if link.startswith("/") else page.parent / link
            assert path.exists(), f"{page.relative_to(site)}: {link}"
