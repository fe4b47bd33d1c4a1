"""Time that a device takes, read without waiting for it."""

from __future__ import annotations

import time

import torch

Moment = float | torch.cuda.Event


def now(device: torch.device) -> Moment:
    """The current time; on a GPU an event at the end of the work that is queued so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds(began: Moment, ended: Moment) -> float:
    """The time between two moments of one device. Waits until a GPU has passed the second one."""
    if isinstance(began, float) or isinstance(ended, float):
        return ended - began  # type: ignore[operator, no-any-return]
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000
