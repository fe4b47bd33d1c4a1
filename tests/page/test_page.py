"""The page in a real browser: what it shows is what the data say, for eyes, keyboard and small screens, and nothing leaves it."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlparse

import pandas as pd
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from benchmark.analysis.leaderboard import Row, leaderboard
from benchmark.reporting.gather import gather
from benchmark.reporting.page import page
from benchmark.reporting.published import PublishedFigures
from benchmark.spec.records import validated
from benchmark.spec.study import load_study

from .. import made
from ..reporting.test_tables import lost
from .conftest import ALL, FEW, PUBLISHED, ROOT, board_of, resize, results_of, scheme, template, write_page

COLUMNS = ["family", "size", "arm", "n", "score", "top1", "gap", "half", "interval", "verdict"]
SIZES = ["small", "base", "large"]
VERDICTS = ["success", "mixed", "inconclusive", "failure", "= standard", "no verdict"]
ENOUGH = 4.5


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def all_of(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def opened(browser, url):
    """Also where only what follows the # differs."""
    browser.get("about:blank")
    browser.get(url)


def shown(browser):
    """The table's rows as (family, size, arm), and the text of each column."""
    script = """return [...document.querySelectorAll("#cells tbody tr[data-family]")].map((row) =>
        [row.dataset.family, row.dataset.size, row.dataset.arm, ...[...row.cells].slice(3).map((cell) => cell.textContent)])"""
    return browser.execute_script(script)


def cells(data, board=0):
    """The embedded cells of a board."""
    found = data["boards"][board]["cells"]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def kind(cell):
    return cell["verdict"] or ("baseline" if "-none" in cell["arm"] else "no verdict")


def count(browser):
    words = find(browser, "#count").text.split()
    return int(words[1]), int(words[3])


def number(text):
    text = text.replace("−", "-")
    return None if text == "–" else float(text.split(" … ")[0])


def tab_to(browser, selector, most=250):
    """Press Tab until an element has the focus."""
    for _ in range(most):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.execute_script("return document.activeElement.matches(arguments[0])", selector):
            return browser.switch_to.active_element
    raise AssertionError(f"Tab does not reach {selector}")


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


# ---- the text


def test_the_text_is_the_same_every_time_and_stands_alone(small):
    again = page(small.boards, small.findings, ["mini/x/y/z.json: not JSON"], "../results", PUBLISHED)
    assert again == small.path.read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    assert f'content="{policy}"' in again
    assert "innerHTML" not in again and "outerHTML" not in again and "document.write" not in again


def test_every_result_of_a_board_is_embedded_once(small):
    data = small.data
    columns = data["runs"]["columns"]
    places = [
        tuple(row[columns.index(name)] for name in ("protocol", "family", "size", "arm", "seed")) for row in data["runs"]["rows"]
    ]
    expected = {(c.protocol, c.family, c.size, c.arm, c.seed) for board in small.boards for c in (r.cell for r in board.results)}
    assert len(places) == len(set(places)) and set(places) == expected


def test_without_results_it_says_so(browser, tmp_path):
    empty = write_page(tmp_path, [], files=False)
    opened(browser, empty.url)
    assert "No results to compare yet" in find(browser, "main").text


def test_committed_results_make_a_page(browser, tmp_path):
    report = gather(ROOT / "results")
    boards = report.boards
    made = write_page(tmp_path, boards, files=False, findings=report.findings)
    opened(browser, made.url)
    expected = []
    for protocol in dict.fromkeys(board.protocol for board in boards):
        first, *rest = [board.study for board in boards if board.protocol == protocol]
        expected += [f"{protocol} · {study}" for study in (first, "claims", *rest)]
    assert [tab.text for tab in all_of(browser, "[role=tab]")] == expected
    assert count(browser) == (len(boards[0].table), len(boards[0].table))


# ---- families at a glance


def test_the_summary_has_each_familys_verdicts(browser, whole):
    opened(browser, whole.url)
    (board,) = whole.boards
    rows = {row.get_attribute("data-family"): row for row in all_of(browser, "#summary tbody tr")}
    assert list(rows) == [family for family, _, _ in board.verdicts]
    for family, teachers, verdicts in board.verdicts:
        badges = [badge.text.split(maxsplit=1) for badge in rows[family].find_elements(By.CSS_SELECTOR, ".badge")]
        assert [badge[-1] for badge in badges] == [(v or "no verdict").split(maxsplit=1)[-1] for v in verdicts.values()]
        assert rows[family].find_element(By.CSS_SELECTOR, ".teachers").text.startswith(f"{teachers}: ")
    gaps = [row.entries[1].gap.value for row in board.rows if "beitv2" in row.families]
    assert f"{min(gaps):.1f} … {max(gaps):.1f}".replace("-", "−") in rows["beitv2"].text


