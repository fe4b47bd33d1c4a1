"""Completion in a real bash, and what lists and licences say."""

import json
import shutil
import subprocess

import pytest

import families


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    from contextlib import redirect_stdout
    from io import StringIO

    from benchmark.cli import main

    with redirect_stdout(StringIO()) as out:
        assert main(["completion", "bash"]) == 0
    path = tmp_path_factory.mktemp("completion") / "bench.bash"
    path.write_text(out.getvalue())
    return path


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("stat", {"status"}),
        ("run --famil", {"--family"}),
        ("run --family deit", {"deit", "deit3"}),
        ("run --family clip,deit", {"clip,deit", "clip,deit3"}),
        ("run --family pap", {"papers"}),
        ("run --study com", {"components"}),
        ("run --protocol fashion_", {"fashion_mini"}),
        ("run --cluster sl", {"slurm"}),
        ("evaluate --device cu", {"cuda"}),
    ],
)
def test_words_are_completed_in_bash(words, completed, script):
    given = ["bench", *words.split()]
    code = f"source {script}; COMP_WORDS=({' '.join(given)}); COMP_CWORD={len(given) - 1}; _shtab_bench; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == completed and not done.stderr


def test_zsh_has_the_same_words(bench):
    out = bench("completion", "zsh")[1]
    assert out.startswith("#compdef bench") and f"_values -s , family {' '.join(families.names())} papers all" in out


def test_other_shells_are_refused(bench):
    assert bench("completion", "fish")[0] == 2


def test_teachers_by_licence(bench):
    listed = json.loads(bench("list", "--json")[1])["families"]
    free = json.loads(bench("list", "--json", "--licence", "commercial")[1])["families"]
    teachers = [each for family in free for kind in ("teachers", "alternatives") for each in family[kind]]
    assert teachers and {each["licence"] for each in teachers} == {"Apache-2.0", "MIT"}
    assert {family["name"] for family in listed} - {family["name"] for family in free} >= {"dinov3", "dfn_clip"}
    names = {family["name"] for family in free if family["teachers"]}
    code, out, _ = bench("run", "--family", "all", "--licence", "commercial", "--seeds", "0", "--dry-run", "--json")
    runs = json.loads(out)["plan"]
    assert code == 0 and {cell.split("/")[1] for run in runs for cell in run["cells"]} == names
    for words in (["run", "--dry-run", "--family", "dinov3"], ["fetch", "--family", "dinov3"]):
        code, out, err = bench(*words, "--licence", "commercial")
        assert (code, out) == (2, "") and "restricts its use" in err
    assert bench("run", "--dry-run", "--licence", "comercial")[2].endswith("did you mean 'commercial'? valid: commercial\n")
    assert bench("list", "studies", "--licence", "commercial")[0] == 2


def test_the_list_says_which_weights_are_here(bench, tmp_path):
    (tmp_path / "deit-base.pth").write_bytes(b"x")
    (tmp_path / "mae-base.pth").write_bytes(b"x")
    (tmp_path / "mae-base.bin").write_bytes(b"x")
    listed = {family["name"]: family for family in json.loads(bench("list", "--json", "--weights", tmp_path)[1])["families"]}
    here = {(name, each["size"]): each["here"] for name, family in listed.items() for each in family["teachers"] if each["here"]}
    assert here == {("deit", "base"): str(tmp_path / "deit-base.pth"), ("mae", "base"): str(tmp_path)}
    assert listed["deit"]["sets"] == ["papers"] and listed["dinov3"]["sets"] == []
    assert "further" in bench("list")[1]
