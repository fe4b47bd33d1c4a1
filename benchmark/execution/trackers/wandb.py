"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.execution.trackers import PROJECT, Tracked


class WandB:
    """One of its runs, resumed by the run's key."""

    PACKAGE = "wandb"

    def __init__(self, run: Tracked) -> None:
        import wandb

        self.run = wandb.init(
            project=PROJECT,
            name=run.name,
            group=run.group,
            id=run.key,
            config=dict(run.settings),
            dir=str(run.folder),
            resume="allow",
            reinit="create_new",
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers."""
        self.run.log(dict(values), step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        """Finish it."""
        self.run.summary.update(dict(summary))
        self.run.finish(exit_code=0 if summary else 1)


TRACKER = WandB
