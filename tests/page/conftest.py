"""Results made up from a committed one, the pages of their boards, and a headless Chromium to open these in."""

import json
import os
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

import families
from benchmark.analysis.findings import findings
from benchmark.analysis.leaderboard import leaderboard
from benchmark.reporting.page import page
from benchmark.reporting.published import PublishedFigures
from benchmark.spec.protocol import load_protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Transfer
from benchmark.spec.study import load_study
from benchmark.spec.teacher_source import Trained
from benchmark.spec.yaml_files import shipped
from benchmark.storage.files import write_json
from benchmark.storage.result_file import read_result

from ..made import without_needs

ROOT = Path(__file__).parent.parent.parent
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
ALL = [(name, teacher.size) for name in families.members("papers") for teacher in families.spec(name).teachers]
FEW = [("deit3", "base"), ("deit3", "large"), ("deit", "base"), ("dino", "base"), ("mae", "base")]
BLOCKS = 4
MEANS = {"none": 24.0, "copy": 90.0, "distill": 60.0}
# Families whose standard students fail and whose matched ones do not; elsewhere transfer works, or nothing can be said.
FAILING, NOISY = ("clip", "mae", "beitv2"), ("mocov3", "dinov2")


def template():
    """A committed result, to be given other labels and numbers."""
    path = sorted((ROOT / "results" / "mini").glob("*/*/matched-distill-s0.json"))[0]
    return read_result(path)


def changed(record, **update):
    """A record with other values, and nothing of what the first has remembered of its own."""
    kind = type(record)
    return kind.model_construct(**{name: getattr(record, name) for name in kind.model_fields} | update)


def made_up(base, protocol, family, size, arm, seed):
    """A result of a cell. Equal runs (a baseline of a geometry; the arms of families with one architecture) have equal keys."""
    student, method = arm.partition("+")[0].split("-")
    native = [component.name for component in families.spec(family).native] if family in families.names() else []
    components = {name: {"args": {}} for name in native} if student == "matched" else {}
    width = {"small": 48, "base": 64, "large": 80}.get(size, 96)
    geometry = base.run.student.geometry.model_copy(update={"embed_dim": width})
    taught = Trained(run=f"{'-'.join(native) or 'plain'}-{size}") if method != "none" else None
    budget = float(arm.partition("budget=x")[2].partition("+")[0] or 1)
    recipe = base.run.protocol.recipe.model_copy(update={"steps": int(180 * budget)})
    update = {"family": family, "size": size, "arm": arm, "seed": seed, "teacher": taught}
    update["protocol"] = base.run.protocol.model_copy(update={"name": protocol, "recipe": recipe})
    update["student"] = base.run.student.model_copy(update={"components": components, "geometry": geometry})
    update["transfer"] = base.run.transfer.model_copy(update={"method": method}) if taught else Transfer()
    run = changed(base.run, **update)
    key = run.run.key + ("+match" if "+match" in arm else "")
    maps = method == "distill" or "+match" in arm
    return changed(base, run=run, key=key, **numbers(base, key, family, student, method, budget, maps))


def numbers(base, key, family, student, method, budget, maps):
    draw = random.Random(f"{key} 1")
    mean = (
        MEANS[method] - (8 if student == "matched" and method == "none" else 0) + (28 if method == "none" else 10) * (budget - 1)
    )
    if method != "none" and family in FAILING and student == "standard":
        mean = 6.0 if method == "copy" else 24.5
    spread = 9.0 if family in NOISY and method == "distill" else 1.2
    top1 = round(min(99.5, max(1.0, draw.gauss(mean, spread))), 2)
    curve = [
        point.model_copy(update={"step": int((i + 1) * 36 * budget), "val_top1": round(10 + (top1 - 10) * (i + 1) / 5, 1)})
        for i, point in enumerate(base.curve)
    ]
    dropped = [round(draw.uniform(0, 0.3), 5) for _ in range(BLOCKS)] if "reg" in family and method != "none" else None
    kl = [round(draw.uniform(0, 0.5), 5) for _ in range(BLOCKS)] if maps else None
    metrics = base.metrics.model_copy(update={"top1": top1, "attention_kl": kl, "dropped_mass": dropped})
    learnt = base.teacher if method != "none" else None
    return {"metrics": metrics, "curve": curve, "teacher": learnt, "val": base.val.model_copy(update={"top1": top1})}


def results_of(study, teachers, seeds, protocol="mini"):
    """A result for each teacher, arm of the study and seed."""
    base, arms = template(), load_study(study)[1].arms
    made = [made_up(base, protocol, *place, arm, seed) for place in teachers for arm in arms for seed in range(seeds)]
    return sorted(made, key=lambda result: result.cell)


