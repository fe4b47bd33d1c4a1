"""Electricity that training uses, as codecarbon estimates it."""

from __future__ import annotations

import time

from benchmark.training.checkpoint import Progress

EVERY_SECONDS = 10.0  # between readings


class EnergyMeter:
    """The energy of this process, its GPUs included, shared among runs by the seconds of their
    steps. That of evaluations between the steps is part of it."""

    def __init__(self) -> None:
        from codecarbon import OfflineEmissionsTracker

        self.tracker = OfflineEmissionsTracker(
            country_iso_code="USA",  # asked for, though energy does not depend on it
            tracking_mode="process",
            save_to_file=False,
            log_level="critical",
            allow_multiple_runs=True,
        )
        self.owed: list[tuple[Progress, float]] = []
        self.readings, self.read_at = 0, 0.0
        self._begin()

    def _begin(self) -> None:
        self.readings, self.read_at = self.readings + 1, time.monotonic()
        self.tracker.start_task(str(self.readings))

    def charge(self, progress: Progress, seconds: float) -> None:
        """Have a run pay for seconds of its steps at the next reading."""
        self.owed.append((progress, seconds))

    def settle(self, at_once: bool) -> None:
        """Read the meter and share the energy; unless it is `at_once`, only if some time has
        passed."""
        total = sum(seconds for _, seconds in self.owed)
        if total == 0 or not (at_once or time.monotonic() - self.read_at >= EVERY_SECONDS):
            return
        kwh = float(self.tracker.stop_task(str(self.readings)).energy_consumed)
        for progress, seconds in self.owed:
            progress.kwh += kwh * seconds / total
            progress.metered += seconds
        self.owed.clear()
        self._begin()
