"""The work folder: the files of runs and submissions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.spec.yaml_files import read_bytes
from benchmark.storage.files import (
    Damaged,
    is_file_or_nothing,
    last_line,
    read_sealed,
    read_text,
    sealed,
    set_aside,
    write_json,
)
from benchmark.storage.result_file import EvaluationPayload, Payload

WEIGHTS_DIGEST, RUN_KEY = "weights", "key"  # of a payload
NO_REASON = "no reason was left"


class Progress(BaseModel):
    """The last progress record that a worker wrote of a run.

    Attributes:
        state: running, interrupted (it can go on), finished or failed; None: nothing was written.
        step, steps: taken, and of how many.
        launcher, job, pid: the command's name, the scheduler's number of its job, the process.
        updated: seconds since the epoch.
        deaths: how often a worker died over it.
        loss, batch_size, together, images_per_second, peak_memory_mb: as measured by its training.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)

    state: Literal["running", "interrupted", "finished", "failed"] | None
    step: int = Field(ge=0)
    steps: int = Field(gt=0)
    updated: float
    launcher: str | None = None
    job: str | None = None
    pid: int | None = None
    deaths: int = Field(default=0, ge=0)
    loss: float | None = None
    batch_size: int | None = None
    together: int | None = None
    images_per_second: float | None = None
    peak_memory_mb: float | None = None


NO_PROGRESS = Progress(state=None, step=0, steps=1, updated=0.0)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint, self.weights, self.payload = path / "checkpoint.pt", path / "weights.pt", path / "payload.json"
        self.progress, self.error, self.log = path / "progress.json", path / "error.txt", path / "run.log"
        self.log_lines = path / "log.jsonl"


class SubmissionFolder:
    """The files of one submission, beside those that submitit writes."""

    def __init__(self, path: Path) -> None:
        self.path, self.record, self.environment = path, path / "submission.json", path / "environment.sh"


class Workspace:
    """The work folder: `runs/<key>/` has a RunFolder for each run and evaluation,
    `jobs/<submission>/` a SubmissionFolder, `code/` the copies of the code that jobs run,
    `superseded/` results that newer runs replaced, `speed/<protocol>/` measurements of `bench
    speed`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.jobs, self.code, self.superseded = self.folder / "jobs", self.folder / "code", self.folder / "superseded"

    def run(self, key: str) -> RunFolder:
        """The files of a run."""
        return RunFolder(self.folder / "runs" / key)

    def submission(self, name: str) -> SubmissionFolder:
        """The files of a submission."""
        return SubmissionFolder(self.jobs / name)

    def submissions(self) -> list[SubmissionFolder]:
        """Those that have a record."""
        return [SubmissionFolder(path.parent) for path in self.jobs.glob(f"*/{self.submission('*').record.name}")]

    def speed(self, protocol: str) -> Path:
        """The folder of measurements of a protocol's steps."""
        return self.folder / "speed" / protocol

    def payload(self, key: str) -> dict[str, Any] | None:
        """The record of a finished run, without labels; None if it has not finished here, or its
        file is damaged."""
        return self._finished(key)[0]

    def weights_digest(self, key: str) -> str | None:
        """The digest (training.models.weights_digest) of a finished run's weights; None where it is
        not known."""
        return self._finished(key)[1]

    def finish(self, key: str, payload: dict[str, Any], weights: str | None) -> None:
        """Write the record of a finished run, with its key and the digest of its weights (None: it
        has none of its own)."""
        write_json(self.run(key).payload, sealed(payload | {WEIGHTS_DIGEST: weights, RUN_KEY: key}), durable=True)

    def _finished(self, key: str) -> tuple[dict[str, Any] | None, str | None]:
        try:
            content = read_sealed(self.run(key).payload) or {RUN_KEY: None}
        except Damaged:
            return None, None
        own, digest = content.pop(RUN_KEY, None) == key, content.pop(WEIGHTS_DIGEST, None)
        try:
            kind = Payload if "metrics" in content else EvaluationPayload
            kind.model_validate_json(json.dumps(content), strict=True)
        except ValidationError:
            return None, None
        return (content, digest if isinstance(digest, str) else None) if own else (None, None)

    def set_damaged_aside(self, key: str) -> list[Path]:
        """Rename the unreadable files of a run: a payload that is damaged or another run's,
        progress and error that are no regular files. Returns the new paths."""
        folder = self.run(key)
        odd = [path for path in (folder.progress, folder.error) if not is_file_or_nothing(path)]
        if os.path.lexists(folder.payload) and self.payload(key) is None:
            odd.append(folder.payload)
        return [set_aside(path) for path in odd]

    def progress(self, key: str) -> Progress:
        """The record that was last written; NO_PROGRESS without a valid one."""
        try:
            return Progress.model_validate_json(read_bytes(self.run(key).progress))
        except (OSError, ValueError):
            return NO_PROGRESS

    def write_progress(self, key: str, progress: Progress) -> None:
        """Replace the record by the fields of `progress` that are set."""
        write_json(self.run(key).progress, progress.model_dump(exclude_unset=True))

    def error(self, key: str) -> str | None:
        """The last line of a failed run's traceback; None without one."""
        path = self.run(key).error
        return last_line(read_text(path), NO_REASON) if path.exists() else None
