"""Whatever is written where a user's file can put text, no script runs: a page, Markdown and a terminal show it as text."""

import io
import json
from urllib.parse import unquote

import pytest
from rich.console import Console
from selenium.webdriver.common.by import By

from benchmark.analysis.leaderboard import MARKS
from benchmark.reporting.documents import claims_page, readme_block
from benchmark.reporting.gather import gather
from benchmark.reporting.render import render
from benchmark.reporting.terminal import show, show_claims
from benchmark.reporting.text import printable
from benchmark.reporting.text_files import BOOK, PAGE, left_out_lines
from benchmark.spec.definitions import Definitions
from benchmark.spec.protocol import Protocol, load_protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Cell
from benchmark.spec.study import Study
from benchmark.storage.files import sealed

from .. import hostile, made

ALL = " ".join([*hostile.TEXTS, hostile.MORE])
SEEN = " ".join(printable(ALL).split())
ARMS = ("standard-none", "standard-copy", "standard-distill", "standard-none+budget=x0.5", "standard-copy+budget=x0.5")
TAGS = {
    "h1",
    "h2",
    "h3",
    "p",
    "a",
    "img",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "ul",
    "ol",
    "li",
    "strong",
    "em",
    "code",
    "pre",
}


def said(word):
    return f"{word} {ALL}"


def protocol():
    content = load_protocol("mini")[1].model_dump(mode="json", by_alias=True)
    return validated(Protocol, content | {"title": said("titled"), "description": said("description")}, "here")


def study(protocol_name):
    claim = {"description": said("claimed"), "by": said("by"), "rows": [1]}
    test = {"expect": "above", "of": ["standard-copy+budget=x0.5 - standard-none+budget=x0.5"]}
    content = {"title": said("studied"), "asks": said("asks"), "arms": list(ARMS), "claims": [claim | {"tests": [test]}]}
    return validated(Study, content | {"limits": {protocol_name: said("limits")}}, "here")


def published(protocol_name):
    place = {"family": "deit3", "size": "base", "arm": "standard-copy+budget=x0.5", "protocol": protocol_name}
    figure = {"source": "S", "what": said("what"), "metric": "gap", "value": said("value"), "rows": [1], **place}
    return {"sources": {"S": {"cite": said("cited")}}, "figures": [figure]}


def write(folder, name):
    """Results whose every text is hostile, and files that are none, with hostile names and for hostile reasons."""
    for arm in ARMS:
        for seed in range(3):
            content = made.content_of(
                Cell(name, "deit3", "base", arm, seed), 20 + seed + 30 * ("copy" in arm), {said("set"): 30.0}
            )
            content["provenance"] |= {name: said(name) for name in ("commit", "code", "host")} | {
                "versions": {said("v"): said("n")}
            }
            content["cost"]["device"] = said("device")
            if content["teacher"]:
                content["teacher"] |= {name: said(name) for name in ("source", "revision", "how")} | {"top1": 90.0}
            path = folder / name / "deit3" / "base" / f"{arm}-s{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(sealed(content)), encoding="utf-8")
    good = json.loads(path.read_text(encoding="utf-8"))
    for number, text in enumerate((*hostile.TEXTS, hostile.MORE.replace("\x00", ""), "\udcff")):
        odd = folder / "other" / "x" / "y" / f"{text.replace('/', '-')}.json"
        odd.parent.mkdir(parents=True, exist_ok=True)
        odd.write_text(json.dumps(good | {ALL: 1} | ({"schema": ALL} if number % 2 else {})), encoding="utf-8")
    stranger = good | {"run": good["run"] | {"protocol": good["run"]["protocol"] | {"name": ALL}}}
    (odd.parent / "stranger.json").write_text(json.dumps(sealed(stranger)), encoding="utf-8")
    (folder / "published.yaml").write_text(json.dumps(published(name)), encoding="utf-8")


