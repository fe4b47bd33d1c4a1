"""Take the runs of a launch that no other command has, record them, and submit a scheduler's jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmark.execution.delivery import finished
from benchmark.execution.launcher import Launch, interrupts_ignored
from benchmark.execution.progress_writer import mark_failed
from benchmark.execution.submissions import Array, Job, Standing, backend_of
from benchmark.execution.worker import DIED
from benchmark.spec.plan import Item, units

BLAMELESS = ("CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")  # endings that are no run's fault


class Submitter:
    """Submits a launch's runs: on a scheduler each unit is a job, each stage an array, and a later
    stage begins once the jobs that it needs have ended."""

    def __init__(self, launch: Launch) -> None:
        self.launch, self.backend, self.outcome = launch, launch.backend, launch.outcome
        self.submissions, self.submission = launch.submissions, launch.submission

    def begin(self, todo: Sequence[Item]) -> list[Item]:
        """Take those of `todo` that no other command has, record them, and submit them on a scheduler.

        Only one command of a work folder does so at a time. Raises SchedulerError where the
        scheduler refuses; the record then has the jobs submitted before.
        """
        folder = self.launch.workspace.submission(self.launch.name)
        with self.submissions.exclusively(), interrupts_ignored():
            folder.path.mkdir(parents=True, exist_ok=True)  # a remote folder is listed afresh then
            standings = self.submissions.settle()
            mine = self._left(todo, standings)
            if self.backend.detached:
                self._submit_stages(mine, standings)
            elif mine:
                self.submission.arrays = [Array(self.launch.name, [Job(_runs(mine))], submitted=True)]
                self.submissions.save(self.submission)
        return mine

    def _left(self, todo: Sequence[Item], standings: Mapping[str, Standing]) -> list[Item]:
        """Those of `todo` that are not finished by now, not another's, and need no run that cannot
        be waited for."""
        outcome, left = self.outcome, []
        elsewhere = {key for key, at in standings.items() if at.live is not None and self._excludes(at)}
        unawaitable = {key for key in elsewhere if not self.backend.detached or standings[key].job.id is None}
        for item in todo:
            if item.key in elsewhere:
                outcome.elsewhere.append(item.key)
            elif item.key not in outcome.retrained and finished(self.launch.workspace, item):
                self.launch.deliver(item)
            elif {*item.requires} & {*unawaitable, *outcome.waiting}:
                outcome.waiting.append(item.key)
            else:
                left.append(item)
                self._settle_death(item, standings.get(item.key))
        return left

    def _excludes(self, at: Standing) -> bool:
        """Whether a run is left to its owner. Commands on one machine share their runs by locks, as
        they go."""
        return self.backend.detached or backend_of(at.submission).detached

    def _settle_death(self, item: Item, at: Standing | None) -> None:
        """Record that a job died over a run, which is tried alone after the second time."""
        if at is None or at.job.ended is None or at.job.ended.startswith(BLAMELESS):
            return
        if self.launch.workspace.progress(item.key).state == "running":
            reason = f"{DIED}: {backend_of(at.submission).title} says {at.job.ended}"
            mark_failed(self.launch.workspace, item, at.submission.name, reason, died=True)

    def _submit_stages(self, items: Sequence[Item], standings: Mapping[str, Standing]) -> None:
        """Every stage at once, as arrays no longer than the scheduler allows."""
        most = self.backend.longest_array()
        holders = {key: at.job for key, at in standings.items() if at.live is not None}
        for shares in self._shares_by_stage(items):
            needed = {key for share in shares for unit in share for item in unit for key in item.requires}
            after = [holders[key] for key in needed if key in holders]
            for at in range(0, len(shares), most):
                array = self._submit_array(shares[at : at + most], after)
                after = [*after, *array.jobs]  # so that no more jobs than asked for run at a time
                holders |= {key: job for job in array.jobs for key in job.runs}

    def _submit_array(self, shares: list[list[list[Item]]], after: Sequence[Job]) -> Array:
        jobs = [Job(_runs(item for unit in share for item in unit)) for share in shares]
        array = Array(f"bench-{self.launch.name}-{len(self.submission.arrays)}", jobs)
        self.submission.arrays.append(array)
        self.submissions.save(self.submission)
        found = self.launch.submit(shares, array.name, sorted({job.id for job in after if job.id is not None}))
        for job, submitted in zip(jobs, found, strict=True):
            job.id = str(submitted.job_id)
        array.submitted = True
        self.submissions.save(self.submission)
        self.outcome.submitted += [key for job in jobs for key in job.runs]
        return array

    def count_jobs(self, items: Sequence[Item]) -> int:
        """How many jobs of a scheduler the runs would be."""
        return sum(len(shares) for shares in self._shares_by_stage(items))

    def _shares_by_stage(self, items: Sequence[Item]) -> list[list[list[list[Item]]]]:
        keys = {item.key for item in items}
        return [self.shares([item for item in stage if item.key in keys]) for stage in self.launch.plan.stages]

    def shares(self, items: Sequence[Item]) -> list[list[list[Item]]]:
        """The units of each job: groups that train together, as many as it takes for a job's number
        of runs.

        Runs to train alone have a job of their own, which ends with its process.
        """
        shares: list[list[list[Item]]] = []
        alone = self.launch.alone(items)
        for unit in units(items, 1, self.launch.protocol.together, alone):
            if not shares or sum(map(len, shares[-1])) >= self.backend.runs_per_job or unit[0].key in alone:
                shares.append([])
            shares[-1].append(unit)
        return shares


def _runs(items: Iterable[Item]) -> dict[str, str]:
    return {item.key: item.name for item in items}
