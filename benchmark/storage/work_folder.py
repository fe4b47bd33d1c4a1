"""The work folder: what runs leave while they train and when they have finished."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.spec.yaml_files import read_bytes
from benchmark.storage.files import (
    SEAL,
    Damaged,
    is_file_or_nothing,
    last_line,
    read_json,
    read_sealed,
    read_text,
    set_aside,
    write_json,
)
from benchmark.storage.result_file import Payload

PAYLOAD, WEIGHTS_DIGEST, RUN_KEY = "payload.json", "weights", "key"


NO_REASON = "no reason was left"


class Progress(BaseModel):
    """What a worker last wrote of a run in `progress.json`.

    Attributes:
        state: running, interrupted (it can go on), finished or failed.
        step, steps: taken, and of how many.
        launcher, job, pid: the command's name, the scheduler's number of its job, the process.
        updated: when, in seconds since the epoch.
        deaths: how often a worker died over it.
        loss, batch_size, together, images_per_second, peak_memory_mb: what its training can tell.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    state: Literal["running", "interrupted", "finished", "failed"]
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


class Workspace:
    """The work folder: `runs/<key>/` holds a run's checkpoint, weights, payload, progress, log and error; `jobs/` what was
    submitted; `code/` what it runs; `superseded/` results that newer runs replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.jobs, self.code, self.superseded = self.folder / "jobs", self.folder / "code", self.folder / "superseded"

    def run(self, key: str) -> Path:
        """A run's folder."""
        return self.folder / "runs" / key

    def payload(self, key: str) -> dict[str, Any] | None:
        """What a finished run left, without labels; None when it has not finished here, or its file is damaged."""
        return self._finished(key)[0]

    def weights_digest(self, key: str) -> str | None:
        """The digest (benchmark.train.weights_digest) of the weights that a finished run left; None where it is not known."""
        return self._finished(key)[1]

    def finish(self, key: str, payload: dict[str, Any], weights: str | None) -> None:
        """Write what a finished run leaves, with its key and the digest of its weights (None: it has none of its own)."""
        write_json(self.run(key) / PAYLOAD, payload | {WEIGHTS_DIGEST: weights, RUN_KEY: key}, durable=True, sealed=True)

    def _finished(self, key: str) -> tuple[dict[str, Any] | None, str | None]:
        path = self.run(key) / PAYLOAD
        try:
            content = read_sealed(path) or {RUN_KEY: None}
            own, digest = content.pop(RUN_KEY, None) == key, content.pop(WEIGHTS_DIGEST, None)
        except Damaged:  # or written before payloads had seals
            content, digest = read_json(path) or {}, None
            own = not content.keys() & {SEAL, RUN_KEY, WEIGHTS_DIGEST}
        try:
            Payload.model_validate_json(json.dumps(content), strict=True)
        except ValidationError:
            return None, None
        return (content, digest if isinstance(digest, str) else None) if own else (None, None)

    def set_damaged_aside(self, key: str) -> list[Path]:
        """Give another name to files of a run that nobody can read: a finished run's that is damaged or another run's, progress
        and error that are no files. Gives the new names."""
        folder = self.run(key)
        odd = [folder / name for name in ("progress.json", "error.txt") if not is_file_or_nothing(folder / name)]
        if os.path.lexists(folder / PAYLOAD) and self.payload(key) is None:
            odd.append(folder / PAYLOAD)
        return [set_aside(path) for path in odd]

    def progress(self, key: str) -> dict[str, Any]:
        """The fields of `Progress` that were last written; empty where there are none that can be believed."""
        try:
            found = Progress.model_validate_json(read_bytes(self.run(key) / "progress.json"))
        except (OSError, ValueError):
            return {}
        return found.model_dump(exclude_none=True)

    def error(self, key: str) -> str | None:
        """The last line of a failed run's traceback; None where there is none."""
        path = self.run(key) / "error.txt"
        return last_line(read_text(path), NO_REASON) if path.exists() else None
