"""Bad inputs, by a table: each is refused in one line with exit code 2, at once, and nothing is written.

Of every key of a protocol, a study and a cluster's settings: a wrong type, true in place of a number, an absurd size. Of
every verb and option: what a user may mistype or paste. (Damaged files of the work and results folders: test_faults.py.)
"""

import copy
import os
import shlex
import subprocess
import sys
import time

import pytest
import yaml

from benchmark.execution.slurm.config import ClusterConfig
from benchmark.spec.protocol import Protocol, load_protocol
from benchmark.spec.records import validated
from benchmark.spec.study import Study, load_study

from ..conftest import ROOT, python, tiny_protocol

SECONDS, MOST = 5, 400  # characters of a line, but for a folder's path
LONG = "x" * 5000
DIGITS = "9" * 5000


def outline(content):
    """A file's content with every key that there is, at its default."""
    return {key: value for key, value in content.items() if key not in ("datasets", "recipes")}


def places(content, at=()):
    """(path, value) of every key, a list's element counting as its first one."""
    for key, value in content.items():
        yield (*at, key), value
        if isinstance(value, dict):
            yield from places(value, (*at, key))


def changed(content, path, value):
    found = copy.deepcopy(content)
    inside = found
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return found


def wrong(value):
    """By name what cannot stand in place of a value: of another type, true for a number, absurdly large."""
    if isinstance(value, bool):
        return {"type": [1, 2], "word": "perhaps"}
    if isinstance(value, int | float):
        return {"type": "many", "list": [[1]], "true": True, "absurd": 10**40 if isinstance(value, int) else 1e300}
    if isinstance(value, str):
        return {"type": {"a": 1}}
    if isinstance(value, dict):
        return {"type": 3, "text": "abc"}
    if isinstance(value, list | tuple):
        return {"type": 7, "inside": [{"a": [None]}]}
    return {}


TINY = outline(validated(Protocol, tiny_protocol(), "tiny").model_dump(mode="json"))
IMAGES = outline(load_protocol("coco")[1].model_dump(mode="json"))
IMAGES["recipe"] |= {"clip_grad": 1.0, "layer_decay": 0.75, "ema": 0.99, "drop_path": 0.1}
STUDY = load_study("main")[1].model_dump(mode="json")
STUDY["teachers"] |= {"families": ["deit"], "native": True}
CLUSTER = ClusterConfig(
    partition="a", account="a", qos="a", constraint="a", gpus=2, processes=2, memory_gb=4, environment={"A": "b"}, setup=("a",),
    sbatch={"comment": "x"},
).model_dump(mode="json")  # fmt: skip
FILES = {
    "tiny": (TINY, ("run", "--dry-run", "--protocol")),
    "images": (IMAGES, ("run", "--dry-run", "--protocol")),
    "study": (STUDY, ("run", "--dry-run", "--study")),
    "cluster": (CLUSTER, ("run", "--cluster", "slurm", "--dry-run", "--cluster-config")),
}
FREE = {("study", "teachers", "native", "word")}  # the name of a component, which is looked for later


def keys():
    """Every key of every kind of file with everything that is wrong for it, once for each record that has it."""
    seen = set()
    for name, (content, words) in FILES.items():
        for path, value in places(content):
            if value is None or path[-2:] in seen or (name == "images" and path[0] == "teacher"):
                continue
            seen.add(path[-2:] if len(path) > 1 else (name, *path))
            for how, instead in wrong(value).items():
                if (name, *path, how) not in FREE:
                    yield pytest.param(words, changed(content, path, instead), id=f"{name}-{'.'.join(path)}-{how}")