def test_the_protocols_warning_is_prominent(browser, small):
    opened(browser, small.url)
    assert "It is no stand-in for ImageNet" in find(browser, "#description").text
    assert find(browser, "#description").location["y"] < 500


# ---- sorting


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_sorts_both_ways(browser, small, column):
    opened(browser, small.url)
    button = find(browser, f'th[data-column="{column}"] button')
    arms = [arm["name"] for arm in small.data["boards"][0]["arms"]]
    place = {
        "family": lambda row: row[0],
        "size": lambda row: SIZES.index(row[1]),
        "arm": lambda row: arms.index(row[2]),
        "verdict": lambda row: next((i for i, v in enumerate(VERDICTS) if row[-1].endswith(v)), None),
    }.get(column, lambda row: number(row[COLUMNS.index(column)]))
    seen = set()
    for _ in range(2):
        button.click()
        way = find(browser, f'th[data-column="{column}"]').get_attribute("aria-sort")
        values = [place(row) for row in shown(browser)]
        present = [value for value in values if value is not None]
        assert values[: len(present)] == present, "what is missing stands last"
        assert present == sorted(present, reverse=way == "descending")
        assert len(present) > 1
        seen.add(way)
    assert seen == {"ascending", "descending"}
    others = [
        th.get_attribute("aria-sort") for th in all_of(browser, "#cells thead th") if th.get_attribute("data-column") != column
    ]
    assert set(others) == {"none"}


# ---- filters and the address


def wanted(data, board=0, q="", **chosen):
    """The cells that match, computed from the embedded data."""
    titles = {name: family["title"] for name, family in data["families"].items()}
    found = []
    for cell in cells(data, board):
        text = " ".join([cell["family"], titles[cell["family"]], cell["size"], cell["arm"], kind(cell)]).lower()
        same = all((kind(cell) if name == "verdict" else cell[name]) == value for name, value in chosen.items())
        if same and all(word in text for word in q.lower().split()):
            found.append((cell["family"], cell["size"], cell["arm"]))
    return found


@pytest.mark.parametrize(
    "chosen",
    [
        {"family": "deit3"},
        {"size": "base", "verdict": "success"},
        {"family": "mae", "arm": "standard-copy"},
        {"verdict": "= standard", "q": "dino"},
        {"q": "DeiT III matched"},
        {"verdict": "failure", "size": "large"},
    ],
    ids=str,
)
def test_filters_combine_and_count(browser, small, chosen):
    opened(browser, small.url)
    for name, value in chosen.items():
        if name == "q":
            find(browser, "#filter-q").send_keys(value)
        else:
            Select(find(browser, f"#filter-{name}")).select_by_value(value)
    expected = wanted(small.data, **chosen)
    assert count(browser) == (len(expected), len(cells(small.data)))
    assert sorted(tuple(row[:3]) for row in shown(browser)) == sorted(expected)
    marks = browser.execute_script(
        'return [...document.querySelectorAll("#chart .cell > button")].map((b) => b.getAttribute("aria-label"))'
    )
    if "verdict" in chosen:  # what has no gap of its own has no mark, and families that share a row have one
        assert bool(marks) == bool(expected and chosen["verdict"] != "= standard") and len(marks) <= len(expected)
        assert all(chosen["verdict"] in mark for mark in marks)
    address = browser.current_url
    opened(browser, address)
    assert sorted(tuple(row[:3]) for row in shown(browser)) == sorted(expected), "a link shows the same"
    find(browser, "#reset").click()
    assert count(browser) == (len(cells(small.data)),) * 2
    assert "#" not in browser.current_url


def test_a_link_restores_study_sort_and_detail(browser, small):
    opened(browser, small.url)
    all_of(browser, "[role=tab]")[1].click()
    find(browser, 'th[data-column="top1"] button').click()
    find(browser, "#cells tbody tr td").click()
    address, rows, title = browser.current_url, shown(browser), find(browser, "#detail-title").text
    opened(browser, address)
    assert find(browser, "[role=tab][aria-selected=true]").text == "mini · budget"
    assert shown(browser) == rows
    assert find(browser, 'th[data-column="top1"]').get_attribute("aria-sort") == "descending"
    assert find(browser, "#detail").get_attribute("open") and find(browser, "#detail-title").text == title


def test_a_link_to_what_is_gone_shows_the_board(browser, small):
    opened(browser, f"{small.url}#study=gone&family=nobody&sort=nothing&open=no/where/x")
    assert count(browser) == (len(cells(small.data)),) * 2
    assert not find(browser, "#detail").get_attribute("open")


def test_protocols_can_be_chosen(browser, small):
    opened(browser, small.url)
    Select(find(browser, "#filter-protocol")).select_by_value("other")
    assert "Protocol other" in find(browser, "#description").text
    assert find(browser, "[role=tab][aria-selected=true]").text == "other · main"
    assert count(browser) == (len(cells(small.data, 2)),) * 2
    verdicts = {row[-1] for row in shown(browser)}
    assert verdicts == {"baseline", "no verdict"}, "a single run gives no verdict"


