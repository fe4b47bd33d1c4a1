"""Table: the differences behind claims."""

from __future__ import annotations

from benchmark.analysis.claims import EXPECTED, SIGNS, Finding, Judged, Measured
from benchmark.analysis.notes import code_notes
from benchmark.reporting.table import Column, Difference, Table, signed

PLACE = 140
FEW_DIFFERENCES = 6


def of_finding(finding: Finding) -> Table:
    """The measured differences of a study's claims, each with its claim and outcome."""
    rows = [
        {
            "claim": number,
            "rows": ", ".join(map(str, judged.claim.rows)),
            "difference": one.difference if dict(one.arms) == one.terms else f"{one.difference} (at its best: {_best(one)})",
            "teacher": one.label,
            "on": one.on,
            "n": one.n,
            "m": one.comparisons,
            "value": Difference(one.estimate, one.n, 3 if one.on == "kl" else 1),
            "expect": EXPECTED[one.expect] if one.expect else None,
            "outcome": f"{SIGNS[one.outcome]} {one.outcome}" if one.outcome else None,
        }
        for number, judged in enumerate(finding.judged, 1)
        for one in judged.measured
    ]
    columns = [Column("claim", "claim"), Column("difference", "difference", left=True), Column("teacher", "teacher", left=True)]
    columns += [Column("on", "on", left=True)] if any(row["on"] != "score" for row in rows) else []
    columns += [Column("n", "n"), Column("m", "m"), Column("value", "measured")]
    if any(row["expect"] or row["outcome"] for row in rows):
        columns += [Column("expect", "claimed", left=True), Column("outcome", "outcome", left=True)]
    notes = (finding.footnote, *code_notes(finding.made))
    return Table("claims", "Measured differences of the claims", tuple(columns), tuple(rows), notes)


def _best(measured: Measured) -> str:
    return ", ".join(arm for arm, _ in measured.arms)


def summary_of(judged: Judged) -> list[str]:
    """The range of a claim's differences; of few, each by itself."""
    few = len({one.short for one in judged.measured}) <= FEW_DIFFERENCES
    groups: dict[tuple[str, bool], list[float]] = {}
    for one in judged.measured:
        groups.setdefault((one.short if few else "", one.on == "kl"), []).append(one.estimate.value)
    told = []
    for (name, nats), values in groups.items():
        ends = " to ".join(dict.fromkeys(signed(value, 3 if nats else 1) for value in (min(values), max(values))))
        told.append(f"{name or f'{len(values)} differences'}: {ends} {'nats' if nats else 'points'}")
    return told


def claimed_line(judged: Judged) -> str:
    """A claim with its author and experiments, in one line."""
    several = "s" if len(judged.claim.rows) > 1 else ""
    rows = f", experiment{several} {' and '.join(map(str, judged.claim.rows))}" if judged.claim.rows else ""
    return f"{judged.claim.description.rstrip('.')} ({judged.who}{rows})"