@pytest.fixture
def refused(bench, tmp_path, tmp_path_factory, monkeypatch):
    """The command is refused, and leaves the folder as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))

    def check(*words):
        before = sorted(tmp_path.rglob("*"))
        begun = time.monotonic()
        code, out, err = bench(*words)
        took = time.monotonic() - begun
        assert code == 2, (code, out[-500:], err[-500:])
        assert not out and err.startswith("bench: ") and err.count("\n") == 1 and err.isprintable() is False, (out, err)
        assert err[:-1].isprintable() and "Traceback" not in err
        assert len(err.replace(str(tmp_path), "")) <= MOST, (len(err), err)
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        assert took < SECONDS, took
        return err

    return check


@pytest.mark.parametrize(("words", "content"), keys())
def test_a_key_of_a_file(words, content, refused, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert "mine.yaml" in refused(*words, "mine.yaml")


def test_the_outlines_are_right_as_they_are(bench, tmp_path, monkeypatch):
    """Or all of the above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    for name, (content, words) in FILES.items():
        if name != "cluster":  # which needs a Slurm
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
            code, _, err = bench(*words, f"{name}.yaml", "--family", "deit", "--sizes", "base")
            assert code == 0, err
    assert validated(ClusterConfig, CLUSTER, "cluster").gpus == 2
    assert validated(Study, STUDY, "study").arms
    assert len(list(keys())) + len(TEXTS) + len(WORDS) >= 250


