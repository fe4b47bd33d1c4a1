"""Result files (schema 1) and the work folder: what exists is done, what is written is whole, what is invalid is named."""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.bounds import LARGEST
from benchmark.files import (
    SEAL,
    Damaged,
    is_file_or_nothing,
    last_line,
    parsed,
    read_bytes,
    read_json,
    read_sealed,
    read_text,
    replacing,
    set_aside,
    sweep,
    write_json,
)
from benchmark.plan import Architecture, Cell, Conditions, Role, Run, Transfer
from benchmark.protocol import Percent, Record, Reinit
from families.spec import MOST_SHOWN, UserError, quoted

ROOT = Path(__file__).parent.parent
CODE, FROZEN = ("benchmark", "families"), "frozen.json"
PAYLOAD, WEIGHTS_DIGEST, RUN_KEY = "payload.json", "weights", "key"
NO_REASON = "no reason was left"


class NamedConditions(Conditions):
    """The run's part of its protocol, with the protocol's name."""

    name: str


class Labelled(Record):
    """A run with the labels of the cell it was written for."""

    family: str
    size: str
    arm: str
    seed: int
    protocol: NamedConditions
    student: Architecture
    transfer: Transfer = Transfer()
    role: Role = "student"
    teacher: dict[str, str] | None = None
    reinit: Reinit = "none"

    @cached_property
    def run(self) -> Run:
        """The run without labels. (A teacher's seed is its own.)"""
        conditions = Conditions(**{name: getattr(self.protocol, name) for name in Conditions.model_fields})
        kept = {name: getattr(self, name) for name in Run.model_fields}
        return Run(**(kept | {"protocol": conditions}))


Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]


class Score(Record):
    """top1 and top5 in percent, mean cross-entropy."""

    top1: Percent
    top5: Percent
    loss: Finite


class Metrics(Score):
    """The test set's score, each shifted set's, and by transferred block the attention's match and dropped mass."""

    shift: dict[str, Score] = {}
    attention_kl: list[Finite] | None = None
    dropped_mass: list[Finite] | None = None


class Point(Record):
    """A learning curve's point: mean training loss since the point before, and top-1 on val."""

    step: Annotated[int, Field(ge=0)]
    loss: Finite
    val_top1: Percent


class TeacherRecord(Record):
    """What the student learnt from; `top1` and `how` it was measured are null where it was not."""

    source: Annotated[str, Field(max_length=1000)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    revision: str | None = None
    top1: Percent | None = None
    how: str | None = None


class Cost(Record):
    """Of training: wall seconds, device, training images per second, peak memory of the process (cpu) or device.

    Seconds are those of the run's own steps, with its share of batch and teacher where several trained in one process:
    `together` in the process that ended the run. (Null: measured before runs trained together; then evaluation on the way
    is counted in.) `ranks` shared each batch where it is more than one; seconds are then those of one of them.
    """

    seconds: NotNegative
    device: str
    images_per_second: NotNegative
    peak_memory_mb: NotNegative
    together: int | None = None
    ranks: int | None = None


class Provenance(Record):
    """What made the number. `dirty` speaks of the code alone; null where the code is no git checkout. `data` is a digest of the
    images' names and sizes, null for embedded data."""

    commit: str | None
    dirty: bool | None
    code: str
    versions: dict[str, str]
    host: str
    started: str
    finished: str
    data: str | None = None


class Payload(Record):
    """What a finished run leaves, without labels."""

    metrics: Metrics
    val: Score
    curve: list[Point]
    teacher: TeacherRecord | None
    cost: Cost
    provenance: Provenance


class Result(Payload):
    """One result file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_: Literal[1] = Field(alias="schema")
    key: str
    run: Labelled

    @functools.cached_property
    def cell(self) -> Cell:
        """The place that the labels name."""
        run = self.run
        return Cell(run.protocol.name, run.family, run.size, run.arm, run.seed)


@dataclass(frozen=True)
class Rejected:
    """A file that is no valid result, and why, in one line."""

    path: Path
    reason: str


def read_result(path: Path) -> Result | Rejected:
    """A result file, or why it is none: no file of at most 10 MB, not JSON, truncated, another schema, or a key that is not
    its run's."""
    try:
        text = read_bytes(path)
        result = Result.model_validate_json(text, strict=True)
    except OSError as error:
        return Rejected(path, f"not readable: {error.strerror}")
    except ValidationError as error:
        return Rejected(path, _why_invalid(text, error))
    if result.run.run.key != result.key:
        return Rejected(path, f"its key {result.key} is not that of its run, {result.run.run.key}")
    if not path.as_posix().endswith(result.cell.path):
        return Rejected(path, f"its labels belong to {result.cell.path}")
    return result


def _why_invalid(text: bytes, error: ValidationError) -> str:
    try:
        content = parsed(text)
    except ValueError as wrong:
        return f"not JSON: {str(wrong)[:MOST_SHOWN]}"
    if not isinstance(content, dict) or content.get("schema") != 1:
        schema = content.get("schema", "none") if isinstance(content, dict) else "none"
        return f"schema {schema if isinstance(schema, int) else quoted(schema)}, not 1"
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))[:MOST_SHOWN]}: {first['msg']}"


