"""Tables in CSV."""

from __future__ import annotations

import io

import pandas as pd

from benchmark.reporting.latex import spread
from benchmark.reporting.table import Table


def frame(table: Table) -> pd.DataFrame:
    """The values whole: an estimate with its interval ends, a verdict with its gaps."""
    return pd.DataFrame([{k: v for c in table.columns for k, v in spread(c.key, row.get(c.key)).items()} for row in table.rows])


def to_csv(table: pd.DataFrame) -> str:
    """CSV text with numbers to four decimals."""
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, float_format="%.4f", lineterminator="\n")
    return buffer.getvalue()