MINI = "extends: mini\n"
CLAIM = "title: t\narms: [standard-copy]\nclaims: [{description: x, tests: "
DATA = "data: {name: cued_digits, val_images: 60, test_images: 80, noise_std: 0.2}\n"
BOMB = (
    "[&a [x,x], "
    + ", ".join(f"&{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefghijkl", "bcdefghijklm", strict=True))
    + "]"
)
TEXTS = {
    "an empty file": ("--protocol", ""),
    "a word": ("--protocol", "mini"),
    "a list": ("--protocol", "- mini"),
    "binary": ("--protocol", "\0\1\2"),
    "an unclosed list": ("--protocol", "title: ["),
    "two documents": ("--protocol", "a: 1\n---\nb: 2\n"),
    "tabs": ("--protocol", "a:\n\t- b\n"),
    "an unknown tag": ("--protocol", "a: !!python/object/apply:os.system [ls]\n"),
    "an unknown alias": ("--protocol", "a: *b\n"),
    "a day that does not exist": ("--protocol", MINI + "title: 2026-02-31\n"),
    "an hour that does not exist": ("--protocol", MINI + "title: 2026-02-11 25:61:61\n"),
    "5,000 digits": ("--protocol", MINI + f"curve_points: {DIGITS}\n"),
    "an int of letters": ("--protocol", MINI + 'curve_points: !!int "abc"\n'),
    "a float of letters": ("--protocol", MINI + 'checkpoint_seconds: !!float "abc"\n'),
    "a key that stands twice": ("--protocol", MINI + "title: a\ntitle: b\n"),
    "an inner key that stands twice": ("--protocol", MINI + "recipe: {lr: 1, lr: 2}\n"),
    "an octal number": ("--protocol", MINI + "curve_points: 010\n"),
    "a number of base 60": ("--protocol", MINI + "curve_points: 1:30\n"),
    "a number with an underscore": ("--protocol", MINI + "curve_points: 1_0\n"),
    "9,000 hexadecimal digits": ("--protocol", f"extends: 0x{'f' * 9000}\n"),
    "9,000 hexadecimal digits within": ("--protocol", MINI + f"data: {{name: 0x{'f' * 9000}}}\n"),
    "9,000 hexadecimal digits for sbatch": ("--cluster-config", f"sbatch: {{comment: 0x{'f' * 9000}}}\n"),
    "aliases of aliases": ("--protocol", f"extends: {BOMB}\n"),
    "aliases of aliases as a name": ("--protocol", MINI + f"data: {{name: {BOMB}}}\n"),
    "a value that holds itself": ("--protocol", MINI + "title: &a [*a]\n"),
    "extends true": ("--protocol", "extends: true\n"),
    "extends a number": ("--protocol", "extends: 7\n"),
    "a billion shards": (
        "--protocol",
        "extends: imagenet\ndata: {source: wds/, held_out: 0, train: {split: 'train-{000000000..999999999}.tar', images: 9}}\n",
    ),
    "an anchor of 1e30": ("--protocol", "extends: coco\ntasks: {coco: {detector: {anchor: 1.0e+30}}}\n"),
    "a jitter of 1e30": ("--protocol", "extends: coco\ntasks: {coco: {data: {jitter: [0.0001, 1.0e+30]}}}\n"),
    "an experiment that is true": ("--study", CLAIM.replace("tests: ", "rows: [true], tests: []}]\n")),
    "an experiment before the first": ("--study", CLAIM.replace("tests: ", "rows: [-1], tests: []}]\n")),
    "a list as a key": ("--protocol", MINI + "? [a]\n: b\n"),
    "nested 5,000 deep": ("--protocol", MINI + "title: " + "[" * 5000 + "]" * 5000),
    "mappings nested 5,000 deep": ("--protocol", MINI + "title: " + "{a: " * 5000 + "1" + "}" * 5000),
    "two megabytes": ("--protocol", MINI + "# " + "x" * 2**21),
    "extends an empty file": ("--protocol", "extends: empty.yaml\n"),
    "extends a word": ("--protocol", "extends: word.yaml\n"),
    "extends a list": ("--protocol", "extends: list.yaml\n"),
    "extends itself": ("--protocol", "extends: mine.yaml\n"),
    "extends nothing": ("--protocol", "extends: nowhere.yaml\n"),
    "extends null": ("--protocol", "extends:\n"),
    "extends a list of names": ("--protocol", "extends: [mini, imagenet]\n"),
    "extends a folder": ("--protocol", "extends: folder.yaml\n"),
    "extends a pipe": ("--protocol", "extends: pipe.yaml\n"),
    "extends a long name": ("--protocol", f"extends: {LONG}\n"),
    "extends a long file name": ("--protocol", f"extends: {'x' * 300}.yaml\n"),
    "a chain of 1,500": ("--protocol", "extends: chain-0.yaml\n"),
    "a long key": ("--protocol", MINI + f"{LONG}: 1\n"),
    "a key of control characters": ("--protocol", MINI + '"a\\nb\\e[31m": 1\n'),
    "patches that leave a border": ("--protocol", MINI + "scale: {patch_size: 7}\n"),
    "a patch larger than the image": ("--protocol", MINI + "scale: {patch_size: 48}\n"),
    "no patch": ("--protocol", MINI + "scale: {patch_size: 0}\n"),
    "no block": ("--protocol", MINI + "transfer: {blocks: 0}\n"),
    "more blocks than there are": ("--protocol", MINI + "transfer: {blocks: 90}\n"),
    "half a block": ("--protocol", MINI + "transfer: {blocks: 1.5}\n"),
    "a standard deviation of 0": ("--protocol", MINI + "normalisation: {mean: [0, 0, 0], std: [1, 0, 1]}\n"),
    "two channels": ("--protocol", MINI + "normalisation: {mean: [0, 0], std: [1, 1]}\n"),
    "infinite mean": ("--protocol", MINI + "normalisation: {mean: [.inf, 0, 0], std: [1, 1, 1]}\n"),
    "an image of a million": ("--protocol", MINI + "scale: {img_size: 1000000}\n"),
    "an input size beside a scale": ("--protocol", MINI + "img_size: 48\n"),
    "an input size that is no multiple of a patch": ("--protocol", "extends: imagenet\nimg_size: 225\n"),
    "points that are true": ("--protocol", MINI + "curve_points: true\n"),
    "1e10 points": ("--protocol", MINI + "curve_points: 10000000000\n"),
    "a seed that is true": ("--protocol", MINI + "seeds: [true]\n"),
    "a seed twice": ("--protocol", MINI + "seeds: [1, 1]\n"),
    "no seed": ("--protocol", MINI + "seeds: []\n"),
    "a negative seed": ("--protocol", MINI + "seeds: [-1]\n"),
    "1e30 steps": ("--protocol", MINI + "recipe: {steps: 1.0e+30}\n"),
    "no step": ("--protocol", MINI + "recipe: {steps: 0}\n"),
    "a batch of 1e12": ("--protocol", MINI + "recipe: {batch_size: 1000000000000}\n"),
    "an infinite rate": ("--protocol", MINI + "recipe: {lr: .inf}\n"),
    "a rate that is no number": ("--protocol", MINI + "recipe: {lr: .nan}\n"),
    "a depth of 1e8": ("--protocol", MINI + "scale: {sizes: {base: {embed_dim: 96, depth: 100000000}}}\n"),
    "a width of 1e8": ("--protocol", MINI + "scale: {sizes: {base: {embed_dim: 96000000, depth: 2}}}\n"),
    "no image": ("--protocol", MINI + DATA.replace("60", "0")),
    "an unknown data set": ("--protocol", MINI + DATA.replace("cued_digits", "cued_letters")),
    "a data set of another name's keys": ("--protocol", MINI + "data: {source: x}\n"),
    "more held out than there are": ("--protocol", "extends: imagenet\ndata: {held_out: 10000000000}\n"),
    "more for students than there are": ("--protocol", "extends: fashion_mini\ndata: {student_images: 55001}\n"),
    "some of a stream": (
        "--protocol",
        "extends: imagenet\ndata: {source: wds/, held_out: 0, val: {split: v, images: 9}, student_images: 9}\n",
    ),
    "epochs and steps": ("--protocol", "extends: imagenet\nrecipe: {epochs: 3, steps: 4}\n"),
    "a study without arms": ("--study", "title: t\narms: []\n"),
    "an arm that is none": ("--study", "title: t\narms: [standard-clone]\n"),
    "an arm that is a number": ("--study", "title: t\narms: [7]\n"),
    "an arm twice": ("--study", "title: t\narms: [standard-none, standard-none]\n"),
    "a long arm": ("--study", f"title: t\narms: [standard-copy+loss={LONG}]\n"),
    "a budget of 1e300": ("--study", "title: t\narms: [standard-copy+budget=x1e300]\n"),
    "a budget of 1e29": ("--study", "title: t\narms: [standard-copy+budget=x1e29]\n"),
    "a budget of 0": ("--study", "title: t\narms: [standard-copy+budget=x0]\n"),
    "a budget that is no number": ("--study", "title: t\narms: [standard-copy+budget=xnan]\n"),
    "a block of 20 digits": ("--study", "title: t\narms: [standard-copy+blocks=first-99999999999999999999]\n"),
    "no difference": ("--study", CLAIM + '[{of: [""]}]}]\n'),
    "an empty failing": ("--study", CLAIM + '[{of: ["standard-copy - standard-none"], failing: ""}]}]\n'),
    "a claim of an unknown family": ("--study", CLAIM + '[{of: ["standard-copy - standard-none"], families: [diet]}]}]\n'),
    "cluster: a scalar": ("--cluster-config", "0\n"),
    "cluster: false": ("--cluster-config", "false\n"),
    "cluster: an empty list": ("--cluster-config", "[]\n"),
    "cluster: 1e12 minutes": ("--cluster-config", "minutes: 1000000000000\n"),
    "cluster: 1e8 cores": ("--cluster-config", "cpus: 100000000\n"),
    "cluster: a reserved option in capitals": ("--cluster-config", "sbatch: {Array: 1}\n"),
    "cluster: a reserved option's beginning": ("--cluster-config", "sbatch: {arr: 1}\n"),
    "cluster: a line break in an option": ("--cluster-config", 'sbatch: {comment: "a\\n#SBATCH --array=1-9"}\n'),
    "cluster: a line break in a partition": ("--cluster-config", 'partition: "a\\n#SBATCH --array=1-9"\n'),
    "cluster: an option with a blank": ("--cluster-config", 'sbatch: {"a b": 1}\n'),
    "cluster: a variable with a blank": ("--cluster-config", 'environment: {"A B": x}\n'),
    "cluster: notice longer than the job": ("--cluster-config", "minutes: 1\nnotice_seconds: 100\n"),
}  # fmt: skip