def read_results(folder: Path) -> tuple[list[Result], list[Rejected]]:
    """Every result below `folder`, by path, and what was left out."""
    with uncollected():
        found = [read_result(path) for path in sorted(folder.glob("*/*/*/*.json"))]
    return [r for r in found if isinstance(r, Result)], [r for r in found if isinstance(r, Rejected)]


@contextmanager
def uncollected() -> Iterator[None]:
    """Within, Python searches for no garbage: of 10,000 results it would take as long again as reading them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def utc_now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Results:
    """A results folder: where cells lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: Cell) -> Path:
        """The file of a cell."""
        return self.folder / cell.path

    def get(self, cell: Cell) -> Result | Rejected | None:
        """What the cell holds; None when there is no file."""
        path = self.path(cell)
        return read_result(path) if os.path.lexists(path) else None

    def put(self, cell: Cell, run: Run, payload: dict[str, Any], superseded: Path) -> None:
        """Write a finished run's payload for one cell; another run's file in its place is moved below `superseded`."""
        old = self.get(cell)
        if isinstance(old, Result) and old.key == run.key:
            return
        path = self.path(cell)
        if old is not None:
            keep = superseded / f"{cell.path}.{getattr(old, 'key', 'invalid')}"
            keep.parent.mkdir(parents=True, exist_ok=True)
            _keep(path, keep)
        write_json(path, labelled(cell, run, payload), durable=True)
        sweep(path.parent, path.name)


def _keep(path: Path, aside: Path) -> None:
    """Copy a file that is about to be replaced; what is no file (or a link to one that is gone) is moved."""
    if stat.S_ISREG(os.lstat(path).st_mode):
        with replacing(aside) as file, path.open("rb") as old:
            shutil.copyfileobj(old, file)
    else:
        shutil.move(path, aside)


def labelled(cell: Cell, run: Run, payload: dict[str, Any]) -> dict[str, Any]:
    """The result file of a cell. Raises pydantic's ValidationError for a payload that is not valid."""
    fields = run.model_dump(mode="json")
    labels = {"family": cell.family, "size": cell.size, "arm": cell.arm, "seed": cell.seed}
    record = fields | labels | {"protocol": fields["protocol"] | {"name": cell.protocol}}
    result = Result.model_validate({"schema": 1, "key": run.key, "run": record, **payload})
    return result.model_dump(mode="json", by_alias=True)


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


def provenance(started: str, finished: str, data: str | None = None) -> dict[str, Any]:
    """The record of what makes a number now."""
    packages = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow")
    return {
        **code_version(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": started,
        "finished": finished,
    } | ({} if data is None else {"data": data})


@functools.lru_cache(maxsize=1)
def code_version() -> dict[str, Any]:
    """commit, dirty, and a digest of the code itself, which also holds outside a git checkout. Read once a process: a
    run is made by the code that was loaded. A frozen copy has commit and dirty from where it was taken."""
    copied = read_json(ROOT / FROZEN)
    if copied is not None:
        return copied | {"code": _code_digest(ROOT)}
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", *CODE)
    return {"commit": commit, "dirty": None if changes is None else bool(changes), "code": _code_digest(ROOT)}


def frozen(folder: Path) -> Path:
    """A copy of the code that this process runs, below `folder` and named by what it is: made once, never changed. One that
    was changed or damaged all the same is set aside, with a line on stderr, and made anew.

    Raises UserError where the code was edited since the process began: which of both was meant, nobody knows.
    """
    version = code_version()
    name = hashlib.sha256(json.dumps(version, sort_keys=True).encode()).hexdigest()[:16]
    if (folder / name).exists() and not _is_copy(folder / name, version):
        aside = folder / f"{name}.changed-{time.time_ns()}"
        (folder / name).rename(aside)
        print(f"bench: {folder / name} is not the code that it was copied from: now {aside.name}, made anew", file=sys.stderr)
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".copying-", dir=folder) as temporary:
            made = Path(temporary) / name
            for path in _code_files(ROOT):
                (made / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, made / path.relative_to(ROOT))
            if _code_digest(made) != version["code"]:
                raise UserError("the code was edited while this command ran; type it again")
            write_json(made / FROZEN, version)
            with suppress(OSError):  # somebody else has just put it there
                made.rename(folder / name)
    return folder / name


def _is_copy(copy: Path, version: dict[str, Any]) -> bool:
    try:
        return read_json(copy / FROZEN) == version and _code_digest(copy) == version["code"]
    except OSError:
        return False


def _code_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _code_files(root):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _code_files(root: Path) -> Iterator[Path]:
    for folder in CODE:
        yield from sorted(path for path in (root / folder).rglob("*") if path.suffix in (".py", ".yaml"))


def _git(*args: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
