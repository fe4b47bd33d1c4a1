"""Evaluations: what a finished run is measured on or with. They are no part of the run.

An evaluation is named as in a result file: a test set of the run's data (`noise`), a variant of an
arm that trains nothing (`ensemble=finetuned`, `match=end`), or `features` and `teacher_features`,
which give several scores at once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from benchmark.spec.data_sets import FEATURE_SCORES, FEATURES, TEACHER_FEATURES, TEACHER_SCORES, Described
from benchmark.spec.run import Run, Transfer
from benchmark.spec.teacher_source import TeacherSource

AT_START = "match=start"
SCORES = {FEATURES: FEATURE_SCORES, TEACHER_FEATURES: TEACHER_SCORES}


@dataclass(frozen=True)
class Evaluation:
    """What a finished run is measured on or with.

    Attributes:
        run: the finished run.
        name: see the module's docstring.
        on: the images, by their settings.
        beside: key of the run, or digest of the teacher, that it is measured with; None without.
        transfer: which maps are compared with the teacher's; None without.
        teacher: whose maps or features these are; of an ensemble, what its other run began from.
    """

    run: Run
    name: str
    on: Described
    beside: str | None = None
    transfer: Transfer | None = None
    teacher: TeacherSource | None = None

    @cached_property
    def key(self) -> str:
        """A digest: equal evaluations are made once."""
        compared = None if self.transfer is None else self.transfer.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps([self.run.key, self.name, self.on, self.beside, compared], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def read(self) -> TeacherSource | None:
        """The teacher whose weights are read; None where none are."""
        if self.transfer is not None or self.name == TEACHER_FEATURES:
            return self.teacher
        given = self.run.transfer
        return self.run.teacher if given.needs_teacher and (given.copies or self.name == "test") else None

    @property
    def files(self) -> dict[str, str]:
        """Keys of the runs whose weights are loaded, by use: `student` (the run's own), `run` (the
        teacher's), `ensemble`."""
        own = {} if self.name in (TEACHER_FEATURES, AT_START) else {"student": self.run.key}
        taught = {} if self.read is None or self.read.run_key is None else {"run": self.read.run_key}
        return own | taught | ({"ensemble": str(self.beside)} if self.name.startswith("ensemble=") else {})

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of its scores in a result file."""
        return SCORES.get(self.name, (self.name,))


def measured_on(run: Run, name: str) -> Described:
    """An evaluation set by its settings, as a run is measured on it. Raises UnknownName."""
    found = run.settings.data.described(name)
    return found | ({"batch": run.settings.evaluation_batch} if run.transfer.needs_whole_batch else {})


def on_set(run: Run, name: str) -> Evaluation:
    """The evaluation on a set of the run's data. Raises UnknownName."""
    return Evaluation(run, name, measured_on(run, name))


def of_features(run: Run) -> Evaluation:
    """The evaluation of frozen features: neighbours and probe among training images, on test."""
    return Evaluation(run, FEATURES, measured_on(run, "test") | _known(run))


def of_teacher_features(run: Run) -> Evaluation | None:
    """The same of the run's teacher; None without one."""
    if run.teacher is None:
        return None
    on = run.settings.data.described("test") | _known(run)
    return Evaluation(run, TEACHER_FEATURES, on, beside_of(run.teacher), teacher=run.teacher)


def _known(run: Run) -> Described:
    return {"training_images": run.settings.data.described("train")["images"]}


def beside_of(teacher: TeacherSource) -> str:
    """A name of a teacher: the key of its run, or its digest."""
    return teacher.run_key or teacher.digest
