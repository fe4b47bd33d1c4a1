"""Run a plan through submitit: find what is finished, submit what is not, say what became of it.

On one machine workers share one list of units until it is empty, stage by stage. On Slurm each unit is a job, each stage an
array, and a later stage begins when the jobs that it needs have ended. What somebody else's jobs have is left to them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmark.execution.backends import slurm as cluster
from benchmark.execution.backends.slurm import SchedulerError
from benchmark.execution.cluster_config import ClusterConfig
from benchmark.execution.code_copy import frozen
from benchmark.execution.delivery import below_floor, deliver, finished
from benchmark.execution.progress_writer import mark_failed
from benchmark.execution.run_state import State, state_of
from benchmark.execution.setup import Order, Setup, data_of
from benchmark.execution.submissions import Array, Job, Standing, Submission, Submissions
from benchmark.execution.worker import DIED, Worker, set_environment
from benchmark.spec.plan import Item, Plan, units
from benchmark.spec.protocol import Protocol
from benchmark.spec.run import Run
from benchmark.storage.files import ensure_writable, last_line, read_text
from benchmark.storage.locks import locked
from benchmark.storage.result_file import Labelled, Result, read_result
from benchmark.storage.results import Results
from benchmark.storage.work_folder import NO_REASON, Workspace
from benchmark.training.preemption import python_that_waits
from families.spec import UserError

Cluster = Literal["local", "debug", "slurm"]


CLUSTERS: tuple[Cluster, ...] = ("local", "debug", "slurm")


WEEK_MIN = 7 * 24 * 60


FOLLOW_SECONDS, LAG_SECONDS = 5.0, 60.0


ALONE_AFTER = 2  # deaths of workers over a run


NOT_ITS_FAULT = ("CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")


@dataclass
class Outcome:
    """What became of a plan: run keys by state, with the reason for those that failed.

    Attributes:
        finished, found, restored: trained here; found in results; found in the work folder.
        retrained: to be trained again, since others need weights that are gone.
        elsewhere: queued or running by another command.
        waiting: not to be trained here, since they need what is elsewhere.
        submitted: given to a scheduler.
        failed: with the reason.
    """

    finished: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    retrained: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Launcher:
    """Finds what is finished, trains what is not.

    Args:
        plan, protocol: what is asked for.
        workspace, results: where runs and cells lie.
        cluster: submitit's executor: local processes, debug (in this process), or slurm.
        setup: how runs are trained.
        config: what jobs on a cluster are given.
        request: the options that said what is asked for.
    """

    def __init__(
        self, plan: Plan, protocol: Protocol, workspace: Workspace, results: Results, cluster: Cluster, setup: Setup,
        config: ClusterConfig | None = None, request: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.protocol, self.workspace, self.results = plan, protocol, workspace, results
        self.cluster, self.setup = cluster, setup
        self.config, self.jobs = config or ClusterConfig(), Submissions(workspace)
        self.name = f"{os.getpid()}-{time.time_ns()}"
        self.submission = Submission(self.name, cluster, dict(request or {}))
        self.outcome = Outcome()
        self.errors: list[str] = []

    def survey(self) -> list[Item]:
        """The runs to train, teachers first. Nothing is written: results found in a cell or in the work folder count."""
        outcome = self.outcome = Outcome()
        for key, item in self.plan.items.items():
            recorded = self._recorded(item)
            payload = self.workspace.payload(key) if recorded is None else payload_of(recorded)
            if payload is None:
                continue
            (outcome.restored if recorded is None else outcome.found).append(key)
            reason = below_floor(item, payload, self.protocol)
            if reason is not None:
                outcome.failed[key] = reason
        done = {*outcome.found, *outcome.restored}
        todo = {key for key in self.plan.items if key not in done}
        needed = self._needed_by(todo)
        outcome.retrained = [key for key in needed if key in done and not (self.workspace.run(key) / "weights.pt").exists()]
        return [item for key, item in self.plan.items.items() if key in todo or key in outcome.retrained]

    def _needed_by(self, todo: Collection[str]) -> list[str]:
        """The runs whose weights `todo` needs, and what those need that have lost theirs."""
        needed: dict[str, None] = {}
        queue = list(todo)
        while queue:
            for key in self.plan.items[queue.pop()].requires:
                if key not in needed:
                    needed[key] = None
                    if not (self.workspace.run(key) / "weights.pt").exists():
                        queue.append(key)
        return list(needed)

    def fill(self) -> None:
        """Write every cell that an already finished run serves."""
        for key in (*self.outcome.found, *self.outcome.restored):
            item = self.plan.items[key]
            recorded = self._recorded(item)
            payload = self.workspace.payload(key) if recorded is None else payload_of(recorded)
            assert payload is not None
            for cell in item.cells:
                self.results.put(cell, item.run, payload, self.workspace.superseded)

    def begin(self, todo: Sequence[Item]) -> list[Item]:
        """Take what is to be trained and nobody else has, and put all of it down in a record; on Slurm submit it.

        Only one command of a work folder does so at a time. Raises SchedulerError where Slurm refuses; what it has
        taken by then is in the record.
        """
        with self.jobs.exclusively(), _interrupts_ignored():
            self.jobs.folder(self.submission).mkdir(parents=True, exist_ok=True)  # a remote folder is listed afresh then
            standings = self.jobs.settle()
            mine = self._left(todo, standings)
            if self.detached:
                self._submit_all(mine, standings)
            elif mine:
                self.submission.arrays = [Array(self.name, [Job(_runs(mine))], submitted=True)]
                self.jobs.save(self.submission)
        return mine

    def _left(self, todo: Sequence[Item], standings: Mapping[str, Standing]) -> list[Item]:
        """Of `todo` what is neither finished by now, nor another's, nor needs what is and cannot be waited for."""
        outcome, left = self.outcome, []
        elsewhere = {key for key, at in standings.items() if at.live is not None and self._excludes(at)}
        unawaitable = {key for key in elsewhere if not self.detached or standings[key].job.id is None}
        for item in todo:
            if item.key in elsewhere:
                outcome.elsewhere.append(item.key)
            elif item.key not in outcome.retrained and finished(self.workspace, item):
                self._take(item)
            elif {*item.requires} & {*unawaitable, *outcome.waiting}:
                outcome.waiting.append(item.key)
            else:
                left.append(item)
                self._settle_death(item, standings.get(item.key))
        return left

    def _excludes(self, at: Standing) -> bool:
        """Whether we leave a run to whoever has it. Commands on one machine share their runs by locks, as they go."""
        return "slurm" in (at.submission.cluster, self.cluster)

    def _settle_death(self, item: Item, at: Standing | None) -> None:
        """Note that a job died over a run, which is tried alone after the second time."""
        if at is None or at.job.ended is None or at.job.ended.startswith(NOT_ITS_FAULT):
            return
        if self.workspace.progress(item.key).get("state") == "running":
            mark_failed(self.workspace, item, at.submission.name, f"{DIED}: Slurm says {at.job.ended}", died=True)

    def _submit_all(self, items: Sequence[Item], standings: Mapping[str, Standing]) -> None:
        """Every stage at once, as arrays no longer than Slurm allows."""
        cluster.ensure_here()
        keys, most = {item.key for item in items}, cluster.longest_array()
        holders = {key: at.job for key, at in standings.items() if at.live is not None}
        for stage in self.plan.stages:
            units_ = self.shares([item for item in stage if item.key in keys])
            needed = {key for share in units_ for unit in share for item in unit for key in item.requires}
            after = [holders[key] for key in needed if key in holders]
            for at in range(0, len(units_), most):
                array = self._submit_array(units_[at : at + most], after)
                after = [*after, *array.jobs]  # so that no more than `parallel` run at a time
                holders |= {key: job for job in array.jobs for key in job.runs}

    @property
    def detached(self) -> bool:
        """Whether what is submitted outlives the command, and waits for what it needs without it."""
        return self.cluster == "slurm"

    def count_jobs(self, items: Sequence[Item]) -> int:
        """How many jobs the runs would be."""
        keys = {item.key for item in items}
        return sum(len(self.shares([item for item in stage if item.key in keys])) for stage in self.plan.stages)

    def shares(self, items: Sequence[Item]) -> list[list[list[Item]]]:
        """The units of each of Slurm's jobs: groups that train together, as many as it takes for a job's number of runs.

        Runs over which a process died share a job with nobody, since that process takes its job along.
        """
        shares: list[list[list[Item]]] = []
        alone = self._alone(items)
        for unit in units(items, 1, self.protocol.together, alone):
            if not shares or sum(map(len, shares[-1])) >= self.config.runs_per_job or unit[0].key in alone:
                shares.append([])
            shares[-1].append(unit)
        return shares

    def _submit_array(self, shares: list[list[list[Item]]], after: Sequence[Job]) -> Array:
        jobs = [Job(_runs(item for unit in share for item in unit)) for share in shares]
        array = Array(f"bench-{self.name}-{len(self.submission.arrays)}", jobs)
        self.submission.arrays.append(array)
        self.jobs.save(self.submission)
        found = self._submit([replace(self._order(), units=share) for share in shares], array.name, sorted(_ids(after)))
        for job, submitted in zip(jobs, found, strict=True):
            job.id = str(submitted.job_id)
        array.submitted = True
        self.jobs.save(self.submission)
        self.outcome.submitted += [key for job in jobs for key in job.runs]
        return array

    def _order(self) -> Order:
        results, local = Results(self.results.folder.absolute()), self.cluster == "local"
        order = Order([], self.protocol, self.workspace, results, self.setup, self.name, os.getpid() if local else None)
        # submitit would hide all GPUs from processes of this machine
        visible = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")} if local else {}
        return replace(order, announce=self.cluster == "debug", environment=visible)

    def _submit(self, orders: Sequence[Order], name: str, after: Sequence[str] = ()) -> list[Any]:
        """Jobs of submitit's, one for each order, that run the code as it is now. Raises SchedulerError where Slurm refuses,
        UserError where the work folder is full."""
        try:
            return self._submitted(orders, name, after)
        except OSError as error:
            raise UserError(f"--work {self.workspace.folder}: nothing can be submitted ({error.strerror})") from None

    def _submitted(self, orders: Sequence[Order], name: str, after: Sequence[str]) -> list[Any]:
        import submitit

        code, folder = frozen(self.workspace.code), self.jobs.folder(self.submission)
        forever = {"slurm_max_num_timeout": cluster.FOREVER, "slurm_python": python_that_waits()}
        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster, **forever)
        if self.detached:
            executor.update_parameters(**self.config.parameters(name, code, after, self._variables(folder)))
            around: AbstractContextManager[None] = cluster.outside_of_jobs()
        else:
            tasks = {"tasks_per_node": self.setup.processes} if self.cluster == "local" else {}
            executor.update_parameters(timeout_min=WEEK_MIN, **tasks)
            around = _importing(code)
        with around:
            try:
                return list(executor.map_array(Worker(), orders))
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                raise SchedulerError(f"Slurm refuses: {cluster.refusal(str(error))}{self._so_far()}") from None

    def _variables(self, folder: Path) -> Path:
        """Write the file that sets a job's environment, readable by its owner alone (mode 0600)."""
        path = folder / "environment.sh"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self.config.variables)
        return path

    def _so_far(self) -> str:
        jobs = sum(len(array.jobs) for array in self.submission.arrays if array.submitted)
        return f"; {jobs} jobs were submitted before it: see bench status, bench cancel" if jobs else ""

    def _alone(self, items: Sequence[Item]) -> set[str]:
        """Runs over which a worker died twice, or whose failure took its processes along: which of several was the reason is to
        be found out. After one death they go on together, since most are nobody's fault."""
        shared = self.setup.processes > 1 or self.cluster == "debug"  # where a failure may take its process along
        died = {item.key for item in items if self.workspace.progress(item.key).get("deaths", 0) >= ALONE_AFTER}
        errors = {item.key: self.workspace.error(item.key) for item in items if shared}
        return died | {key for key, error in errors.items() if error and not error.startswith(DIED)}

    def submit(self, todo: Sequence[Item]) -> Outcome:
        """Give `todo` to Slurm, where it waits for its turn without this command."""
        self.begin(todo)
        return self.outcome

    def follow(self, tell: Callable[[str], None]) -> Outcome:
        """Wait until nothing of the plan is queued or running on Slurm any more, and see what became of it.

        `tell` is told, once each time, that Slurm does not answer: jobs go on meanwhile.
        """
        outcome, answered = self.outcome, True
        keys = {*outcome.submitted, *outcome.elsewhere}
        while True:
            try:
                standings, answered = self.jobs.standings(), True
                if not any(standings[key].live for key in keys):
                    break
            except SchedulerError as error:
                if answered:
                    tell(str(error))
                answered = False
            time.sleep(FOLLOW_SECONDS)
        with self.jobs.exclusively():
            standings = self.jobs.settle()
        outcome.submitted, outcome.elsewhere = [], []
        for key in keys:
            state = self._seen_at_last(self.plan.items[key], standings)
            if self.workspace.payload(key) is not None:
                self._take(self.plan.items[key])  # another request's job may not have known all cells
            elif state.kind == "finished":
                outcome.finished.append(key)
            else:
                outcome.failed[key] = state.reason or state.kind
        return outcome

    def _seen_at_last(self, item: Item, standings: Mapping[str, Standing]) -> State:
        """A run's state once its job has ended: a job that completed has left something, which a remote folder may show late."""
        end = time.monotonic() + LAG_SECONDS
        while True:
            state = state_of(item, self.workspace, self.results, self.jobs, standings)
            told = state.kind == "finished" or self.workspace.error(item.key) is not None
            if told or standings[item.key].job.ended != "COMPLETED" or time.monotonic() > end:
                return state
            time.sleep(FOLLOW_SECONDS)

    def train(self, todo: Sequence[Item]) -> Outcome:
        """Train `todo` stage by stage. A student whose teacher failed is failed with it; all others still run."""
        with self.jobs.present(self.submission):
            todo = self.begin(todo)
            keys = {item.key for item in todo}
            for stage in self.plan.stages:
                self._stage([item for item in stage if item.key in keys and not self._lost(item)])
        return self.outcome

    def _lost(self, item: Item) -> bool:
        lost = next((key for key in item.requires if key in self.outcome.failed), None)
        if lost is not None:
            what = "teacher" if not self.plan.items[lost].run.is_student else "student"
            self.outcome.failed[item.key] = f"its {what} failed: {self.outcome.failed[lost]}"
        return lost is not None

    def _stage(self, items: list[Item]) -> None:
        pending = items
        while pending:
            self._work_off(pending)
            rest = []
            for item in pending:
                if finished(self.workspace, item):
                    self._take(item)
                elif self._failed(item):
                    self.outcome.failed[item.key] = self._reason(item)
                elif (unwritable := self._unwritable(item)) is not None:
                    self.outcome.failed[item.key] = unwritable
                else:
                    rest.append(item)
            if len(rest) == len(pending):
                for item in rest:
                    said = f" ({self.errors[-1]})" if self.errors else ""
                    folder = self.jobs.folder(self.submission)
                    self.outcome.failed[item.key] = f"no worker could start; see {folder}{said}"
                return
            pending = rest

    def _reason(self, item: Item) -> str:
        """Why a run failed, or why its folder could not hold the reason."""
        told = self.workspace.error(item.key)
        return told if told not in (None, NO_REASON) else self._unwritable(item) or NO_REASON

    def _unwritable(self, item: Item) -> str | None:
        """Why a run's folder cannot be written or locked; None where it can."""
        try:
            ensure_writable("--work", self.workspace.run(item.key))
            with locked(self.workspace.run(item.key), wait=False):
                pass
        except UserError as error:
            return str(error)
        return None

    def _work_off(self, items: list[Item]) -> None:
        """Let workers take `items` until none is left."""
        shares = units(items, self.setup.jobs, self.protocol.together, self._alone(items))
        order = replace(self._order(), units=shares)
        with _interrupts_ignored():
            jobs = self._submit([replace(order, number=n) for n in range(min(self.setup.jobs, len(shares)))], self.name)
        self.errors = [last_line(str(error), "without a word") for job in jobs if (error := job.exception()) is not None]

    def _take(self, item: Item) -> None:
        """A finished run: its cells are there, or their place is gone; then its payload waits in the work folder."""
        try:
            deliver(self.workspace, self.results, item)
            self.outcome.finished.append(item.key)
        except OSError as error:
            self.outcome.failed[item.key] = f"trained, but its result could not be written: {error}"

    def _failed(self, item: Item) -> bool:
        """Whether a worker of this launcher failed it, or died over it. What another launcher does is not ours to judge."""
        progress = self.workspace.progress(item.key)
        if progress.get("launcher") != self.name:
            return False
        with locked(self.workspace.run(item.key), wait=True):
            if progress["state"] == "running":
                path = self.workspace.run(item.key) / "error.txt"
                told = read_text(path)  # by a process that another one's progress came after
                mark_failed(self.workspace, item, self.name, told or DIED, died=not told)
        return True

    def other_weights(self, item: Item, sha256: str) -> Path | None:
        """A result of the same protocol and pre-trained teacher that another file than this one made."""
        for folder in {self.results.path(cell).parent for cell in item.cells}:
            for path in sorted(folder.glob("*.json")):
                found = read_result(path)
                if isinstance(found, Result) and found.teacher and pretrained_by(found.run) == pretrained_by(item.run):
                    first_hand = found.run.teacher is not None and "run" not in found.run.teacher.runs
                    if first_hand and found.teacher.sha256 != sha256:
                        return path
        return None

    def other_images(self, digests: Mapping[str, str]) -> Path | None:
        """A finished result of this plan that other images than these made; `digests` as Setup's."""
        for key in self.outcome.found:
            found = self._recorded(self.plan.items[key])
            if found is not None and found.provenance.data not in (None, digests.get(data_of(self.plan.items[key].run))):
                return self.results.path(found.cell)
        return None

    def results_found(self) -> list[Result]:
        """The plan's results that the survey found."""
        found = (self._recorded(self.plan.items[key]) for key in self.outcome.found)
        return [result for result in found if result is not None]

    def _recorded(self, item: Item) -> Result | None:
        for cell in item.cells:
            result = self.results.get(cell)
            if isinstance(result, Result) and result.key == item.key:
                return result
        return None


def pretrained_by(run: Run | Labelled) -> dict[str, str]:
    """What names a run's pre-trained teacher; empty without one."""
    return {} if run.teacher is None else run.teacher.pinned


def _runs(items: Iterable[Item]) -> dict[str, str]:
    return {item.key: item.cells[0].name for item in items}


def _ids(jobs: Iterable[Job]) -> set[str]:
    return {job.id for job in jobs if job.id is not None}


@contextmanager
def _importing(code: Path) -> Iterator[None]:
    """Processes of this machine that are started within import that copy of the code."""
    paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}  # or the current folder came first
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        set_environment(before)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started within inherit it: Ctrl-C is the launcher's to answer, and workers end with their launcher."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def payload_of(result: Result) -> dict[str, Any]:
    """A result without its labels."""
    return result.model_dump(mode="json", include={"metrics", "val", "curve", "teacher", "cost", "provenance"})
