"""Result files that no training made, for tests of what is done with results."""

from dataclasses import replace

from benchmark.analysis.statistics import frame
from benchmark.spec.arm import Arm, trained_arm
from benchmark.spec.definitions import Definitions, run_of
from benchmark.spec.evaluations import measured_on
from benchmark.spec.protocol import load_protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Cell
from benchmark.spec.yaml_files import shipped
from benchmark.storage.files import write_json
from benchmark.storage.result_file import Result, labelled, read_result, written
from benchmark.storage.scores import EvaluationRecord

MADE = {"cost": {"seconds": 1.0, "device": "cpu", "images_per_second": 100.0, "peak_memory_mb": 10.0}}
MADE["provenance"] = {
    "commit": "c" * 40, "dirty": False, "code": "d" * 64, "versions": {"torch": "2.9"}, "host": "a test",
    "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-02T00:00:00+00:00",
}  # fmt: skip
STAMP = {"date": "2026-01-02T00:00:00+00:00", "code": "d" * 64}
PROTOCOLS = {name: load_protocol(name)[1] for name in shipped("protocols")}
DEFINED = {name: Definitions(protocol) for name, protocol in PROTOCOLS.items()}


def content_of(cell, top1, shift=None, **metrics):
    """The content of a result file of a shipped protocol's cell, with a real run's key. Without a learning curve its area
    is its top-1."""
    run, score = run_of(PROTOCOLS[cell.protocol], cell), {"top5": 99.0, "loss": 1.0}
    known = run.settings.data.shifted_sets
    on = {name: measured_on(run, name) if name in known else {"set": name} for name in shift or ()}
    sets = {name: score | {"top1": value, "on": on[name]} | STAMP for name, value in (shift or {}).items()}
    return labelled(cell, run, {
        **MADE, "metrics": score | {"top1": top1, "on": measured_on(run, "test")} | metrics, "evaluations": sets,
        "val": score | {"top1": top1, "on": measured_on(run, "val")}, "curve": [],
        "teacher": {"source": "hub:a/test"} if run.teacher is not None else None,
    })  # fmt: skip


def result(cell, top1, shift=None, **metrics):
    """The result of a cell; of an arm that names an evaluation, by that of its student."""
    evaluation = DEFINED[cell.protocol].evaluation_of(cell)
    if evaluation is None:
        return validated(Result, content_of(cell, top1, shift, **metrics), "made")
    score = {"top1": top1, "top5": 99.0, "loss": 1.0}
    sets = {name: score | {"top1": value} for name, value in (shift or {}).items()}
    told = {"on": evaluation.on, "beside": evaluation.beside, "shift": sets}
    record = EvaluationRecord(**score | told | STAMP | metrics)
    student = result(replace(cell, arm=trained_arm(cell.arm)), top1)
    return student.model_copy(update={"evaluations": {evaluation.name: record}}).of_arm(cell.arm, evaluation)


def results(cells, protocol="mini", **metrics):
    """Results of {(family, size, arm): [top-1 by seed]}."""
    return [
        result(Cell(protocol, family, size, arm, seed), top1, **metrics)
        for (family, size, arm), top1s in cells.items()
        for seed, top1 in enumerate(top1s)
        if top1 is not None
    ]


def table(cells, protocol="mini"):
    """The same as a table of benchmark.stats."""
    return frame(results(cells, protocol))


def write(folder, made):
    """Put results into a folder; those of arms that name an evaluation into their students' files."""
    for each in sorted(made, key=lambda each: isinstance(each.metrics, EvaluationRecord)):
        path, found = folder / each.cell.path, each
        if isinstance(each.metrics, EvaluationRecord):
            student = replace(each.cell, arm=trained_arm(each.cell.arm))
            there = read_result(path) if path.exists() else result(student, each.metrics.top1)
            named = {Arm.parse(each.cell.arm).evaluation: each.metrics}
            found = there.model_copy(update={"evaluations": there.evaluations | named})
        write_json(path, written(found))


def without_needs(study):
    """A study whose claims are judged by any protocol."""
    return study.model_copy(update={"claims": tuple(claim.model_copy(update={"needs": ()}) for claim in study.claims)})