def test_what_is_shown_downloads(browser, small, tmp_path):
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    opened(browser, f"{small.url}#family=deit3&arm=standard-copy&sort=top1&dir=asc")
    find(browser, "#download").click()
    path = tmp_path / "mini-main-shown.csv"
    WebDriverWait(browser, 10).until(lambda _: path.exists() and path.stat().st_size)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert [(row["family"], row["size"], row["arm"]) for row in rows] == [tuple(row[:3]) for row in shown(browser)]
    table = small.boards[0].table.set_index(["family", "size", "arm"])
    for row in rows:
        assert float(row["gap"]) == pytest.approx(table.loc[(row["family"], row["size"], row["arm"]), "gap"], abs=1e-4)


# ---- charts, tooltips, links


def mark(browser, teacher, arm, chart="#chart"):
    return find(browser, f'{chart} [data-teacher="{teacher}"] .cell[data-arm="{arm}"] > button')


def test_the_tooltip_has_the_seeds_of_its_cell(browser, small):
    opened(browser, small.url)
    for teacher, arm in (("deit3/base", "standard-copy"), ("mae/base", "matched-distill"), ("deit/base", "standard-distill")):
        button = mark(browser, teacher, arm)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
        ActionChains(browser).move_to_element(button).perform()
        family, size = teacher.split("/")
        expected = [
            [str(r.cell.seed), f"{r.metrics.top1:.2f}"]
            for r in small.boards[0].results
            if (r.cell.family, r.cell.size, r.cell.arm) == (family, size, arm)
        ]
        rows = [[td.text for td in row.find_elements(By.CSS_SELECTOR, "td")][:2] for row in all_of(browser, "#tip tbody tr")]
        assert rows == expected and len(rows) == 3
        assert arm in find(browser, "#tip").text
        assert len(button.find_elements(By.CSS_SELECTOR, ".seed")) == 3
        assert button.get_attribute("aria-describedby") == "tip"


def test_a_gap_is_drawn_where_it_lies(browser, small):
    """Positions on the strip are proportional to the numbers, and verdicts differ in shape."""
    opened(browser, small.url)
    shapes, points = {}, []
    for row in small.boards[0].rows:
        for entry in row.entries:
            if entry.gap is None:
                continue
            button = mark(browser, f"{row.families[0]}/{row.size}", entry.arm.name)
            shape = button.find_element(By.CSS_SELECTOR, ".shape")
            shapes.setdefault(entry.gap.verdict, set()).add(shape.get_attribute("d"))
            x = shape.find_element(By.XPATH, "..").get_attribute("x")
            points.append((entry.gap.value, float(x.rstrip("%"))))
    assert len({d for found in shapes.values() for d in found}) == len(shapes) > 2
    (low, left), (high, right) = min(points), max(points)
    for value, x in points:
        assert x == pytest.approx(left + (value - low) / (high - low) * (right - left), abs=0.05)


def test_native_components_are_drawn_for_families_that_have_them(browser, small):
    opened(browser, small.url)
    board = small.boards[0]
    lines = [line.get_attribute("data-teacher") for line in all_of(browser, "#native .line[data-teacher]")]
    assert lines == ["deit3/base", "deit3/large", "mae/base"]
    row = next(row for row in board.rows if row.families == ("mae",))
    reversal = board.estimate(row, "matched-copy", "reversal")
    told = mark(browser, "mae/base", "matched-copy", "#native").get_attribute("aria-label")
    assert f"reversal {reversal.value:+.1f} ± {reversal.plain:.1f}".replace("-", "−") in told


def test_a_reversal_stands_beside_an_inconclusive_gap(browser, tmp_path):
    """In the table, in the chart's words and tooltip, and in the teacher's dialog."""
    board = leaderboard(("mini", ""), load_study("main"), made.results(lost(90)), 4)
    reversal = board.rows[0].entries[-1].reversal
    told = f"reversal {reversal.value:+.1f} ± {reversal.plain:.1f}".replace("-", "−")
    opened(browser, write_page(tmp_path, [board], files=False).url)
    verdicts = {row[2]: row[-1] for row in shown(browser)}
    assert verdicts["matched-distill"] == f"~inconclusive{told}" and verdicts["matched-copy"] == "✓success"
    line = mark(browser, "deit3/base", "matched-distill")
    assert f"inconclusive, {told}, 3 runs" in line.get_attribute("aria-label")
    ActionChains(browser).move_to_element(line).perform()
    assert f"{told} (plain)" in find(browser, "#tip").text
    assert "reversal: gap(matched) - gap(standard)" in find(browser, "#cells-block").text
    line.click()
    assert told in find(browser, "#detail tr.picked").text


