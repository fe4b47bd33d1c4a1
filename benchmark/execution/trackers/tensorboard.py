"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.execution.trackers import Tracked


class TensorBoard:
    """Event files of one run."""

    PACKAGE = "tensorboard"

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.events = SummaryWriter(str(run.folder / "tensorboard"))  # type: ignore[no-untyped-call]

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add scalars."""
        for name, value in values.items():
            self.events.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        self.events.flush()  # type: ignore[no-untyped-call]

    def close(self, summary: Mapping[str, float]) -> None:
        """Close the files."""
        self.events.close()  # type: ignore[no-untyped-call]


TRACKER = TensorBoard