@pytest.mark.parametrize(("option", "text"), TEXTS.values(), ids=TEXTS)
def test_a_file(option, text, refused, tmp_path):
    for name, content in {"empty": "", "word": "mini\n", "list": "- a\n"}.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    if "chain" in text:
        for number in range(1500):
            (tmp_path / f"chain-{number}.yaml").write_text(f"extends: chain-{number + 1}.yaml\n")
        (tmp_path / "chain-1500.yaml").write_text(MINI)
    (tmp_path / "mine.yaml").write_text(text)
    cluster = ("--cluster", "slurm") if option == "--cluster-config" else ()
    refused("run", "--dry-run", *cluster, option, "mine.yaml")


NAMES = ["..", "", "-x", "a b", "a<b>", "ä", "a\nb", "x" * 150, "..\\x", "~"]
SEEDS = ("", "one", "0,,1", "0;1", "-1", "0,0", "1_0", "٣", "1.0", "0x1", "99999999999", DIGITS)
FAMILIES = ("", ",", "deit,", "diet", "DEIT", "../deit", "families/deit.py", LONG, "deit\nmae")
SETTINGS = (
    "", "recipe.steps", "=3", "recipe.steps=", "recipe.step=3", "recipe.steps=x", "recipe.steps=0", "recipe=3",
    "recipe.steps.more=3", "a b=3", "recipe.lr=1/3", "data.source=../x", f"recipe.steps={DIGITS}", f"{LONG}=3",
    "recipe.lr=\x1b[31m", "steps=20", "recipe.steps=1_0", "recipe.steps=0x10", "recipe.steps=010",
)  # fmt: skip
PROTOCOLS = (
    "",
    "mini+",
    "mini+recipe.step=3",
    "minni+recipe.steps=3",
    "minni",
    "nowhere.yaml",
    ".",
    "/dev/null",
    "/dev/zero",
    LONG,
    "x" * 300 + ".yaml",
)


