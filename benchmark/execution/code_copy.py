"""A copy of the code for jobs, which later edits do not reach."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmark.storage.files import read_json, write_json
from benchmark.storage.provenance import FROZEN, ROOT, code_digest, code_files, code_version
from families.spec import UserError


def frozen(folder: Path) -> Path:
    """A copy of this process's code below `folder`, named by its digest. A copy that was changed
    since is set aside, with a line on stderr, and made anew.

    Raises UserError where the code was edited since the process began.
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
            for path in code_files(ROOT):
                (made / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, made / path.relative_to(ROOT))
            if code_digest(made) != version["code"]:
                raise UserError("the code was edited while this command ran; type it again")
            write_json(made / FROZEN, version)
            with suppress(OSError):  # another process has just made it
                made.rename(folder / name)
    return folder / name


def _is_copy(copy: Path, version: dict[str, Any]) -> bool:
    try:
        return read_json(copy / FROZEN) == version and code_digest(copy) == version["code"]
    except OSError:
        return False
