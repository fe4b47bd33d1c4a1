"""Figure: measured differences of claims about the KL of attention maps, in nats."""

from __future__ import annotations

from typing import Any

from benchmark.analysis.claims import Finding
from benchmark.reporting.figures import claims

PLACE = 110
TITLE = claims.TITLE
draw = claims.draw


def of_finding(finding: Finding) -> list[dict[str, Any]]:
    """A row a difference of KL."""
    return [row for row in claims.differences(finding) if row["on"] == "kl"]
