"""Result files that no training made, for tests of what is done with results."""

from benchmark.analysis.statistics import frame
from benchmark.spec.definitions import run_of
from benchmark.spec.protocol import load_protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Cell
from benchmark.spec.yaml_files import shipped
from benchmark.storage.files import write_json
from benchmark.storage.result_file import Result, labelled

MADE = {"cost": {"seconds": 1.0, "device": "cpu", "images_per_second": 100.0, "peak_memory_mb": 10.0}}
MADE["provenance"] = {
    "commit": "c" * 40, "dirty": False, "code": "d" * 64, "versions": {"torch": "2.9"}, "host": "a test",
    "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-02T00:00:00+00:00",
}  # fmt: skip
PROTOCOLS = {name: load_protocol(name)[1] for name in shipped("protocols")}


def content_of(cell, top1, shift=None, **metrics):
    """The content of a result file of a shipped protocol's cell, with a real run's key."""
    run, score = run_of(PROTOCOLS[cell.protocol], cell), {"top5": 99.0, "loss": 1.0}
    shifted = {name: score | {"top1": value} for name, value in (shift or {}).items()}
    steps = run.protocol.recipe.steps
    curve = [{"step": steps * part // 2, "loss": 2.0 / part, "val_top1": top1 * part / 2} for part in (1, 2)]
    return labelled(cell, run, {
        **MADE, "metrics": score | {"top1": top1, "shift": shifted} | metrics, "val": score | {"top1": top1}, "curve": curve,
        "teacher": {"source": "a test"} if run.transfer.method != "none" else None,
    })  # fmt: skip


def results(cells, protocol="mini", **metrics):
    """Results of {(family, size, arm): [top-1 by seed]}."""
    return [
        validated(Result, content_of(Cell(protocol, family, size, arm, seed), top1, **metrics), "made")
        for (family, size, arm), top1s in cells.items()
        for seed, top1 in enumerate(top1s)
        if top1 is not None
    ]


def table(cells, protocol="mini"):
    """The same as a table of benchmark.stats."""
    return frame(results(cells, protocol))


def write(folder, made):
    """Put results into a folder."""
    for result in made:
        write_json(folder / result.cell.path, result.model_dump(mode="json", by_alias=True))