def test_links_lead_to_result_files(browser, small):
    opened(browser, f"{small.url}#open=deit3/base/standard-copy")
    links = [link.get_attribute("href") for link in all_of(browser, "#runs a")]
    found = {Path(unquote(urlparse(link).path)).resolve() for link in links}
    expected = {
        small.path.parent.parent / "results" / r.cell.path
        for r in small.boards[0].results
        if r.cell.family == "deit3" and r.cell.size == "base"
    }
    assert found == {path.resolve() for path in expected}
    assert all(path.is_file() for path in found)
    opened(browser, f"{small.url}#protocol=mini&study=budget&open=deit3/base/standard-copy")
    for link in all_of(browser, "#runs a"):  # names with + and =
        assert Path(unquote(urlparse(link.get_attribute("href")).path)).is_file()


def test_the_detail_shows_a_teacher(browser, small):
    opened(browser, f"{small.url}#open=deit3/large/standard-distill")
    text = find(browser, "#detail").text
    assert find(browser, "#detail-title").text == "DeiT III large"
    base = template()
    assert "layer_scale" in text and f"{base.teacher.top1:.2f} %" in text and base.provenance.commit[:12] in text
    picked = find(browser, "#detail tr.picked")
    assert "standard-distill" in picked.text
    runs = [r for r in small.boards[0].results if (r.cell.family, r.cell.size) == ("deit3", "large")]
    assert len(all_of(browser, "#runs tbody tr")) == len(runs)
    lines = all_of(browser, "#detail .graph")[0].find_elements(By.CSS_SELECTOR, "path.series")
    assert len(lines) == len(runs)
    all_of(browser, "#detail .toggle[aria-pressed]")[0].click()
    lines = all_of(browser, "#detail .graph")[0].find_elements(By.CSS_SELECTOR, "path.series")
    assert len(lines) == len(runs) - 3
    distilled = [r.metrics.attention_kl[0] for r in runs if r.cell.arm == "standard-distill"]
    browser.execute_script("document.querySelectorAll('#detail details').forEach((each) => { each.open = true; })")
    assert f"{sum(distilled) / len(distilled):.3f}" in find(browser, "#detail details").text


# ---- what is claimed

OUTCOMES = {
    "as claimed": "claimed",
    "contradicted": "contradicted",
    "not contradicted": "open",
    "not testable here": "none",
    "open": "open",
    None: "none",
}
AT_CLAIMS = "#protocol=mini&study=claims"
NUMBERS = re.compile(r"[-+−]?\d+\.\d")


def of_mini(made):
    return [finding for finding in made.data["findings"] if finding["protocol"] == "mini"]


def tells(text, one):
    """Whether an estimate stands there with its simultaneous half-width, to the digits of its unit."""
    value, _, simultaneous, _ = one["estimate"]
    digits = 3 if one["on"] == "kl" else 1
    parts = text.replace("−", "-").split(" ± ")
    expected = [value] if simultaneous is None else [value, simultaneous]
    assert [float(part) for part in parts] == pytest.approx(expected, abs=0.501 * 10**-digits)
    assert {len(part.partition(".")[2]) for part in parts} == {digits}
    return True


def badge_in(node):
    """What an outcome's badge says, and by which class it looks as it does."""
    badge = node.find_element(By.CSS_SELECTOR, ".badge")
    return badge.get_attribute("textContent").replace(" ", ""), badge.get_attribute("class").split()[-1]


def test_every_claim_has_its_word(browser, claimed):
    opened(browser, claimed.url + AT_CLAIMS)
    assert find(browser, "h2").text == "Claims and measurements"
    expected = [(finding, claim) for finding in of_mini(claimed) for claim in finding["claims"]]
    assert {claim["outcome"] for _, claim in expected} >= {"as claimed", "contradicted", "open", "not testable here", None}
    rows = all_of(browser, "#claims tbody tr")
    assert len(rows) == len(expected)
    for row, (finding, claim) in zip(rows, expected, strict=True):
        cells = [td.text for td in row.find_elements(By.CSS_SELECTOR, "td")]
        assert cells[:4] == [", ".join(map(str, claim["rows"])) or "–", claim["description"], claim["who"], finding["study"]]
        assert all(line in cells[4] for line in claim["summary"]) and bool(claim["summary"]) == bool(claim["measured"])
        assert badge_in(row) == (claim["word"].replace(" ", ""), OUTCOMES[claim["outcome"]])
    contradicted = find(browser, "#claims .badge.contradicted")
    failure = find(browser, ".badge.failure")
    assert "contradicted" in contradicted.text and "✗" in contradicted.text
    looks = {node.value_of_css_property("background-color") for node in (contradicted, failure)}
    assert len(looks) == 2, "what contradicts a claim does not look like a student's failure"