@pytest.mark.parametrize("option", ["--protocol", "--study"])
@pytest.mark.parametrize("name", NAMES)
def test_a_files_name(name, option, refused, tmp_path):
    """Results and reports bear it: `...yaml` would have written outside of their folder."""
    path = tmp_path / f"{name}.yaml"
    path.write_text("extends: mini\n" if option == "--protocol" else "title: t\narms: [standard-none]\n")
    refused("run", "--dry-run", option, path)
    refused("report", option, path)


RUN, SPEED, INSPECT = ("run", "--dry-run"), ("speed", "--family", "deit"), ("inspect", "--family", "deit", "--random")
NUMBERS = ("0", "-1", "x", "", "1.5", "1e3", "1_0", "٣", "0x10", " 1 2", "99999999999999999999", DIGITS)
DETECTOR, OUTS = "deit/base/standard-none+task=digit_boxes", ("", ".", "a.txt", "a b.py", "/dev/null/a.py", "nowhere/a.py")
WORDS = [
    *([*RUN, option, number] for option in ("--jobs", "--processes", "--micro-batch") for number in NUMBERS),
    *([*RUN, "--workers", number] for number in NUMBERS[1:]),
    *([*SPEED, option, number] for option in ("--batch", "--rounds", "--blocks", "--threads") for number in NUMBERS),
    *([*SPEED, "--img-size", number] for number in (*NUMBERS, "16000000", "225")),
    [*SPEED, "--batch", "1000000000"],
    [*SPEED, "--threads", "1000000"],
    [*SPEED, "--size", "huge"],
    [*SPEED, "--size", LONG],
    [*SPEED, "--precision", "float8"],
    [*SPEED, "--formulation", "sums"],
    [*SPEED, "--device", "gpu"],
    [*SPEED, "--protocol", "minni"],
    [*SPEED, "--images", "nowhere"],
    ["speed"],
    *([*RUN, "--seeds", seeds] for seeds in SEEDS),
    *([*RUN, "--device", device] for device in ("gpu", "cdua", "cuda:0", "cpu ", LONG, "")),
    *([*RUN, "--family", family] for family in FAMILIES),
    *([*RUN, "--family", "deit", "--sizes", sizes] for sizes in ("", "huge", "base,", LONG)),
    *([*RUN, "--protocol", word] for word in PROTOCOLS),
    *([*RUN, "--set", setting] for setting in SETTINGS),
    [*RUN, "--set", "recipe.steps=3", "--set", "recipe.steps=4"],
    [*RUN, "--set", "recipe.steps=3", "--set", "recipe.epochs=4"],
    [*RUN, "--set", "recipe=3", "--set", "recipe.steps=4"],
    *([*RUN, "--study", word] for word in ("", "mian", "main,", "main,mian", "nowhere.yaml", LONG, "x" * 300 + ".yaml")),
    [*RUN, "--cluster", "slrum"],
    [*RUN, "--cluster", LONG],
    [*RUN, "--cluster-config", "nowhere.yaml"],
    [*RUN, "--cluster", "slurm", "--cluster-config", "nowhere.yaml"],
    [*RUN, "--cluster", "slurm", "--cluster-config", "x" * 300],
    [*RUN, "--cluster", "debug", "--processes", "2"],
    ["run", "--json"],
    ["run", "--work", "/dev/null/below", "--cluster", "debug"],
    ["run", "--results", "/dev/null/below", "--cluster", "debug"],
    ["run", "--reports", "/dev/null/below", "--cluster", "debug"],
    ["run", "--work", "x" * 300, "--cluster", "debug"],
    ["run", "--results", "x" * 300, "--cluster", "debug"],
    ["run", "--device", "gpu", "--cluster", "debug"],
    [*RUN, "--familly", "deit"],
    [*RUN, LONG],
    [*RUN, f"--{LONG}"],
    *([*INSPECT, "--blocks", blocks] for blocks in ("", "x", "1_0", "99", "-1", "0,,1", DIGITS)),
    *([*INSPECT, "--heads", heads] for heads in ("", "x", "٣", "99", DIGITS)),
    *([*INSPECT, "--query", query] for query in ("", "clss", "9,9", "0", "0,0,0", "0_1,1", LONG)),
    [*INSPECT, "--image", "nowhere.png"],
    [*INSPECT, "--image", "/dev/null"],
    [*INSPECT, "--image", "/dev/zero"],
    [*INSPECT, "--image", "."],
    [*INSPECT, "--out", "picture.txt"],
    [*INSPECT, "--img-size", "112"],
    *([*INSPECT, "--protocol", "imagenet", "--img-size", number] for number in (*NUMBERS, "16000000", "225")),
    [*INSPECT, "--size", "huge"],
    ["inspect", "--family", "deit", "--protocol", "minni"],
    ["inspect"],
    ["status"],
    ["status", "--work", "nowhere"],
    ["status", "--work", "x" * 300],
    ["status", "--family", "diet"],
    ["status", "--seeds", "1_0"],
    ["status", "--protocol", "minni"],
    ["logs"],
    ["logs", "deit/base/standard-none-s0"],
    ["logs", LONG, "--family", "deit"],
    ["logs", "a\nb", "--family", "deit"],
    ["export", "deit/base/standard-none-s0"],
    ["export", LONG, "--family", "deit"],
    ["cancel", "--family", "diet"],
    ["cancel", "--study", LONG],
    *([*RUN, option, ""] for option in ("--work", "--results", "--reports", "--data", "--weights", "--cluster-config")),
    ["status", "--work", ""],
    ["status", "--work", "/dev/null"],
    ["cancel", "--work", "/dev/null"],
    ["fetch", "--weights", "/dev/null"],
    ["fetch", "--weights", "/dev/null/below"],
    ["report", "--results", "nowhere"],
    ["report", "--results", "x" * 300],
    ["report", "--results", "/dev/null"],
    ["report", "--results", ".", "--check", "--json"],
    ["report", "--results", ".", "--readme", "nowhere.md"],
    ["report", "--results", ".", "--readme", "/dev/null"],
    ["report", "--results", ".", "--readme", "."],
    *(["report", "--results", ".", option, ""] for option in ("--tables", "--study", "--protocol", "--claims", "--readme")),
    ["report", "--results", ".", "--reports", "."],
    ["report", "--results", ".", "--claims", "."],
    ["report", "--results", ".", "--claims", "nowhere/claims.md"],
    ["report", "--results", ".", "--tables", "nope"],
    ["report", "--results", ".", "--json", "--tables", "all"],
    ["report", "--results", ".", "--check", "--tables", "all"],
    ["check", "--convert", ".", "--family", "deit"],
    [*SPEED, "--data", "."],
    *(["inspect", f"{DETECTOR}-s0", "--score", score] for score in ("٠.٣", "0_0.5", " 0.5 ", "1e-400")),
    ["report", "--results", ".", "--protocol", "minni"],
    ["report", "--results", ".", "--study", "mian"],
    ["report", "--results", ".", "--tables", LONG, "--reports", "/dev/null/below"],
    ["list", "familes"],
    ["list", LONG],
    ["check"],
    ["check", "--family", "dinov4"],
    ["check", "--family", "deit", "--protocol", "mini"],
    ["check", "--protocol", "minni"],
    ["check", "--protocol", "imagenet"],
    ["check", "--protocol", "imagenet", "--data", "nowhere"],
    ["check", "--protocol", "imagenet", "--data", "."],
    ["check", "--protocol", "imagenet", "--data", "/dev/null"],
    ["fetch", "--family", "diet"],
    ["fetch", "--family", "deit", "--sizes", "huge"],
    ["fetch", "--protocol", "mini"],
    ["fetch", "--protocol", "mini", "--data", "."],
    ["fetch", "--protocol", "minni", "--data", "."],
    ["fetch", "--data", "."],
    ["fetch", "--protocol", "imagenet", "--data", ""],
    *(["evaluate", run] for run in ("", "deit", "deit/base", "deit/base/standard-none", "../a/b-s0", "deit/base/copy-s0", LONG)),
    *(["evaluate", f"deit/base/standard-none-s{seed}"] for seed in ("", "-1", "x", DIGITS)),
    *(["evaluate", "--cluster", "debug", "--sets", sets] for sets in ("", "imagenet_z", "x:", "nowhere:nowhere.txt", LONG)),
    *(["evaluate", "deit/base/standard-none-s0", option, word] for option, word in (("--family", "dino"), ("--sizes", "base"))),
    ["evaluate", "--seeds", "1_0"],
    ["evaluate", "--set", "recipe.step=3"],
    *([verb, "--teacher", name] for verb in ("run", "fetch") for name in ("", "timm:", "timm:vit_tinny", f"timm:{LONG}")),
    *(["new-family", name] for name in ("", "deit", "timm:", "timm:resnet50", "timm:xcit_nano_12_p8_224", LONG)),
    *(["new-family", "timm:vit_small_patch16_224", "--out", out] for out in OUTS),
    ["new-family"],
    *(["inspect", run] for run in ("deit/base/standard-none-s0", "deit/base/standard-none+task=digit_boxes-s0", "deit", LONG)),
    ["inspect", "deit/base/standard-none+task=digit_boxes-s0", "--images", "1_0"],
    ["inspect", "deit/base/standard-none+task=digit_boxes-s0", "--score", "2"],
    [],
    ["rnu"],
    [LONG],
    ["run\nrun"],
]  # fmt: skip


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
ENVIRONMENTS = [
    *({"WORLD_SIZE": size} for size in ("x", "1.5", "-3", "0", "2", DIGITS)),
    *({name: value for name, value in TORCHRUN.items() if name != absent} for absent in TORCHRUN if absent != "WORLD_SIZE"),
    *(TORCHRUN | {"RANK": rank} for rank in ("x", "2", "-1")),
    TORCHRUN | {"LOCAL_RANK": "x"},
    {"LOCAL_WORLD_SIZE": "x"},
    {"LOCAL_WORLD_SIZE": "0"},
]


