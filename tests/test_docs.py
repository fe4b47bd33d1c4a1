"""The documents' arithmetic is the code's, their Python does what they say, and what they name exists."""

import json
import re
import sys
import tomllib

import pytest
import yaml

import families
from benchmark.analysis.costs import by_arithmetic, disk_bytes, estimate, forward_flops, weights_bytes
from benchmark.execution.slurm.config import ClusterConfig
from benchmark.spec.arm import WORDS
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import load_protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Geometry
from benchmark.spec.study import Study, load_study
from benchmark.spec.teachers import teachers_of
from benchmark.spec.torchvision_sets import SETS
from benchmark.spec.yaml_files import shipped

from . import reference
from .conftest import ROOT, python

README = (ROOT / "README.md").read_text()
IMAGENET = (ROOT / "docs" / "imagenet.md").read_text()
CLUSTER = (ROOT / "docs" / "cluster.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def prose_of(text):
    """A page without code blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.S | re.M)


def anchors_of(path):
    """Those that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose_of(path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    begin, end = README.index("<!-- leaderboard -->"), README.index("<!-- /leaderboard -->")
    block = len(README[begin:end].encode())
    assert block <= 2500
    assert len(README.encode()) - block <= 8000


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_lines_of_prose_are_short(page):
    shown = re.sub(r"<!-- leaderboard -->.*<!-- /leaderboard -->", "", prose_of(page.read_text()), flags=re.S)
    if page.name == "claims.md":
        shown = shown.partition("## Protocol")[0]
    assert [line for line in shown.splitlines() if len(line) > 100 and not line.startswith(("|", "!["))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", prose_of(page.read_text()))
    for link in (link for link in links if "://" not in link):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_are_named_exist(page):
    """In place of NAME, the folder or any file like it."""
    named = re.findall(r"`((?:benchmark|docs|families|results|reports|tests)/[\w./-]*)`", page.read_text())
    for name in set(named) - {"families/beit.py"}:  # the README's example
        assert (ROOT / name.partition("NAME")[0]).exists(), name


def cost_of(teachers, name="imagenet"):
    protocol, study = load_protocol(name)[1], load_study("main")[1]
    plan = make_plan(name, protocol, "main", study, teachers, protocol.seeds)
    items = list(plan.items.values())
    needs = {"gpu_hours": estimate(items, by_arithmetic, protocol.together).hours}
    return len(items), needs | {"disk_gb": disk_bytes(items, protocol.together) / 1e9}


def cost_rows():
    """The table of docs/imagenet.md: what each teacher needs by itself."""
    for family, size in teachers_of("papers", None):
        runs, needs = cost_of([(family, size)])
        geometry = Geometry(**families.spec(family).teacher(size).geometry)
        weights, macs = weights_bytes(geometry) / 1e6, forward_flops(geometry) / 2e9
        columns = (
            f"{family} {size}",
            f"{weights:,.0f}",
            f"{macs:.1f}",
            str(runs),
            f"{needs['gpu_hours']:,.0f}",
            f"{needs['disk_gb']:.0f}",
        )
        yield f"| {' | '.join(columns)} |"


def test_the_costs_are_those_of_the_code():
    rows = list(cost_rows())
    assert len(rows) == 20
    assert "\n".join(rows) in IMAGENET, "\n".join(rows)
    runs, needs = cost_of(teachers_of("papers", None))
    assert f"{runs} runs, {needs['gpu_hours']:,.0f} GPU-hours and {needs['disk_gb']:.0f} GB" in " ".join(IMAGENET.split())


def family_row(name):
    """A row of docs/families.md."""
    spec = families.spec(name)
    sizes = ", ".join([*spec.sizes, *(f"({label})" for label in spec.labels[len(spec.sizes) :])])
    native = [
        f"`{each.name}`" + "†" * each.inert_under_copy + (f" ({', '.join(each.sizes)})" if each.sizes else "")
        for each in spec.native
    ]
    teachers = (*spec.teachers, *spec.alternatives)
    licences = ", ".join(dict.fromkeys(each.licence + " *" * each.is_restricted for each in teachers))
    return f"| `{name}` | {spec.title} ({spec.paper}) | {spec.recipe} | {sizes} | {', '.join(native) or 'none'} | {licences} |"


def test_families_are_those_of_the_registry():
    text = (ROOT / "docs" / "families.md").read_text()
    papers, further = text.split("## Further families")
    for name in families.names():
        assert family_row(name) in (papers if families.spec(name).sets else further), family_row(name)
    assert text.count("\n| `") == len(families.names())


def test_the_arithmetic_is_that_of_known_models():
    """Multiplications and parameters of ViT-B/16 and ViT-L/16 as timm's results list them: 17.6 and 61.6 G, 86 and 304 M."""
    for size, macs, parameters in (("base", 17.6, 86), ("large", 61.6, 304)):
        geometry = Geometry(**families.spec("mae").teacher(size).geometry)
        assert abs(forward_flops(geometry) / 2e9 - macs) < 0.1
        assert abs(weights_bytes(geometry) / 4e6 - parameters) < 2


def test_inaturalists_folders(tmp_path):
    (tmp_path / "images").mkdir()
    for number, split in enumerate(("train", "train", "val")):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"an image")
        path = tmp_path / f"{split}2018.json"
        content = json.loads(path.read_text()) if path.exists() else {"images": [], "annotations": []}
        content["images"].append({"id": number + 7, "file_name": f"images/{number}.jpg"})
        content["annotations"].append({"image_id": number + 7, "category_id": number * 11})
        path.write_text(json.dumps(content))
    (block,) = re.findall(r"```python\n(.*?)```", IMAGENET, re.S)
    exec(block.replace("/data/inat2018", str(tmp_path)), {})
    found = sorted(str(path.relative_to(tmp_path)) for split in ("train", "val") for path in (tmp_path / split).glob("*/*"))
    assert found == ["train/00000/0.jpg", "train/00011/1.jpg", "val/00022/2.jpg"]
    assert (tmp_path / found[0]).read_bytes() == b"an image"


def test_the_clusters_settings_are_valid():
    """The short one of docs/cluster.md, and the one that names every key."""
    (short,) = re.findall(r"cat > cluster.yaml <<'END'\n(.*?)END\n", CLUSTER, re.S)
    (whole,) = re.findall(r"```yaml\n(.*?)```", CLUSTER, re.S)
    for text in (short, whole):
        validated(ClusterConfig, yaml.safe_load(text), "an example")
    assert set(yaml.safe_load(whole)) == set(ClusterConfig.model_fields) - {"processes"}


def test_the_data_sets_are_those_of_the_code():
    page = (ROOT / "docs" / "data.md").read_text().partition("## Protocols on these sets")
    rows = [line for line in page[0].splitlines() if line.startswith("| `")]
    assert len(rows) == len(SETS)
    for row, (name, facts) in zip(rows, SETS.items(), strict=True):
        splits = ", ".join(f"{split} {each.images:,}" for split, each in facts.splits.items())
        where = "" if facts.folder == "." else f"`{facts.folder}/`: "
        assert row.startswith(
            f"| `{name}` | {facts.classes} | {splits} | {where}{', '.join(f'`{file}`' for file in facts.files)} |"
        )


def test_the_costs_of_protocols_for_one_gpu_are_those_of_the_code():
    page = (ROOT / "docs" / "data.md").read_text().partition("## Protocols on these sets")[2]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {name.strip("`"): row for row in rows for name in row[0].split(", ")}
    real = {name for name in shipped("protocols") if load_protocol(name)[1].img_size is not None}
    assert set(told) == real and len(rows) >= 6
    for name, (_, _, pixels, epochs, *hours) in told.items():
        protocol = load_protocol(name)[1]
        steps = protocol.data.training_images // protocol.recipe.batch_size * int(epochs)
        assert (str(protocol.img_size), steps) == (pixels, protocol.recipe.steps), name
        found = [cost_of([("dinov2", size)], name)[1]["gpu_hours"] for size in ("small", "base")]
        assert [f"{each:,.{0 if each >= 10 else 1}f}" for each in found] == hours, name


def test_the_page_of_studies_is_whole():
    """Every shipped study has a row, every variant of an arm too, and the example is a valid one."""
    page = (ROOT / "docs" / "studies.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [set(re.findall(r"`([\w]+)", row)) for row in rows]
    assert set(shipped("studies")) <= set.union(*named)
    variants = set(WORDS)
    assert variants <= {word for row in rows for word in re.findall(r"`(\w+)=", row)}
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    validated(Study, yaml.safe_load(example), "the example")


@pytest.mark.parametrize("page", reference.PAGES)
def test_the_references_are_what_the_code_writes(page):
    """In a process of its own, since the width of help is read from the environment."""
    if page == "cli.md" and sys.version_info >= (3, 13):
        pytest.skip("argparse writes help in another way")
    done = python("-c", f"from tests.reference import PAGES; print(PAGES[{page!r}](), end='')")
    assert done.stdout == (ROOT / "docs" / page).read_text(), done.stderr or "python -m tests.reference"


def test_what_github_reads_is_of_this_repository():
    """Workflow, issue forms, citation and changelog: targets, versions and counts that are there."""
    folder = ROOT / ".github"
    workflow = yaml.safe_load((folder / "workflows" / "tests.yml").read_text())
    targets = workflow["jobs"]["test"]["strategy"]["matrix"]["target"]
    makefile = (ROOT / "Makefile").read_text()
    assert targets == re.findall(r"^make ([\w-]+)$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert all(f"\n{target}:" in makefile for target in targets)
    for path in folder.glob("ISSUE_TEMPLATE/*.yml"):
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"] and all({"type", "attributes"} <= each.keys() for each in form["body"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    cited = {each["value"].partition(":")[2] for reference in citation["references"] for each in reference["identifiers"]}
    assert all(f"arXiv {number}" in README for number in cited) and len(cited) == 2
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changes, re.M)[0] == project["version"]
    assert f"{len(families.names())} families" in changes and f"{len(shipped('studies'))} studies" in changes
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert all(each["entry"].split()[0].removeprefix(".venv/bin/") in makefile for each in hooks)
