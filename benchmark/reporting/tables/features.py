"""Table: frozen features of students, beside their teacher's."""

from __future__ import annotations

from statistics import mean

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table
from benchmark.spec.data_sets import FEATURE_SCORES, TEACHER_SCORES

PLACE = 125
TITLES = {"knn10": "10-NN", "knn20": "20-NN", "probe": "linear probe"}


def of_board(board: Leaderboard) -> Table:
    """Top-1 of nearest neighbours and of a linear probe, where `bench evaluate --features` made them."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for result in board.results:
        cell = result.cell
        for name in (*FEATURE_SCORES, *TEACHER_SCORES):
            if name in result.evaluations:
                scores = found.setdefault((cell.family, cell.size, cell.arm), {})
                scores.setdefault(name, []).append(result.evaluations[name].value)
    rows = []
    for row in board.rows if found else ():
        for entry in row.entries:
            own = found.get((row.families[0], row.size, entry.arm.name))
            if own and not entry.note:
                n = max(map(len, own.values()))
                means = {name: mean(values) for name, values in own.items()}
                rows.append({"teacher": row.label, "arm": entry.arm.name, "n": n, "test": entry.top1, **means})
    columns = [Column("teacher", "teacher", left=True), Column("arm", "arm", left=True), Column("n", "n"), Column("test", "test")]
    columns += [Column(name, TITLES[name]) for name in FEATURE_SCORES]
    columns += [Column(name, f"teacher's {TITLES[own]}") for own, name in zip(FEATURE_SCORES, TEACHER_SCORES, strict=True)]
    note = (
        "Top-1 in % on the test set, mean over runs: of the model's own head (test), of its nearest training images by the"
        " features before the head (cosine, weights exp(s / .07) as in DINO's evaluation), and of a linear probe on these."
    )
    return Table("features", "Frozen features", tuple(columns), tuple(rows), (note,))