def test_a_section_has_what_was_measured(browser, claimed):
    opened(browser, claimed.url + AT_CLAIMS)
    browser.execute_script("document.querySelectorAll('#panel details').forEach((each) => { each.open = true; })")
    measured = [finding for finding in of_mini(claimed) if any(claim["measured"] for claim in finding["claims"])]
    ids = [f"finding-{finding['study']}" for finding in measured]
    assert [section.get_attribute("id") for section in all_of(browser, "section.finding")] == ids
    units = set()
    for finding in measured:
        section = find(browser, f"#finding-{finding['study']}")
        lines = [one for claim in finding["claims"] for one in claim["measured"]]
        assert bool(section.find_elements(By.CSS_SELECTOR, "details.fold")) == (len(lines) > 40)
        lines.sort(key=lambda one: one["on"] == "kl")
        rows = section.find_elements(By.CSS_SELECTOR, ".measured tbody tr:has(svg)")
        texts = browser.execute_script("return arguments[0].map((row) => [...row.cells].map((cell) => cell.textContent))", rows)
        for row, text, one in zip(rows, texts, lines, strict=True):
            plain = text[0].replace("−", "-").replace("\u00a0", " ")
            assert plain.startswith(one["difference"]) and text[1] == one["teacher"]
            assert str(one["n"]) in text and any(tells(cell, one) for cell in text if NUMBERS.match(cell))
            assert one["expect"] is None or one["expect"] in text
            assert row.get_attribute("data-outcome") == one["outcome"]
            assert not one["outcome"] or text[-1].endswith(one["outcome"])
        units |= {one["on"] for one in lines}
        items = section.find_elements(By.CSS_SELECTOR, ".claim-list > li")
        for item, claim in zip(items, finding["claims"], strict=True):
            assert claim["description"] in item.text and badge_in(item)[0] == claim["word"].replace(" ", "")
            assert all(figure in item.text for figure in claim["published"])
        codes = [code.text for code in section.find_elements(By.CSS_SELECTOR, ".commands code")]
        assert codes == [*finding["commands"], *finding["imagenet"]]
        assert finding["footnote"] in section.text and finding["asks"] in section.text
        assert "What mini can and cannot say:" in section.text and finding["limits"] in section.text
    assert units == {"score", "kl"} and len(all_of(browser, "details.fold")) == 1
    left = [finding["study"] for finding in of_mini(claimed) if finding not in measured]
    assert [item.text.split(":")[0] for item in all_of(browser, "#claims-left li")] == left
    main = find(browser, "#finding-main").text
    assert "largest gain: +13.9 (Qin et al. 2026" in main and "86.3" not in main, "the figures of those who claim it"


def test_differences_of_a_unit_share_a_scale(browser, claimed):
    opened(browser, claimed.url + AT_CLAIMS)
    lines = [
        one for finding in of_mini(claimed) if finding["study"] == "main" for c in finding["claims"] for one in c["measured"]
    ]
    shapes = all_of(browser, "#finding-main .strip svg:has(.shape)")
    points = [(one["estimate"][0], float(s.get_attribute("x").rstrip("%"))) for one, s in zip(lines, shapes, strict=True)]
    (low, left), (high, right) = min(points), max(points)
    for value, x in points:
        assert x == pytest.approx(left + (value - low) / (high - low) * (right - left), abs=0.05)


def test_links_between_claims_and_boards(browser, claimed):
    opened(browser, claimed.url)
    block = find(browser, "#claimed-block")
    (finding,) = [finding for finding in of_mini(claimed) if finding["study"] == "main"]
    items = block.find_elements(By.CSS_SELECTOR, ".claim-list > li")
    for item, claim in zip(items, finding["claims"], strict=True):
        assert claim["description"] in item.text and badge_in(item)[0] == claim["word"].replace(" ", "")
    assert finding["asks"] in block.text and finding["limits"] in block.text
    block.find_element(By.CSS_SELECTOR, "a.button").click()
    at_section(browser, "main")
    assert browser.current_url == f"{claimed.url}{AT_CLAIMS}&section=main"
    browser.back()
    WebDriverWait(browser, 5).until(lambda _: all_of(browser, "#claimed-block"))
    assert find(browser, "[role=tab][aria-selected=true]").text == "mini · main"
    opened(browser, f"{claimed.url}{AT_CLAIMS}")
    for study in ("sizes", "main", "finetuned"):  # the last has a line alone
        find(browser, f'#claims tr[data-study="{study}"] a').click()
        at_section(browser, study)
    browser.execute_script("scrollTo(0, 0)")
    find(browser, '#claims tr[data-study="finetuned"] a').click()
    at_section(browser, "finetuned")
    opened(browser, f"{claimed.url}{AT_CLAIMS}&section=budget")
    at_section(browser, "budget")
    find(browser, "#finding-budget .facts a").click()
    WebDriverWait(browser, 5).until(lambda _: all_of(browser, "#cells"))
    assert find(browser, "[role=tab][aria-selected=true]").text == "mini · budget"
    assert browser.switch_to.active_element.get_attribute("id") == "panel"


