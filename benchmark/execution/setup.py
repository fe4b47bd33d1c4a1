"""How runs are trained here, and the task of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.data import Checked, DataLocation
from benchmark.execution.preemption import SignalledPreemption
from benchmark.spec.arm import Arm
from benchmark.spec.data_sets import Images
from benchmark.spec.definitions import is_teacher
from benchmark.spec.plan import Item
from benchmark.spec.protocol import Protocol
from benchmark.spec.run import Run
from benchmark.storage.results import Results
from benchmark.storage.work_folder import Workspace
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.training.distributed import Ranks


@dataclass(frozen=True)
class Setup:
    """How runs are trained here. Nothing of it changes a number but for rounding (and a streamed
    source's order).

    Attributes:
        device: a torch device, or auto.
        jobs: workers at a time.
        processes: how many share one run's batches.
        place: where the data lies, and how it is read.
        weights: the folder of pre-trained teachers.
        micro_batch: images that go through a model at a time; None: the whole batch.
        trackers: names of trackers that are sent learning curves.
        data: data settings of a protocol (JSON) -> what a check of their images found.
        by: who runs them, for the results' provenance.
        energy: whether the energy of training is measured.
    """

    device: str = "auto"
    jobs: int = 1
    processes: int = 1
    place: DataLocation = field(default_factory=DataLocation)
    weights: Path = Path("weights")
    micro_batch: int | None = None
    trackers: tuple[str, ...] = ()
    data: Mapping[str, Checked] = field(default_factory=dict)
    by: str | None = None
    energy: bool = False

    def checked(self, run: Run) -> Checked:
        """What a check of a run's images found."""
        return self.data.get(data_of(run), Checked())


def data_of(run: Run) -> str:
    """A run's data settings, as a key."""
    return run.settings.data.model_dump_json()


def place_of(item: Item, place: DataLocation) -> DataLocation:
    """Where a run's data lies. Raises UserError as `place_named`."""
    arm = item.cells[0].arm
    name = "" if is_teacher(arm) else Arm.parse(arm).data or Arm.parse(arm).task
    return place_named(name, item.run.settings.data, place)


def place_named(name: str, data: Any, place: DataLocation) -> DataLocation:
    """Where the data set or task `name` of a protocol lies: in a folder of its name, unless it is
    embedded, torchvision names it, or it is the protocol's own (""). Raises UserError without one."""
    if not name or place.root is None or data.is_embedded or (isinstance(data, Images) and data.torchvision):
        return place
    name = getattr(data, "folder", "") or name
    known = [folder / name for folder in (place.root, place.root.absolute().parent)]
    found = next((folder for folder in known if folder.is_dir()), None)
    if found is None:
        raise UserError(f"--data {place.root}: no folder {name} in it or beside it")
    return replace(place, root=found)


@dataclass(frozen=True)
class WorkerTask:
    """The task of a worker.

    Attributes:
        units: of runs, in the order to take them.
        protocol, workspace, results, setup: what the runs are, where everything lies, how they are
            trained.
        launcher: the name of the launch.
        process: the launching process, to end with it; None for a worker that outlives it.
        number: of the worker among those on this machine, which chooses its GPU.
        announce: whether other processes wait to be sent this task.
        environment: variables to set, or to remove where None.
        preemption: what a scheduler says meanwhile.
    """

    units: list[list[Item]]
    protocol: Protocol
    workspace: Workspace
    results: Results
    setup: Setup
    launcher: str
    process: int | None
    number: int = 0
    announce: bool = False
    environment: dict[str, str | None] = field(default_factory=dict)
    preemption: SignalledPreemption = field(default_factory=SignalledPreemption)


def device_of(task: WorkerTask, ranks: Ranks) -> str:
    """A process's device: its worker's and rank's share of the GPUs of the node."""
    device = torch_device(task.setup.device)
    if device != "cuda":
        return device
    import torch

    number = (task.number * task.setup.processes + ranks.local) % torch.cuda.device_count()
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def torch_device(wanted: str) -> str:
    """The device that `auto` means here; any other name as it is."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def job_id() -> str | None:
    """The number of the submitit job that this process belongs to; None outside of one."""
    import submitit

    try:
        return str(submitit.JobEnvironment().job_id)
    except RuntimeError:
        return None
