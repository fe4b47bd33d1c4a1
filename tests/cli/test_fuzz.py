"""Files with anything in them: each is read, or refused by one line; nothing raises anything else, and nothing hangs."""

import json
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.analysis.sorting import sort_results
from benchmark.execution.slurm.config import ClusterConfig, load_config
from benchmark.spec.definitions import Definitions
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import load_protocol
from benchmark.spec.study import Study, load_study
from benchmark.spec.teachers import teachers_of
from benchmark.storage.result_file import Rejected, read_result
from families.spec import UserError

from .. import made
from .test_bad_inputs import CLUSTER, IMAGES, STUDY, TINY, changed, places

pytestmark = pytest.mark.long

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**40), 10**40), st.integers(-3, 3), st.floats(), st.text(max_size=20),
    st.sampled_from(["all", "x1e300", "standard-copy", "standard-none+budget=x2", "deit", "mini", "*", "1e3", "", "-1"]),
    st.dates(), st.binary(max_size=5),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


PLACE = "as-it-stands"
RAW = [
    "2026-02-31", "2026-02-11 25:61:61", "2026-1-1t1:1:1+99:99", "!!int abc", "!!int ''", "!!float x", "!!bool 7",
    "!!binary '?'", "!!timestamp x", "!!set {a, b}", "!!omap [a]", "!!pairs [{a: 1, b: 2}]", "!!null x",
    "!!python/name:os.system", "!x y", "9" * 5000, "0x", "0b2", "0o9", "1:99:99", "-.inf", ".nan", "1e400", "&a [*a]",
    "&a {a: *a}", "*a", "{<<: 3}", "{<<: [1]}", "{<<: {a: 1}}", "{a: 1, a: 2}", "{[a]: 1}", "{null: 1}", "{true: 1}",
    "{2026-01-01: 1}", "[" * 2000, "[" * 2000 + "]" * 2000, "'", '"\\x"', "|2", "%", "@", "`",
]  # fmt: skip


def variants(content):
    """Texts of a file: its content with something else in up to three places, with odd YAML in one, or with other letters."""
    paths = [path for path, _ in places(content)]

    def replaced(changes):
        found = content
        for path, value in changes:
            try:
                found = changed(found, path, value)
            except (TypeError, KeyError, IndexError, AttributeError):  # the change before has taken that place away
                continue
        return found

    mutated = st.lists(st.tuples(st.sampled_from(paths), ANYTHING), min_size=1, max_size=3).map(replaced)
    raw = st.tuples(st.sampled_from(paths), st.sampled_from(RAW)).map(
        lambda each: yaml.safe_dump(replaced([(each[0], PLACE)])).replace(PLACE, each[1])
    )
    whole = yaml.safe_dump(content)
    spliced = st.tuples(st.integers(0, len(whole)), st.integers(0, 40), st.text(max_size=12)).map(
        lambda cut: whole[: cut[0]] + cut[2] + whole[cut[0] + cut[1] :]
    )
    return st.one_of(mutated.map(lambda each: yaml.safe_dump(each, allow_unicode=True)), raw, spliced)


def thorough(examples):
    """So many cases, the same ones every time; one of more than a minute hangs."""
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=60_000, derandomize=True, database=None, suppress_health_check=quiet)


def read_or_refused(read):
    """What was read; None where it was refused properly."""
    try:
        return read()
    except UserError as error:
        assert str(error) and len(str(error)) < 2000
        assert not re.search(r"Traceback|pydantic\.dev", str(error))
        return None


def written(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


@thorough(2000)
@given(text=st.one_of(variants(TINY), variants(IMAGES)))
def test_protocols(tmp_path_factory, text):
    path = written(tmp_path_factory.getbasetemp(), text)
    protocol = read_or_refused(lambda: load_protocol(str(path)))
    if protocol is not None:
        study = Study(title="t", arms=("standard-copy", "matched-distill"))
        read_or_refused(lambda: make_plan(*protocol, "s", study, [("deit3", "base")], protocol[1].seeds[:3]))


@thorough(1500)
@given(text=variants(STUDY))
def test_studies(tmp_path_factory, text):
    path = written(tmp_path_factory.getbasetemp(), text)
    study = read_or_refused(lambda: load_study(str(path)))
    if study is not None:
        teachers = read_or_refused(lambda: teachers_of("all", None, study[1].teachers))
        mini = load_protocol("mini")
        read_or_refused(lambda: make_plan(*mini, *study, (teachers or [])[:2], [0]))


@thorough(1000)
@given(text=variants(CLUSTER))
def test_cluster_settings(tmp_path_factory, text):
    path = written(tmp_path_factory.getbasetemp(), text)
    config = read_or_refused(lambda: load_config(path))
    if config is not None:
        assert isinstance(config, ClusterConfig)
        parameters = config.parameters("name", path, ["1"], path)
        for name in ("slurm_partition", "slurm_account", "slurm_qos", "slurm_constraint"):
            assert "\n" not in str(parameters.get(name, "")), "it would become a line of a script"


MINI = Definitions(made.PROTOCOLS["mini"])
RESULT = made.content_of(made.Cell("mini", "deit", "base", "standard-copy", 0), 50.0)


@thorough(1500)
@given(content=st.one_of(variants(RESULT), st.binary(max_size=200), st.text(max_size=200)))
def test_results(tmp_path_factory, content):
    """A file counts as it is, is stale, or is named with a reason of one line."""
    path = tmp_path_factory.getbasetemp() / "mini" / "deit" / "base" / "standard-copy-s0.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_json(content))
    found = read_result(path)
    if isinstance(found, Rejected):
        assert found.reason and len(found.reason) < 400
    else:
        sort_results([found], [], {"mini": MINI})


def as_json(content):
    if isinstance(content, bytes):
        return content
    try:
        return json.dumps(yaml.safe_load(content)).encode()
    except Exception:  # what is no YAML is no JSON either
        return content.encode(errors="surrogatepass")
