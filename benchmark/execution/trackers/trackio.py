"""Trackio, Hugging Face's local tracker."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.execution.trackers import PROJECT, Tracked


class Trackio:
    """One of its runs."""

    PACKAGE = "trackio"

    def __init__(self, run: Tracked) -> None:
        import trackio

        named = {"project": PROJECT, "name": f"{run.group}/{run.name} {run.key}", "group": run.group}  # it resumes by name
        self.run = trackio.init(**named, config=dict(run.settings), resume="allow", embed=False)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers."""
        self.run.log(dict(values), step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        """Log scores on test, and finish it."""
        if summary:
            self.run.log(dict(summary))
        self.run.finish()


TRACKER = Trackio