@pytest.mark.parametrize("variables", ENVIRONMENTS, ids=lambda each: " ".join(each.values())[:40])
def test_an_environment_that_torchrun_did_not_make(variables, refused, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused("run", "--cluster", "debug", "--family", "deit", "--sizes", "base")


def test_streams_that_are_closed_or_write_ascii_alone():
    """A leaderboard's signs are written as something else, and nothing at all where nobody listens."""
    shell = f"exec {shlex.quote(sys.executable)} -m benchmark.cli list >&-"
    closed = subprocess.run(["sh", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, "")
    code = (
        "from benchmark.cli import _prepare_streams; from benchmark.cli.support import common; _prepare_streams();"
        " common.make_console().print('± – ✓')"
    )
    done = python("-c", code, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout == "? ? ?\n", done.stderr


def named(words):
    return " ".join(word[:12].encode("unicode_escape").decode() for word in words) or "nothing"


@pytest.mark.parametrize("words", WORDS, ids=named)
def test_a_command(words, refused):
    refused(*words)


def test_a_message_shows_little_of_what_was_given(refused, tmp_path):
    for words in ([*RUN, "--seeds", DIGITS], [*RUN, "--family", LONG], [*SPEED, "--batch", DIGITS], [*RUN, LONG]):
        shown = refused(*words)
        assert "x" * 90 not in shown and "9" * 90 not in shown
    (tmp_path / "mine.yaml").write_text(MINI + f"{LONG}: 1\n")
    assert "x" * 90 not in refused(*RUN, "--protocol", "mine.yaml")