@pytest.fixture(params=hostile.NAMES, ids=range(len(hostile.NAMES)))
def report(request, tmp_path, monkeypatch):
    """The report of a protocol and a study by hostile names, and the folder of its files."""
    name = request.param
    monkeypatch.setitem(made.PROTOCOLS, name, protocol())
    monkeypatch.setitem(made.DEFINED, name, Definitions(made.PROTOCOLS[name]))
    write(tmp_path / "results", name)
    found = gather(tmp_path / "results", (name, made.PROTOCOLS[name]), {f"my {name}": study(name)})
    render(found, tmp_path / "reports")
    return found, tmp_path / "reports"


def test_the_report_holds_it_all(report):
    found, _ = report
    assert {board.study for board in found.boards} == {"main", f"my {found.boards[0].protocol}"}
    assert any(finding.measured for finding in found.findings if finding.study.startswith("my "))
    assert len(left_out_lines(found.found, found.folder)) >= len(hostile.TEXTS) + 3


def test_no_script_of_a_users_runs_in_the_page(browser, report):
    _, folder = report
    browser.get((folder / PAGE).as_uri())
    ours = [len(browser.find_elements(By.TAG_NAME, name)) for name in ("script", "style")]
    read = []
    for place in range(len(browser.find_elements(By.CSS_SELECTOR, "[role=tab]"))):
        browser.find_elements(By.CSS_SELECTOR, "[role=tab]")[place].click()
        browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        for opener in range(min(2, len(browser.find_elements(By.CSS_SELECTOR, "#cells tbody button")))):
            browser.find_elements(By.CSS_SELECTOR, "#cells tbody button")[opener].click()
            browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            read.append(browser.find_element(By.TAG_NAME, "body").get_attribute("textContent"))
            clean(browser, ours)
            browser.execute_script("document.getElementById('detail').close()")
        read.append(browser.find_element(By.TAG_NAME, "body").get_attribute("textContent"))
        clean(browser, ours)
    text = " ".join(" ".join(read).split())
    for word in ("studied", "description", "claimed", "by", "asks", "limits", "what", "cited", "source", "host"):
        assert " ".join(said(word).split()) in text, word


def clean(browser, ours):
    """What the page's own parts are is all there is."""
    assert browser.execute_script("return window.hacked") is None
    assert [len(browser.find_elements(By.TAG_NAME, name)) for name in ("script", "style")] == ours
    assert not browser.find_elements(
        By.CSS_SELECTOR, "img, iframe, object, embed, form, base, [onload], [onerror], a[href^='javascript' i]"
    )


def test_no_markup_of_a_users_reaches_markdown(report):
    found, folder = report
    stem = found.boards[0].stem
    for markdown in ((folder / BOOK).read_text(encoding="utf-8"), claims_page(found, "reports"), readme_block(found, "reports")):
        tags, addresses, text = hostile.rendered(markdown)
        assert set(tags) <= TAGS
        assert not [address for address in addresses if address.lower().startswith("javascript")]
        assert addresses and tags.count("img") <= sum(address.endswith((".svg", ".png")) for address in addresses)
        assert "hacked=1" in text
    text = " ".join(hostile.rendered((folder / BOOK).read_text(encoding="utf-8"))[2].split())
    for word in ("studied", "description", "claimed", "asks", "limits", "what", "cited", "host", "device"):
        assert f"{word} {SEEN}" in text, word
    assert " ".join(printable(stem).split()) in text
    for line in left_out_lines(found.found, found.folder):
        assert " ".join(line.split()) in text


def test_links_of_hostile_names_lead_to_the_files(report):
    _, folder = report
    _, addresses, _ = hostile.rendered((folder / BOOK).read_text(encoding="utf-8"))
    assert len(addresses) > 10
    assert not [address for address in addresses if not (folder / unquote(address)).is_file()]


def test_nothing_that_a_terminal_acts_on_is_printed(report):
    found, _ = report
    console = Console(file=io.StringIO(), force_terminal=False, width=500)
    for board in found.boards:
        show(board, console)
    for finding in found.findings:
        show_claims(finding, console)
    printed = console.file.getvalue()
    assert SEEN in " ".join(printed.split())
    assert all(c.isprintable() or c == "\n" for c in printed) and any(mark in printed for mark in MARKS.values())
