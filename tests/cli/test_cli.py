"""The command as users meet it: lists, plans, and one clear line for each mistake."""

import json
import re
import shlex

import pytest

from benchmark.cli import main, parser
from benchmark.cli.support import run_setup

from .. import made
from ..conftest import ROOT, python


def test_list_json(bench):
    code, out, _ = bench("list", "--json")
    catalogue = json.loads(out)
    assert code == 0
    assert len(catalogue["families"]) >= 11
    assert sum(len(family["teachers"]) for family in catalogue["families"]) >= 20
    deit3 = next(family for family in catalogue["families"] if family["name"] == "deit3")
    assert [teacher["size"] for teacher in deit3["teachers"]] == ["base", "large"]
    assert [component["name"] for component in deit3["native"]] == ["layer_scale", "patch_pos_embed"]
    assert "mini" in [protocol["name"] for protocol in catalogue["protocols"]]
    assert {"main", "nulls"} <= {study["name"] for study in catalogue["studies"]}


@pytest.mark.parametrize("what", ["families", "teachers", "studies", "protocols"])
def test_lists(bench, what):
    code, out, _ = bench("list", what)
    assert code == 0 and len(out.splitlines()) > 4


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["--help"], ["run", "--help"], ["run", "--dry-run"]])
def test_lists_and_help_load_nothing_heavy(words):
    code = (
        "import sys\nfrom benchmark.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'pandas', 'matplotlib', 'scipy', 'sklearn', 'submitit'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_dry_run_needs_nothing_and_trains_nothing(bench, folders, tmp_path):
    code, out, _ = bench("run", "--family", "deit3", "--sizes", "base,large", "--dry-run", "--json", *folders)
    plan = json.loads(out)
    assert code == 0
    assert plan["runs"] == plan["todo"] == 2 * (6 + 1) * 3
    assert plan["comparisons"] == 8
    assert {row["stage"] for row in plan["plan"]} == {1, 2}
    assert not any(row["finished"] for row in plan["plan"])
    code, out, _ = bench("run", "--dry-run", *folders)
    assert code == 0 and "to train" in out
    assert not list(tmp_path.iterdir())


def test_a_long_plan_is_shown_in_part(bench, folders):
    """A thousand rows; the numbers below the table are those of all, and --json lists them."""
    words = ("run", "--family", "deit3,mae", "--sizes", "base", "--seeds", ",".join(map(str, range(100))), "--dry-run", *folders)
    code, out, _ = bench(*words)
    runs = json.loads(bench(*words, "--json")[1])
    assert code == 0 and runs["runs"] == len(runs["plan"]) > 1000
    assert f"and {runs['runs'] - 1000} more runs; --dry-run --json lists all" in out
    assert f"{runs['runs']} runs for" in out and sum("to train" in line for line in out.splitlines()) == 1001


WRONG = [
    (["run", "--family", "diet3"], ["unknown family: 'diet3'", "did you mean 'deit3'", "mocov3"]),
    (["run", "--family", "families/deit3.py"], ["unknown family: 'families/deit3.py'", "deit3"]),
    (["run", "--family", "../deit3"], ["unknown family", "did you mean 'deit3'"]),
    (["run", "--family", "deit3,"], ["unknown family: ''"]),
    (["run", "--family", "deit3", "--sizes", "small"], ["unknown size of deit3: 'small'", "valid: base, large"]),
    (["run", "--family", "deit3", "--sizes", "bsae"], ["did you mean 'base'"]),
    (["run", "--protocol", "minni"], ["unknown protocol: 'minni'", "did you mean 'mini'"]),
    (["run", "--protocol", "nowhere.yaml"], ["unknown protocol: 'nowhere.yaml'"]),
    (["run", "--study", "mian"], ["unknown study: 'mian'", "did you mean 'main'", "nulls"]),
    (["run", "--cluster", "slrum"], ["unknown cluster: 'slrum'", "valid: local, debug"]),
    (["run", "--seeds", "one"], ["--seeds 'one'", "0,1,2"]),
    (["run", "--seeds", "0,0"], ["--seeds '0,0'", "each once"]),
    (["run", "--seeds", "0;1"], ["--seeds '0;1'"]),
    (["run", "--seeds", "-1"], ["--seeds"]),
    (["run", "--jobs", "0"], ["--jobs 0: at least 1"]),
    (["run", "--device", "gpu"], ["--device 'gpu'", "valid: auto, cpu, cuda"]),
    (["run", "--familly", "deit3"], ["unrecognized arguments: --familly"]),
    (["rnu"], ["invalid choice: 'rnu'"]),
    (["list", "familes"], ["unknown list: 'familes'", "did you mean 'families'"]),
    (["check", "--family", "dinov4"], ["unknown family: 'dinov4'"]),
    (["report", "--results", "nowhere"], ["--results nowhere: no such folder"]),
    ([], ["required"]),
]


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "")
def test_a_mistake_is_one_line_and_exit_code_2(bench, words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = bench(*words)
    assert code == 2
    assert not out
    assert err.count("\n") == 1 and err.startswith("bench: ")
    for text in expected:
        assert text in err
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_results_folders_way(bench, tiny, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tiny").write_text("")
    code, _, err = bench(
        "run", "--family", "deit", "--protocol", tiny, "--results", tmp_path / "results", "--work", tmp_path / "work"
    )
    assert code == 2 and err.count("\n") == 1 and "cannot be made or written" in err
    assert not (tmp_path / "work" / "runs").exists()


def test_a_report_that_cannot_be_written(bench, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "reports" / "leaderboard.md").mkdir(parents=True)
    code, _, err = bench("report", "--results", tmp_path / "results")
    assert code == 2 and err.count("\n") == 1 and "leaderboard.md: Is a directory" in err
    (tmp_path / "reports" / "leaderboard.md").rmdir()
    readme = tmp_path / "README.md"
    readme.write_bytes(b"\xff\xfe")
    code, _, err = bench("report", "--results", tmp_path / "results", "--readme", readme)
    assert code == 2 and err.count("\n") == 1


def test_the_name_of_a_shipped_protocol_is_taken(bench, tmp_path):
    path = tmp_path / "mini.yaml"
    path.write_text((ROOT / "benchmark/protocols/mini.yaml").read_text())
    code, _, err = bench("run", "--protocol", path, "--dry-run")
    assert code == 2 and "'mini' is the name of a shipped protocol" in err


def test_reports_never_land_beside_another_results_folder(bench, tiny, tmp_path):
    words = ("run", "--family", "deit", "--sizes", "base", "--protocol", tiny, "--cluster", "debug", "--seeds", "0")
    assert bench(*words, "--results", tmp_path / "elsewhere", "--work", tmp_path / "work")[0] == 0
    assert (tmp_path / "elsewhere-reports" / "leaderboard.md").exists() and not (tmp_path / "reports").exists()


def test_a_study_of_the_users_own(bench, tiny, tmp_path):
    """It brings its baseline, is reported like a shipped one, and is named where its protocol's file is missing."""
    study = tmp_path / "mine.yaml"
    study.write_text("title: My question\narms: [standard-copy+budget=x2]\n")
    folders = ("--results", tmp_path / "results", "--work", tmp_path / "work")
    words = ("--family", "deit", "--sizes", "base", "--seeds", "0,1", "--cluster", "debug")
    code, out, _ = bench("run", *words, "--protocol", tiny, "--study", study, *folders)
    assert code == 0 and "My question" in out and "no baseline" not in out
    assert "## My question" in (tmp_path / "reports" / "leaderboard.md").read_text()
    assert (tmp_path / "reports" / "tiny-mine.csv").exists()
    code, out, _ = bench("report", *folders[:2])
    assert code == 0 and "left out: 6 results of protocol tiny: give its file as --protocol" in out


@pytest.mark.parametrize("option", ["--results", "--reports", "--work"])
def test_a_folder_below_a_file_is_refused_before_anything_runs(bench, tiny, tmp_path, option):
    (tmp_path / "file").write_text("")
    given = {"--results": tmp_path / "r", "--reports": tmp_path / "p", "--work": tmp_path / "w"}
    given[option] = tmp_path / "file" / "below"
    words = [word for pair in given.items() for word in pair]
    code, _, err = bench("run", "--family", "deit", "--protocol", tiny, "--cluster", "debug", *words)
    assert code == 2
    assert err.count("\n") == 1 and f"bench: {option} {tmp_path}/file/below: cannot be made or written" in err
    assert not (tmp_path / "w" / "runs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("titel: x\n", ["unknown key 'titel'", "did you mean 'title'"]),
        ("title: [\n", ["not readable as YAML"]),
        ("- a\n- b\n", ["should be"]),
        ("", ["should be"]),
    ],
)
def test_a_wrong_protocol_file(bench, tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text((ROOT / "benchmark/protocols/mini.yaml").read_text() + text if text.startswith("titel") else text)
    code, _, err = bench("run", "--protocol", path, "--dry-run")
    assert code == 2 and err.count("\n") == 1 and str(path) in err
    assert all(word in err for word in words)


def test_a_wrong_study_file(bench, tmp_path):
    path = tmp_path / "mine.yaml"
    for text, words in [
        ("title: t\narms: [standard-clone]\n", "method"),
        ("title: t\narms: [standard-none, standard-none]\n", "listed twice"),
        ("title: t\narmes: [standard-none]\n", "did you mean 'arms'"),
    ]:
        path.write_text(text)
        code, _, err = bench("run", "--study", path, "--dry-run")
        assert code == 2 and err.count("\n") == 1 and words in err


SHARED = ("index.html", "leaderboard.md", *(f"{name}{end}" for name in ("provenance", "published") for end in (".csv", ".tex")))


@pytest.mark.long
def test_reports_of_a_run(bench, tiny, tmp_path):
    """Terminal, Markdown, CSV, figure and JSON tell the same gap."""
    words = ("--family", "deit3,mae", "--sizes", "base", "--protocol", tiny, "--cluster", "debug", "--seeds", "0,1")
    code, out, _ = bench("run", *words, "--results", tmp_path / "results", "--work", tmp_path / "work")
    assert code == 0
    assert "95 % interval, which holds for all 8 comparisons of this table at once" in " ".join(out.split())
    reports = tmp_path / "reports"
    names = {path.name for path in reports.iterdir()}
    assert {"index.html", "leaderboard.md", "tiny-main.csv", "tiny-main.tex", "tiny-main-leaderboard.csv"} <= names
    assert {"tiny-main-gaps-drawn.csv", "tiny-main-gaps.svg", "tiny-main-gaps.png", "provenance.csv"} <= names
    # A study that main's runs say something of has its claims, and no board beside main's.
    others = {
        f"tiny-{study}-claims{end}"
        for study in ("native", "control", "sizes", "mismatch")
        for end in (".csv", ".tex", ".svg", "-drawn.csv")
    }
    assert all(name.startswith("tiny-main") or name in {*SHARED, *others} for name in names) and others & names
    code, out, _ = bench("report", "--results", tmp_path / "results", "--protocol", tiny, "--json")
    (board,) = json.loads(out)["boards"]
    row = next(row for row in board["rows"] if "deit3" in row["families"])
    gap = row["arms"]["standard-copy"]["gap"]
    page = (reports / "leaderboard.md").read_text()
    assert f"{gap:+.1f} ± " in page and f"for all {board['comparisons']} comparisons of this table" in page
    csv = (reports / "tiny-main.csv").read_text().splitlines()
    line = next(line for line in csv if line.startswith("tiny,deit3,base,standard-copy,"))
    assert f",{gap:.4f}," in line
    before = {path: path.read_bytes() for path in reports.iterdir()}
    for path in before:
        path.unlink()
    given = ("report", "--results", tmp_path / "results", "--protocol", tiny)
    assert bench(*given)[0] == 0
    after = {path: path.read_bytes() for path in reports.iterdir()}
    assert {p: c for p, c in after.items() if p.suffix != ".png"} == {p: c for p, c in before.items() if p.suffix != ".png"}
    assert bench(*given, "--check")[0] == 0
    (reports / "tiny-main.csv").write_text(line)
    (reports / "index.html").unlink()
    figure = reports / "tiny-main-gaps.svg"
    figure.write_text(figure.read_text().replace("data sha256:", "data sha256:0"))
    (reports / "tiny-main-old.tex").touch()
    code, out, _ = bench(*given, "--check")
    assert code == 1 and out.splitlines()[:-1] == [
        f"{reports}/index.html: missing",
        f"{reports}/tiny-main.csv: not what the results give",
        f"{reports}/tiny-main-gaps.svg: drawn from other data",
        f"{reports}/tiny-main-old.tex: no file of this report, to be removed",
    ]


@pytest.mark.long
def test_the_readmes_block_is_renewed(bench, tiny, tmp_path):
    words = ("--family", "deit3", "--sizes", "base", "--protocol", tiny, "--cluster", "debug", "--seeds", "0,1")
    assert bench("run", *words, "--results", tmp_path / "results", "--work", tmp_path / "work")[0] == 0
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- leaderboard -->\nold\n<!-- /leaderboard -->\nb\n")
    report = ("report", "--results", tmp_path / "results", "--protocol", tiny, "--readme", readme)
    assert bench(*report)[0] == 0
    text = readme.read_text()
    assert text.startswith("a\n") and text.endswith("-->\nb\n") and "| deit3 |" in text and "old" not in text
    assert bench(*report)[0] == 0 and readme.read_text() == text
    assert bench(*report, "--check")[0] == 0
    readme.write_text(text.replace("| deit3 |", "| deit4 |"))
    assert bench(*report, "--check")[:2] == (
        1,
        f"{readme}: its leaderboard is not what the results give\n"
        "the same command without --check writes anew what is not to be removed\n",
    )
    readme.write_text("no block")
    code, _, err = bench(*report)
    assert code == 2 and "no block between" in err and readme.read_text() == "no block"


@pytest.mark.long
def test_the_page_of_claims_is_written_and_checked(bench, tmp_path):
    cells = {("deit", "base", arm): [v, v + 1.0] for arm, v in (("standard-none", 50), ("standard-copy", 70))}
    made.write(tmp_path / "results", made.results(cells))
    report = ("report", "--results", tmp_path / "results", "--claims", tmp_path / "claims.md")
    assert bench(*report)[0] == 0
    assert "contradicted" in (tmp_path / "claims.md").read_text() and bench(*report, "--check")[0] == 0
    (tmp_path / "notes.md").write_text("mine")
    code, _, err = bench(*report[:3], "--claims", tmp_path / "notes.md")
    assert code == 2 and "something else is there" in err and (tmp_path / "notes.md").read_text() == "mine"
    code, out, _ = bench(*report[:3], "--tables", "claims")
    assert code == 0 and "Measured differences of the claims" in out
    assert "protocol mini, study sizes, 4 runs" in out and "1. DeiT and DINO give their" in out
    code, out, _ = bench(*report[:3], "--json")
    assert {finding["study"] for finding in json.loads(out)["findings"]} >= {"main", "native"}
    code, _, err = bench(*report, "--json")
    assert code == 2 and "--json goes without --claims" in err
    (tmp_path / "claims.md").write_bytes(b"\xff not text")
    assert bench(*report, "--check")[0] == 1
    (tmp_path / "claims.md").write_text("another")
    code, out, _ = bench(*report, "--check")
    assert code == 1 and f"{tmp_path / 'claims.md'}: its table is not what the results give" in out
    code, _, err = bench(*report[:-1], tmp_path / "nowhere" / "claims.md")
    assert code == 2 and len(err.splitlines()) == 1 and "--claims" in err


@pytest.mark.long
def test_several_studies_are_one_request(bench, tiny, tmp_path):
    """Each with its own teachers; a run that both have is one, and boards of both are shown."""
    words = ("--family", "dinov2,deit", "--sizes", "base", "--protocol", tiny, "--cluster", "debug", "--seeds", "0")
    run = ("run", *words, "--results", tmp_path / "results", "--work", tmp_path / "work")

    def planned(study):
        return json.loads(bench(*run, "--study", study, "--dry-run", "--json")[1])["plan"]

    alone = [{run["key"]: set(run["cells"]) for run in planned(study)} for study in ("components", "shift")]
    both = {run["key"]: set(run["cells"]) for run in planned("components, shift")}
    assert both == {key: alone[0].get(key, set()) | alone[1].get(key, set()) for key in {*alone[0], *alone[1]}}
    code, out, _ = bench(*run, "--study", "control,shift")
    assert code == 0 and "Native components alone" in out and "Under distribution shift" in out
    assert bench("status", "--work", tmp_path / "work")[0] == 0
    for study in ("shift", "control"):  # of one request each study by its own name
        seen = json.loads(bench("status", "--work", tmp_path / "work", "--study", study, "--json")[1])
        arms = {run["cells"][0].rsplit("/", 1)[1].rsplit("-s", 1)[0] for run in seen["runs"]}
        assert ("finetune" in arms) == (study == "shift") and ("matched-none" in arms) == (study == "control"), arms
    files = [tmp_path / folder / "mine.yaml" for folder in "ab"]
    for path in files:
        path.parent.mkdir()
        path.write_text("title: mine\narms: [standard-copy]\n")
    code, _, err = bench(*run, "--study", f"{files[0]},{files[1]}")
    assert code == 2 and "two studies are called mine" in err
    code, _, err = bench(*run, "--study", "shift,shft")
    assert code == 2 and "shft" in err and "shift" in err


@pytest.mark.long
def test_families_that_share_all_runs_share_a_row(bench, tiny, tmp_path):
    words = ("--family", "deit,dino,clip", "--sizes", "base", "--protocol", tiny, "--cluster", "debug", "--seeds", "0")
    code, out, _ = bench("run", *words, "--results", tmp_path / "results", "--work", tmp_path / "work")
    page = (tmp_path / "reports" / "leaderboard.md").read_text()
    assert code == 0
    shared = next(line for line in page.splitlines() if line.startswith("| deit, dino base |"))
    assert shared.count("= standard") == 3 and "(n=1)" in shared
    assert "| deit, dino base | none | = standard |" in page and "| clip base |" in page and "\n| deit base |" not in page
    for family in ("deit", "dino"):
        assert len(list((tmp_path / "results" / "tiny" / family / "base").glob("*.json"))) == 7
    assert "| deit, dino | 1 | no verdict (" in page and "Failures and successes by family" in out


def test_check_takes_a_family_or_a_protocol(bench, tmp_path):
    for words in ((), ("--family", "clip", "--protocol", "mini")):
        code, _, err = bench("check", *words)
        assert code == 2 and "check takes --family NAME, or --protocol NAME with --data DIR" in err
    assert "protocol mini needs no images" in bench("check", "--protocol", "mini", "--work", tmp_path)[1]
    code, _, err = bench("check", "--protocol", "imagenet", "--data", tmp_path / "nowhere", "--work", tmp_path)
    assert code == 2 and "nowhere" in err and len(err.splitlines()) == 1


def readme_commands():
    """Also those of the other documents, and what torchrun is given."""
    texts = [path.read_text() for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))]
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", "".join(texts), re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    started = [re.sub(r"^.* -m benchmark.cli ", "bench ", line) for line in lines]
    return [line for line in started if line.startswith("bench ")]


@pytest.mark.parametrize("line", readme_commands())
def test_commands_of_the_readme_parse(line):
    parser().parse_args(shlex.split(line, comments=True)[1:])


def test_windows_is_told_what_it_lacks(tmp_path):
    without = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None; sys.platform = 'win32'"
    done = python("-c", f"{without}; from benchmark.cli import main; sys.exit(main(['run']))")
    told = "bench: Windows lacks the file locks that runs need (fcntl): use its Subsystem for Linux (WSL)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


@pytest.mark.parametrize(("words", "told"), [((), "codecarbon is not installed"), (("--processes", "2"), "one process each")])
def test_energy_that_cannot_be_measured(words, told, tmp_path, monkeypatch, capsys):
    known = {"codecarbon": object()} if words else {}
    monkeypatch.setattr(run_setup, "find_spec", known.get)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--family", "deit", "--sizes", "small", "--seeds", "0", "--energy", *words]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("bench: --energy") and told in said.err and said.err.count("\n") == 1