def board_of(study, results, teachers, protocol="mini", comparisons=56):
    """The leaderboard of a study."""
    content = load_study(study)[1]
    return leaderboard((protocol, load_protocol("mini")[1].description), (study, content), results, comparisons, teachers)


def findings_of(results, protocol="mini"):
    """What the shipped studies claim, judged by these results; of all but `control` as if mini had what they need."""
    studies = {name: load_study(name)[1] for name in shipped("studies")}
    studies |= {name: without_needs(study) for name, study in studies.items() if name != "control"}
    return findings(protocol, load_protocol("mini")[1], results, studies)


@dataclass
class Page:
    """A page as a file: where it is, its boards and findings, and the data that stands in it."""

    path: Path
    boards: list
    findings: list

    @property
    def url(self):
        return self.path.as_uri()

    @property
    def data(self):
        text = self.path.read_text(encoding="utf-8")
        return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def write_page(folder, boards, left_out=(), published=None, files=True, findings=()):
    """The page in `folder`/reports, with the result files that it links to in `folder`/results."""
    for result in {result.cell.path: result for board in boards for result in board.results}.values() if files else ():
        write_json(folder / "results" / result.cell.path, result.model_dump(mode="json", by_alias=True))
    path = folder / "reports" / "index.html"
    path.parent.mkdir(parents=True)
    path.write_text(page(boards, findings, left_out, "../results", published), encoding="utf-8")
    return Page(path, list(boards), list(findings))


PUBLISHED_CONTENT = {
    "sources": {
        "L": {"cite": "Li et al. 2024, arXiv 2411.09702"},
        "Q": {"cite": "Qin et al. 2026, arXiv 2605.07191"},
        "S": {"cite": "a summary"},
    },
    "figures": [
        {"source": "L", "what": "MAE ViT-L, from scratch", "metric": "top1", "value": 83.0},
        {"source": "S", "what": "MAE", "metric": "verdict", "value": "failure", "protocol": "mini", "family": "mae"},
        {"source": "L", "what": "ensemble", "metric": "top1", "value": 86.3, "rows": [8]},
        {"source": "Q", "what": "largest gain", "metric": "gap", "value": 13.9, "rows": [8]},
    ],
}
PUBLISHED = validated(PublishedFigures, PUBLISHED_CONTENT, "here")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Five teachers, two of which share every run; three studies in two protocols; published figures; a file left out."""
    main, budget = results_of("main", FEW, 3), results_of("budget", FEW[:2], 3)
    other = results_of("main", FEW[:1], 1, "other")
    boards = [board_of("main", main, FEW), board_of("budget", budget, FEW[:2]), board_of("main", other, FEW[:1], "other")]
    return write_page(tmp_path_factory.mktemp("small"), boards, ["mini/x/y/z.json: not JSON"], PUBLISHED)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """All families with all their sizes, five seeds."""
    boards = [board_of("main", results_of("main", ALL, 5), ALL)]
    return write_page(tmp_path_factory.mktemp("whole"), boards, files=False)


@pytest.fixture(scope="session")
def claimed(tmp_path_factory):
    """What is claimed, beside results for and against it, differences in points and in nats, more of them than are shown
    at once, and studies without any; in two protocols."""
    main, budget, match = results_of("main", ALL, 3), results_of("budget", ALL[:8], 3), results_of("match", ALL, 3)
    other = results_of("main", FEW[:1], 2, "other")
    boards = [board_of("main", main, ALL), board_of("budget", budget, ALL[:8]), board_of("main", other, FEW[:1], "other")]
    distinct = {result.cell: result for result in (*main, *budget, *match)}
    judged = [*findings_of(list(distinct.values())), *findings_of(other, "other")]
    return write_page(tmp_path_factory.mktemp("claimed"), boards, published=PUBLISHED, files=False, findings=judged)


def driver(folder):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests, with a fresh profile."""
    folder = tempfile.mkdtemp(prefix="page-")
    os.environ.setdefault("SE_OFFLINE", "true")  # the driver is named: nothing is to be looked for elsewhere
    browser = driver(folder)
    yield browser
    browser.quit()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def browser(chromium):
    """The browser at a desktop's size, light; its log must be empty in the end."""
    chromium.get("about:blank")
    for name in ("browser", "performance"):
        chromium.get_log(name)
    resize(chromium, 1280, 900)
    scheme(chromium, "light")
    yield chromium
    errors = [entry for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors, errors


def resize(browser, width, height=844):
    """The size of the page itself, smaller than any window may be."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def scheme(browser, name, motion="reduce"):
    """What the system prefers; without motion, so that nothing is half faded in when it is looked at."""
    features = [{"name": "prefers-color-scheme", "value": name}, {"name": "prefers-reduced-motion", "value": motion}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
