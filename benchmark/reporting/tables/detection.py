"""Table: average precision of detectors on the backbones of finished runs."""

from __future__ import annotations

from statistics import mean

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table
from benchmark.storage.scores import BoxMetrics

PLACE = 127
TITLES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large"}
COLUMNS = {f"{kind}_{name}": f"{kind} {title}" for kind in ("box", "mask") for name, title in TITLES.items()}


def of_board(board: Leaderboard) -> Table:
    """Average precision of boxes and masks, by teacher and arm."""
    found: dict[tuple[str, str, str], list[BoxMetrics]] = {}
    for result in board.results:
        if isinstance(result.metrics, BoxMetrics):
            found.setdefault((result.cell.family, result.cell.size, result.cell.arm), []).append(result.metrics)
    rows = []
    for row in board.rows if found else ():
        for entry in row.entries:
            own = found.get((row.families[0], row.size, entry.arm.name))
            if own and not entry.note:
                scores = {name: [getattr(each, name) for each in own] for name in COLUMNS}
                means = {name: None if None in values else mean(values) for name, values in scores.items()}
                rows.append({"teacher": row.label, "arm": entry.arm.name, "n": len(own), **means})
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("n", "n")]
    columns += [Column(name, title) for name, title in COLUMNS.items() if any(row[name] is not None for row in rows)]
    note = (
        "COCO's average precision in % on the task's test set, mean over runs: over IoU .5 to .95, at .5, at .75, and of"
        " small (below 32 x 32 pixels), medium and large (above 96 x 96) objects."
    )
    return Table("detection", "Detection and instance segmentation", tuple(columns), tuple(rows), (note,))