def at_section(browser, study):
    """The tab of claims, with a study's heading in sight and in focus."""
    WebDriverWait(browser, 5).until(lambda _: browser.switch_to.active_element.get_attribute("id") == f"finding-{study}-title")
    assert find(browser, "[role=tab][aria-selected=true]").text == "mini · claims"
    top, height = browser.execute_script("return [document.activeElement.getBoundingClientRect().top, innerHeight]")
    assert 0 <= top < height


def test_claims_are_a_tab_like_a_study(browser, claimed):
    opened(browser, claimed.url)
    tabs = [tab.text for tab in all_of(browser, "[role=tab]")]
    assert tabs == ["mini · main", "mini · claims", "mini · budget", "other · main", "other · claims"]
    tab_to(browser, "[role=tab]")
    press(browser, Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element.text == "mini · claims"
    assert find(browser, "#panel").get_attribute("aria-labelledby") == "tab-1"
    assert browser.current_url == claimed.url + AT_CLAIMS
    press(browser, Keys.END)
    assert browser.switch_to.active_element.text == "other · claims"
    assert "Protocol other" in find(browser, "#description").text and "no stand-in" not in find(browser, "#panel").text
    opened(browser, f"{claimed.url}{AT_CLAIMS}&section=gone&family=mae&open=mae/base/standard-copy")
    assert all_of(browser, "#claims") and not find(browser, "#detail").get_attribute("open")
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert all(browser.execute_script("return [...document.querySelectorAll('#panel details')].map((each) => each.open)"))


def test_without_findings_there_are_no_claims(browser, small):
    assert small.data["findings"] == []
    opened(browser, small.url + AT_CLAIMS)
    assert [tab.text for tab in all_of(browser, "[role=tab]")] == ["mini · main", "mini · budget", "other · main"]
    assert find(browser, "[role=tab][aria-selected=true]").text == "mini · main" and not all_of(browser, "#claimed-block")


# ---- the keyboard alone


def test_the_keyboard_sorts_and_filters(browser, small):
    opened(browser, small.url)
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "skip"
    press(browser, Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "panel"
    tab_to(browser, "#filter-q")
    press(browser, "mae")
    assert count(browser)[0] == len(wanted(small.data, q="mae"))
    tab_to(browser, "#reset")
    press(browser, Keys.ENTER)
    tab_to(browser, 'th[data-column="gap"] button')
    press(browser, Keys.SPACE)
    assert find(browser, 'th[data-column="gap"]').get_attribute("aria-sort") == "descending"
    press(browser, Keys.ENTER)
    assert find(browser, 'th[data-column="gap"]').get_attribute("aria-sort") == "ascending"
    assert browser.execute_script("return document.activeElement.closest('th').dataset.column") == "gap", "the focus stays"


def test_the_keyboard_walks_studies(browser, small):
    opened(browser, small.url)
    tab_to(browser, "[role=tab]")
    press(browser, Keys.ARROW_RIGHT)
    assert find(browser, "[role=tab][aria-selected=true]").text == "mini · budget"
    assert browser.switch_to.active_element.get_attribute("aria-selected") == "true"
    press(browser, Keys.END)
    assert find(browser, "[role=tab][aria-selected=true]").text == "other · main"
    assert find(browser, "#panel").get_attribute("aria-labelledby") == "tab-2"


def test_the_keyboard_opens_tooltip_and_detail_and_esc_closes_them(browser, small):
    opened(browser, small.url)
    tab_to(browser, "#chart .cell > button")
    assert all_of(browser, "#tip")
    press(browser, Keys.TAB)
    assert browser.execute_script("return document.activeElement.closest('#tip') !== null"), "Tab goes on to the links"
    press(browser, Keys.ESCAPE)
    assert not all_of(browser, "#tip")
    tab_to(browser, "#chart .cell > button")
    press(browser, Keys.ENTER)
    assert find(browser, "#detail").get_attribute("open")
    assert browser.execute_script("return document.activeElement.id") == "close"
    press(browser, Keys.ESCAPE)
    WebDriverWait(browser, 5).until(lambda _: not find(browser, "#detail").get_attribute("open"))
    assert browser.execute_script("return document.activeElement.matches('#chart .cell > button')"), "the focus comes back"
    assert "open=" not in browser.current_url
    tab_to(browser, "#cells tbody button")
    press(browser, Keys.ENTER)
    assert find(browser, "#detail").get_attribute("open")


# ---- how it looks


def test_light_and_dark(browser, small):
    scheme(browser, "dark")
    opened(browser, small.url)
    browser.execute_script("localStorage.clear()")
    opened(browser, small.url)

    def ground():
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    dark = ground()
    find(browser, "#theme").click()
    light = ground()
    assert brightness(dark) < 0.1 < 0.8 < brightness(light)
    opened(browser, small.url)
    assert ground() == light, "the choice is remembered"
    browser.execute_script("localStorage.clear()")


def brightness(colour):
    """Relative luminance (WCAG 2) of rgb(r, g, b)."""
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


COLOURS = """
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/^rgba.*, 0\\)$/.test(colour) && colour !== "transparent") return colour;
  }
  return "rgb(255, 255, 255)";
};
const own = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
const seen = new Map();
for (const node of document.querySelectorAll("body *:not(script)")) {
  if (!own(node) || !node.checkVisibility() || node.closest("svg.strip")) continue;
  const style = getComputedStyle(node);
  const text = node instanceof SVGElement ? style.fill : style.color;
  const name = node.getAttribute("class") ?? "";
  seen.set(`${text} on ${ground(node)} ${name}`, [text, ground(node), name, node.textContent.slice(0, 30)]);
}
return [...seen.values()];
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("detail", ["", "#open=deit3/base/standard-copy", AT_CLAIMS], ids=["board", "detail", "claims"])
def test_all_text_has_contrast(browser, whole, claimed, theme, detail):
    scheme(browser, theme)
    opened(browser, (claimed if detail == AT_CLAIMS else whole).url + detail)
    browser.execute_script("document.querySelectorAll('#words, #panel details').forEach((each) => { each.open = true; })")
    found = browser.execute_script(COLOURS)
    names = {name for _, _, name, _ in found}
    assert {"badge success", "badge failure", "badge inconclusive", "badge mixed"} <= names or detail
    assert {f"badge long {name}" for name in OUTCOMES.values()} <= names or detail != AT_CLAIMS
    for text, ground, name, words in found:
        light, dark = sorted((brightness(text), brightness(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= ENOUGH, f"{words!r} ({name}): {text} on {ground}"


@pytest.mark.parametrize("name", ["small", "whole"])
def test_a_small_screen_does_not_scroll_sideways(browser, name, request):
    made = request.getfixturevalue(name)
    resize(browser, 390)
    places = [made.url, f"{made.url}#open=deit3/base/standard-copy"]
    places += [f"{made.url}#protocol=mini&study=budget"] if name == "small" else []
    for url in places:
        opened(browser, url)
        assert browser.execute_script("return document.scrollingElement.scrollWidth <= innerWidth"), url
        assert browser.execute_script("const d = document.querySelector('#detail'); return d.scrollWidth <= d.clientWidth"), url
    opened(browser, made.url)
    browser.execute_script("arguments[0].focus()", mark(browser, "deit3/base", "standard-copy"))
    left, right, width = browser.execute_script(
        "const b = document.querySelector('#tip').getBoundingClientRect(); return [b.left, b.right, innerWidth]"
    )
    assert 0 <= left < right <= width


@pytest.mark.parametrize("width", [360, 700])
def test_claims_do_not_scroll_sideways(browser, claimed, width):
    """On the smallest screens not even their tables do."""
    resize(browser, width)
    for address in ("", AT_CLAIMS):
        opened(browser, claimed.url + address)
        browser.execute_script("document.querySelectorAll('#panel details').forEach((each) => { each.open = true; })")
        assert browser.execute_script("return document.scrollingElement.scrollWidth <= innerWidth"), address
    wide = "return [...document.querySelectorAll('.scroll:has(.claims, .measured)')].map((n) => n.scrollWidth - n.clientWidth)"
    assert width > 640 or set(browser.execute_script(wide)) == {0}


def test_motion_is_reduced_where_asked_for(browser, small):
    opened(browser, f"{small.url}#open=deit3/base/standard-copy")
    animation = "return getComputedStyle(document.querySelector('#detail')).animationName"
    assert browser.execute_script(animation) == "none"
    scheme(browser, "light", motion="no-preference")
    assert browser.execute_script(animation) == "slide"


def test_print_has_every_row_and_no_controls(browser, whole):
    opened(browser, whole.url)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not find(browser, ".filters").is_displayed() and not find(browser, "#theme").is_displayed()
    assert len(shown(browser)) == len(cells(whole.data))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


# ---- what must not happen


def test_nothing_leaves_the_file(browser, small):
    opened(browser, small.url)
    all_of(browser, "[role=tab]")[1].click()
    find(browser, "#cells tbody button").click()
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    asked = set()
    for entry in browser.get_log("performance"):
        if '"Network.requestWillBeSent"' in entry["message"]:
            asked |= {
                word for word in entry["message"].split('"') if word.startswith(("http:", "https:", "ws:", "file:", "ftp:"))
            }
    assert {url.partition("#")[0] for url in asked} <= {small.url}


BAD = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'><!--<script>"


def test_text_from_data_stays_text(browser, small, claimed, tmp_path):
    board = small.boards[0]
    rows = (replace(board.rows[0], families=(BAD,)), *board.rows[1:])
    verdicts = ((BAD, 1, board.verdicts[0][2]), *board.verdicts[1:])
    table = board.table.replace({"family": {"deit3": BAD}})
    assert isinstance(rows[0], Row)
    bad = replace(board, title=BAD, description=BAD, notes=(BAD,), rows=rows, verdicts=verdicts, table=table)
    figure = {"source": "X", "what": BAD, "metric": "top1", "value": BAD}
    published = validated(PublishedFigures, {"sources": {"X": {"cite": BAD}}, "figures": [figure]}, "here")
    finding = next(each for each in claimed.findings if each.stem == "mini-main")
    claim = finding.judged[0].claim.model_copy(update={"description": BAD, "by": BAD})
    judged = replace(finding.judged[0], claim=claim)
    told = replace(finding, title=BAD, asks=BAD, limits=BAD, commands=(BAD,), judged=(judged, *finding.judged[1:]))
    made = write_page(tmp_path, [bad], [BAD], published, files=False, findings=[told])
    opened(browser, made.url + AT_CLAIMS)
    for selector in ("#claims", "#finding-main", "#finding-main .claim-list", "#finding-main .commands", "#finding-main .limits"):
        assert BAD in browser.execute_script("return document.querySelector(arguments[0]).textContent", selector), selector
    assert not all_of(browser, "img")
    opened(browser, made.url)
    plain = len(all_of(browser, "script"))
    assert plain == 2, "the data and the page's own"
    for selector in (
        "h2",
        "#description",
        "#claimed-block",
        "#notes",
        "#summary",
        "#chart",
        "#cells",
        "#published-block",
        "#left-out",
    ):
        assert BAD in browser.execute_script("return document.querySelector(arguments[0]).textContent", selector), selector
    assert not all_of(browser, "img") and not all_of(browser, "#published-block a")
    assert browser.execute_script("return window.hacked") is None


def test_published_figures_stand_apart(browser, small):
    opened(browser, small.url)
    block = find(browser, "#published-block")
    assert "Published by the papers, not measured here" in block.text
    assert [th.text for th in block.find_elements(By.CSS_SELECTOR, "thead th")][-1] == "measured here"
    links = {link.get_attribute("href") for link in block.find_elements(By.CSS_SELECTOR, "a")}
    assert links == {"https://arxiv.org/abs/2411.09702", "https://arxiv.org/abs/2605.07191"}
    measured = [row.find_elements(By.CSS_SELECTOR, "td")[-1].text for row in block.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert measured == ["not measured", "copy: failure; distill: inconclusive", "not measured", "not measured"]
    assert "mini/x/y/z.json: not JSON" in find(browser, "#left-out").text
    assert not browser.execute_script(
        "return document.querySelector('#panel').contains(document.querySelector('#published-block'))"
    )


# ---- many results


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """10,080 results, and a table of as many cells."""
    board = board_of("main", results_of("main", ALL, 84), ALL)
    copies = [board.table.assign(size=board.table["size"] + ("" if i == 0 else f"-{i}")) for i in range(84)]
    board = replace(board, table=pd.concat(copies, ignore_index=True))
    return write_page(tmp_path_factory.mktemp("many"), [board], files=False)


def test_ten_thousand_results(browser, many):
    assert len(many.boards[0].results) == 10_080
    opened(browser, many.url)
    assert count(browser) == (10_080, 10_080)
    find(browser, 'th[data-column="top1"] button').click()
    rows = shown(browser)
    assert len(rows) == 200
    best = sorted((cell["top1"] for cell in cells(many.data)), reverse=True)[:200]
    assert [number(row[4]) for row in rows] == pytest.approx(best, abs=0.051)
    find(browser, "#filter-q").send_keys("clip")
    assert count(browser)[0] == len(wanted(many.data, q="clip"))
    find(browser, "#cells-more button").click()
    assert len(shown(browser)) == 400


def test_several_teachers_share_a_row(browser, small):
    """deit and dino are one architecture: one line in the charts, a row each in the table."""
    assert ("deit", "base") in FEW and ("dino", "base") in FEW
    opened(browser, small.url)
    assert not all_of(browser, '#chart [data-teacher="dino/base"]')
    assert find(browser, '#chart [data-teacher="deit/base"] > button').text == "DeiT, DINO base"
    assert {"deit", "dino"} <= {row[0] for row in shown(browser)}
    Select(find(browser, "#filter-family")).select_by_value("dino")
    assert len(all_of(browser, "#chart .line[data-teacher]")) == 1
