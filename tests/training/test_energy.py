"""The energy of training, against a fake codecarbon: a kWh an hour, by a clock of the test's."""

import sys
from types import SimpleNamespace

import pytest

from benchmark.training import energy
from benchmark.training.checkpoint import Progress
from benchmark.training.energy import EVERY_SECONDS, EnergyMeter, metering

from .test_train import Killed, fit, item_of, plan_of, train_all, training_of


class Clock:
    now, memory, open = 100.0, 0.25, True

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when a test says so; the fake tracker reads it too."""
    clock = Clock()

    class OfflineEmissionsTracker:
        def __init__(self, **given):
            assert given["save_to_file"] is False and given["tracking_mode"] == "process"
            self.began = {}

        def start_task(self, name):
            self.began[name] = clock.now

        def stop_task(self, name):
            kwh = (clock.now - self.began.pop(name)) / 3600
            return SimpleNamespace(cpu_energy=kwh * 0.75, ram_energy=kwh * clock.memory, gpu_energy=1000.0)

        def stop(self):
            clock.open = False

    monkeypatch.setitem(sys.modules, "codecarbon", SimpleNamespace(OfflineEmissionsTracker=OfflineEmissionsTracker))
    monkeypatch.setattr(energy, "time", clock)
    return clock


def test_energy_is_shared_by_seconds(clock):
    meter, one, other = EnergyMeter("cpu"), Progress(), Progress()
    meter.charge(one, 1.0)
    clock.now += EVERY_SECONDS - 1
    meter.settle(at_once=False)
    assert one.kwh == 0  # too soon for a reading
    meter.charge(one, 2.0)
    meter.charge(other, 1.0)
    clock.now += 3600
    meter.settle(at_once=False)
    whole = (3600 + EVERY_SECONDS - 1) / 3600
    assert (one.kwh, other.kwh) == pytest.approx((whole * 3 / 4, whole / 4))
    assert (one.metered, other.metered) == (3.0, 1.0)
    meter.charge(other, 5.0)
    clock.now += 36
    meter.settle(at_once=True)
    assert (one.kwh, other.kwh) == pytest.approx((whole * 3 / 4, whole / 4 + 0.01))


def test_a_resumed_run_has_the_energy_of_both_parts_or_none(clock, tmp_path):
    item = item_of(plan_of("deit", ["standard-none"]), "standard-none")

    def train(folder, stop_at=None):
        """The run's kWh, if it ends; a step takes a minute of the fake clock."""
        training = training_of(item, folder)
        training.resume()

        def step(training, loss):
            clock.now += 60

        try:
            payloads, failures = train_all([training], stop_at, step, meter=EnergyMeter("cpu"))
        except Killed:
            training.wait_for_write()
            return "killed"
        assert not failures
        return payloads[folder.name]["cost"]["kwh"]

    steps = item.run.protocol.recipe.steps
    assert train(tmp_path / "whole") == pytest.approx(steps / 60, rel=1e-6)
    assert train(tmp_path / "parts", stop_at=3) == "killed"
    assert train(tmp_path / "parts") == pytest.approx(steps / 60, rel=1e-6)
    assert fit(item, tmp_path / "unmetered", stop_at=3) is None
    assert train(tmp_path / "unmetered") is None  # of its first steps nothing is known
    assert fit(item, tmp_path / "never")["cost"]["kwh"] is None


@pytest.mark.parametrize("trouble", ["missing", "not a number", "constructor"])
def test_no_training_ends_by_an_error_of_the_meter(trouble, clock, monkeypatch, tmp_path, capsys):
    tracker = sys.modules["codecarbon"].OfflineEmissionsTracker
    if trouble == "missing":
        monkeypatch.setattr(tracker, "stop_task", lambda self, name: None)
    elif trouble == "constructor":
        monkeypatch.setattr(tracker, "__init__", lambda self: None)
    else:
        clock.memory = float("nan")
    item = item_of(plan_of("deit", ["standard-none"]), "standard-none")
    with metering(True, "cpu") as meter:
        payloads, failures = train_all([training_of(item, tmp_path / "run")], meter=meter)
    assert not failures and payloads["run"]["cost"]["kwh"] is None
    assert capsys.readouterr().err.count("bench: energy is not measured: ") == 1


def test_the_meter_is_closed_whatever_happens(clock):
    with pytest.raises(KeyboardInterrupt), metering(True, "cpu"):
        raise KeyboardInterrupt
    assert not clock.open
    with metering(False, "cpu") as meter:
        assert meter is None
