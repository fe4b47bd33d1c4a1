"""Electricity that training uses, as codecarbon estimates it."""

from __future__ import annotations

import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from benchmark.training.checkpoint import Progress
from families.spec import one_line

EVERY_SECONDS = 30.0  # between readings


class EnergyMeter:
    """Measures the energy in kWh of this process and its GPU, and shares it among runs by the
    seconds of their steps. Evaluations between the steps are counted too. If codecarbon fails,
    metering stops with a line on stderr, and training goes on.

    Args:
        device: the GPU, or a CPU; energy of other GPUs does not count.
    """

    def __init__(self, device: str | torch.device) -> None:
        device = torch.device(device)
        self.gpu = device.type == "cuda"
        self.owed: list[tuple[Progress, float]] = []
        self.readings, self.read_at, self.works = 0, 0.0, True
        with self._guarded():
            from codecarbon import OfflineEmissionsTracker

            logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
            self.tracker = OfflineEmissionsTracker(
                country_iso_code="USA",  # asked for, though energy does not depend on it
                tracking_mode="process",
                gpu_ids=[f"GPU-{torch.cuda.get_device_properties(device).uuid}"] if self.gpu else None,
                save_to_file=False,
                output_dir=tempfile.gettempdir(),
                log_level="critical",
                allow_multiple_runs=True,
            )
            self._begin()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.works = False
            print(f"bench: energy is not measured: {one_line(error)}", file=sys.stderr, flush=True)

    def _begin(self) -> None:
        self.readings, self.read_at = self.readings + 1, time.monotonic()
        self.tracker.start_task(str(self.readings))

    def _read(self) -> float:
        found = self.tracker.stop_task(str(self.readings))
        kwh = found.cpu_energy + found.ram_energy + (found.gpu_energy if self.gpu else 0)
        if not (math.isfinite(kwh) and kwh >= 0):
            raise ValueError(f"{kwh} kWh")
        return float(kwh)

    def charge(self, progress: Progress, seconds: float) -> None:
        """Add seconds of a run's steps to its share of the next reading."""
        if self.works:
            self.owed.append((progress, seconds))

    def settle(self, at_once: bool) -> None:
        """Read the meter and share the energy: `at_once`, or if EVERY_SECONDS have passed."""
        total = sum(seconds for _, seconds in self.owed)
        if total == 0 or not self.works or not (at_once or time.monotonic() - self.read_at >= EVERY_SECONDS):
            return
        with self._guarded():
            kwh = self._read()
            for progress, seconds in self.owed:
                progress.kwh += kwh * seconds / total
                progress.metered += seconds
            self.owed.clear()
            self._begin()

    def close(self) -> None:
        """End the metering."""
        if self.works:
            self.works = False
            with suppress(Exception):
                self.tracker.stop_task(str(self.readings))
                self.tracker.stop()


@contextmanager
def metering(wanted: bool, device: str | torch.device) -> Iterator[EnergyMeter | None]:
    """A meter within; None unless it is wanted."""
    meter = EnergyMeter(device) if wanted else None
    try:
        yield meter
    finally:
        if meter is not None:
            meter.close()
