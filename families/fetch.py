"""Weights from the network to a weights folder: each file once, verified, with a record of where it came from.

A file that the user put there is left as it is. An authors' file that was cut off goes on where it was, unless it changed
meanwhile; the hub's client does the same for the hub's files, within one call.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from families.spec import Teacher
from families.weights import RECORD, WeightsError, at_sight, file_digest, find_weights, one_line, read_record, source_of

Progress = Callable[[int, int | None], None]
TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 20
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # timm's order


def silent(done: int, total: int | None) -> None:
    """A progress that nobody sees."""


def fetch(teacher: Teacher, name: str, folder: Path, progress: Progress = silent) -> Path:
    """The teacher's file in a weights folder, downloaded to `<folder>/<name>/` unless it is there; `name` is `<family>-<size>`.

    `progress` is called with the bytes there are and their total (None where the server does not tell); for the hub, whose
    client shows a bar of its own, only at the beginning and the end. A file is there if it is the one that was fetched
    (same source, revision and sha256) or if nothing was recorded of it, so that it is the user's.
    Raises WeightsError: no network, not found, no permission, not the pinned file, a web page, no room.
    """
    there = find_weights(folder, *name.split("-", 1))
    if there is not None and _is_good(teacher, there):
        return there
    target = folder / name
    get = _from_hub if teacher.official is None else _from_authors
    try:
        target.mkdir(parents=True, exist_ok=True)
        path = get(teacher, name, target, progress)
    except OSError as error:
        raise WeightsError(f"{target}: {one_line(error)}; make room or choose another weights folder") from error
    if there not in (None, path):
        there.unlink(missing_ok=True)  # type: ignore[union-attr]
    return path


def _is_good(teacher: Teacher, path: Path) -> bool:
    if not (path.parent / RECORD).exists():
        return True  # the user's own
    record = read_record(path)
    pinned = teacher.official.sha256 if teacher.official is not None else None
    return (
        record.get("source") == source_of(teacher)
        and teacher.revision in (None, record.get("revision"))
        and pinned in (None, record["sha256"])
    )


def _write_record(path: Path, teacher: Teacher, revision: str | None, digest: str, size: int) -> None:
    record = {
        "source": source_of(teacher),
        "revision": revision,
        "sha256": digest,
        "bytes": size,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (path.parent / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _no_network(source: str, name: str, target: Path, reason: object) -> WeightsError:
    family, _, size = name.partition("-")
    command = f"bench fetch --family {family} --sizes {size} --weights DIR"
    return WeightsError(f"{source}: no network ({reason}); run `{command}` where there is one, then copy DIR/{name} to {target}")


def _require(digest: str, expected: str | None, path: Path, source: str) -> None:
    """Delete the file and raise WeightsError if its sha256 is not the expected one."""
    if expected not in (None, digest):
        path.unlink()
        raise WeightsError(f"{source}: sha256 is {digest}, not {expected}; it was deleted: fetch again, or ask its authors")


# ---- the authors' servers


def _from_authors(teacher: Teacher, name: str, target: Path, progress: Progress) -> Path:
    official = teacher.official
    assert official is not None
    path = target / official.url.rsplit("/", 1)[-1]
    part = path.with_name(f"{path.name}.part")
    _download(official.url, name, part, progress)
    what = at_sight(part)
    if what is not None:
        part.unlink()
        raise WeightsError(f"{official.url}: {what}; a file downloaded by hand goes to {path}")
    digest = file_digest(part)
    _require(digest, official.sha256, part, official.url)
    _write_record(path, teacher, None, digest, part.stat().st_size)
    os.replace(part, path)
    return path


def _download(url: str, name: str, part: Path, progress: Progress) -> None:
    """Bring `part` to the length that the server tells, from where it is if the server still has the same file."""
    tag = part.with_name(f"{part.name.removesuffix('.part')}.etag.part")
    with _open(url, name, part, tag) as response:
        resumed = response.status == 206
        done = part.stat().st_size if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        tag.write_text(_validator(response.headers), encoding="utf-8")
        with part.open("ab" if resumed else "wb") as file:
            for chunk in _chunks(response, url):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise WeightsError(f"{url}: connection lost after {done} of {total} bytes; the same command goes on from there")
    tag.unlink()


def _open(url: str, name: str, part: Path, tag: Path) -> Any:
    request = Request(url, headers=_continuation(part, tag))
    try:
        return urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # nothing after these bytes: the file there is another one
            part.unlink()
            return _open(url, name, part, tag)
        path = part.with_suffix("")
        raise WeightsError(f"{url}: HTTP {error.code} {error.reason}; a file downloaded by hand goes to {path}") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else one_line(error)
        raise _no_network(url, name, part.parent, reason) from error


def _continuation(part: Path, tag: Path) -> dict[str, str]:
    """Ask for the rest of the file, provided that it is still the one whose validator was written down."""
    headers = {"User-Agent": "attention-transfer-bench"}
    validator = tag.read_text(encoding="utf-8") if part.exists() and tag.exists() else ""
    return headers | {"Range": f"bytes={part.stat().st_size}-", "If-Range": validator} if validator else headers


def _validator(headers: Any) -> str:
    """What If-Range takes: a strong ETag, else the date of the last change, else nothing."""
    etag = headers.get("ETag", "")
    return str(etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", ""))


def _chunks(response: Any, url: str) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise WeightsError(f"{url}: connection lost ({one_line(error)}); the same command goes on from there") from error


# ---- the Hugging Face hub


def _from_hub(teacher: Teacher, name: str, target: Path, progress: Progress) -> Path:
    repo = source_of(teacher).removeprefix("hub:")
    try:
        path, metadata = _download_from_hub(repo, teacher.revision, target, progress)
    except Exception as error:
        raise _explained(error, repo, name, target) from error
    digest = file_digest(path)
    stated = str(metadata.etag)
    _require(digest, stated if re.fullmatch("[0-9a-f]{64}", stated) else None, path, f"hub:{repo}")
    _write_record(path, teacher, metadata.commit_hash, digest, path.stat().st_size)
    progress(path.stat().st_size, metadata.size)
    return path


def _download_from_hub(repo: str, revision: str | None, target: Path, progress: Progress) -> tuple[Path, Any]:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for file in _HUB_FILES:
        try:
            metadata = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
        except EntryNotFoundError:
            continue
        progress(0, metadata.size)
        again = (target / file).exists()  # not good, or it would not be fetched
        got = hf_hub_download(repo, file, revision=metadata.commit_hash, local_dir=target, force_download=again)
        return Path(got), metadata
    raise WeightsError(f"hub:{repo}: none of {', '.join(_HUB_FILES)} there; a file downloaded by hand goes into {target}")


def _explained(error: Exception, repo: str, name: str, target: Path) -> Exception:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            page = f"https://huggingface.co/{repo}"
            return WeightsError(
                f"hub:{repo}: gated (HTTP {status}); accept its licence at {page}, then `hf auth login` or HF_TOKEN"
            )
        return WeightsError(f"hub:{repo}: HTTP {status}; a file downloaded by hand goes into {target}")
    disk = isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)
    if disk or isinstance(error, WeightsError):
        return error
    return _no_network(f"hub:{repo}", name, target, one_line(error))
