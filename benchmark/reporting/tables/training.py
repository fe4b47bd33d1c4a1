"""Table: cost of training."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from benchmark.analysis.leaderboard import Leaderboard
from benchmark.reporting.table import Column, Table
from benchmark.storage.result_file import Cost

PLACE = 131


def of_board(board: Leaderboard) -> Table:
    """Hours, memory and energy of the runs of each arm and device; runs that cells share count
    once, for the first of the arms."""
    order = {arm: number for number, arm in enumerate(board.arms)}
    groups, counted = dict[tuple[str, str], list[Cost]](), set[str]()
    for result in () if board.long else sorted(board.results, key=lambda each: order.get(each.cell.arm, -1)):
        if result.cost.seconds and result.key not in counted:  # an evaluation of a finished run took none
            counted.add(result.key)
            groups.setdefault((result.cell.arm, result.cost.device), []).append(result.cost)
    rows = tuple(_row(*place, costs) for place, costs in groups.items())
    columns = [Column("arm", "arm", left=True), Column("device", "device", left=True), Column("runs", "runs")]
    columns += [Column("each", "hours a run", 3), Column("total", "hours", 2), Column("memory", "memory, GB", 2)]
    if any("kwh" in row for row in rows):
        columns += [Column("kwh", "kWh a run", 5), Column("metered", "runs measured")]
    note = (
        "Hours of the device, GPU-hours on a GPU: the time of training steps, with a run's share of what runs that trained"
        " together share. Memory: the highest peak, of the process on a CPU. Teachers are not counted."
    )
    energy = "kWh: the electricity of training as codecarbon estimates it, mean of the runs that were measured (--energy)."
    return Table("training", "Cost of training", tuple(columns), rows, (note, energy) if len(columns) > 6 else (note,))


def _row(arm: str, device: str, costs: list[Cost]) -> dict[str, Any]:
    hours, measured = [cost.hours for cost in costs], [cost.kwh for cost in costs if cost.kwh is not None]
    row = {"arm": arm, "device": device, "runs": len(costs), "each": fmean(hours), "total": sum(hours)}
    row["memory"] = max(cost.peak_memory_mb for cost in costs) / 1000
    return row | ({"kwh": fmean(measured), "metered": len(measured)} if measured else {})
