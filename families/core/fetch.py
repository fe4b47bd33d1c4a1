"""Download weights into a folder: each file once, verified, with a record of its origin.

Files that the user put there are kept. An interrupted download resumes, in this process or another
one, unless the file has changed: on the authors' servers by the server's validator; on the hub,
whose bytes come from other servers, by the commit and etag that its client reports (the client
itself keeps no partial file). A web page is refused, and a file with another sha256 than the
authors' pinned one or the hub's; of a file without either, another than that of the first fetch.
Redirects from https to http are refused. The hub's token is sent to the hub alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from families.core.checkpoints import at_sight
from families.core.weights import file_digest, read_record, recorded, source_of
from families.core.weights_folder import RECORD, find_weights
from families.spec import Official, Teacher, WeightsError, one_line

Progress = Callable[[int, int | None], None]
TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 20
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # timm's order
_AGENT = "attention-transfer-bench"


@dataclass(frozen=True)
class _Source:
    """One file to download.

    Attributes:
        label: its name in messages, since a url may be signed.
        url: the address of its bytes, which may be signed and expire.
        file: its name in the weights folder.
        sha256: the digest it must have; None if unknown.
        revision: the hub's commit; None for an authors' file.
        size: bytes; None if only the url's server knows.
        version: commit and etag, which change when the file does; None if only the url's server
            knows.
        headers: for this url alone; redirects do not get them.
    """

    label: str
    url: str
    file: str
    sha256: str | None = None
    revision: str | None = None
    size: int | None = None
    version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def silent(done: int, total: int | None) -> None:
    """Show no progress."""


def fetch(teacher: Teacher, name: str, folder: Path, progress: Progress = silent) -> Path:
    """The teacher's file in a weights folder, downloaded to `<folder>/<name>/` if needed; `name` is
    `<family>-<size>`.

    `progress(done, total)` is called with bytes as they arrive; the total is None if unknown. A
    file without a record is the user's and is kept; a fetched one is kept if source, revision and
    sha256 still hold. Raises WeightsError: no network, connection lost, not found, no permission,
    not the pinned file, a web page, no room.
    """
    there = find_weights(folder, *name.split("-", 1))
    if there is not None and _is_good(teacher, there):
        return there
    target = folder / name
    try:
        target.mkdir(parents=True, exist_ok=True)
        source = _at_the_hub(teacher, target) if teacher.official is None else _at_the_authors(teacher.official)
        path = _bring(source, teacher, target, progress)
    except OSError as error:
        raise WeightsError(f"{target}: {one_line(error)}; make room or choose another weights folder") from error
    if there not in (None, path):
        there.unlink(missing_ok=True)  # type: ignore[union-attr]
    return path


def _is_good(teacher: Teacher, path: Path) -> bool:
    if not (path.parent / RECORD).exists():
        return True  # the user's
    record = read_record(path)
    if not record and path.name not in _names(teacher):
        return True  # the user's too, beside the record of a fetched file
    pinned = teacher.official.sha256 if teacher.official is not None else None
    return (
        record.get("source") == source_of(teacher)
        and teacher.revision in (None, record.get("revision"))
        and pinned in (None, record["sha256"])
    )


def _names(teacher: Teacher) -> tuple[str, ...]:
    """Possible names of the teacher's file at its source."""
    return _HUB_FILES if teacher.official is None else (_at_the_authors(teacher.official).file,)


def _bring(source: _Source, teacher: Teacher, target: Path, progress: Progress) -> Path:
    """Download and verify the file, and write its record. Raises WeightsError; a refused file is
    deleted."""
    path = target / source.file
    part = path.with_name(f"{path.name}.part")
    _download(source, part, progress)
    what = at_sight(part)
    if what is not None:
        part.unlink()
        raise WeightsError(f"{source.label}: {what}; {_by_hand(part)}")
    digest = file_digest(part)
    first = _first_digest(teacher, target)
    if (source.sha256 or first) not in (None, digest):
        part.unlink()
        remedy = "it was deleted: fetch again, or ask its authors"
        if source.sha256 is None:
            remedy = f"which was fetched first; to accept the new file, delete {target / RECORD}"
        raise WeightsError(f"{source.label}: sha256 is {digest}, not {source.sha256 or first}; {remedy}")
    record = {
        "source": source_of(teacher),
        "revision": source.revision,
        "sha256": digest,
        "bytes": part.stat().st_size,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write_record(target, record)
    os.replace(part, path)
    return path


def _first_digest(teacher: Teacher, target: Path) -> str | None:
    """The sha256 of an authors' file at its first fetch into the folder; None if there is no record."""
    record = recorded(target)
    return record["sha256"] if teacher.official is not None and record.get("source") == source_of(teacher) else None


def _write_record(target: Path, record: Mapping[str, Any]) -> None:
    """Write it whole or not at all."""
    part = target / f"{RECORD}.part"
    part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(part, target / RECORD)


def _no_network(label: str, target: Path, reason: object) -> WeightsError:
    family, _, size = target.name.partition("-")
    command = f"bench fetch --family {family} --sizes {size} --weights DIR"
    return WeightsError(
        f"{label}: no network ({reason}); run `{command}` where there is one, then copy DIR/{target.name} to {target}"
    )


def _by_hand(part: Path) -> str:
    return f"a file downloaded by hand goes to {part.with_suffix('')}"


def _download(source: _Source, part: Path, progress: Progress) -> None:
    """Complete `part`, resuming if its bytes are of the same file: `.etag.part` beside it names
    their version.

    Raises WeightsError: no network, HTTP error, connection lost.
    """
    tag = part.with_name(f"{part.name.removesuffix('.part')}.etag.part")
    with _open(source, part, tag) as response:
        resumed = response.status == 206
        done = part.stat().st_size if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None and length.isdecimal() else source.size
        with part.open("ab" if resumed else "wb") as file:  # emptied before the tag names another file
            tag.write_text(source.version or _validator(response.headers), encoding="utf-8")
            for chunk in _chunks(response, source.label):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise WeightsError(f"{source.label}: connection lost after {done} of {total} bytes; the same command goes on from there")
    tag.unlink()


class _Encrypted(HTTPRedirectHandler):
    """Follows redirects, but not from https to an unencrypted address, where the file could be
    changed on its way."""

    def __init__(self, label: str) -> None:
        self.label = label

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """The next request. Raises WeightsError for a redirect from https to anything else."""
        _refuse_plain(self.label, req.full_url, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_plain(label: str, url: str, target: str) -> None:
    """Raise WeightsError for a redirect from https to anything else."""
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
        address = target.partition("?")[0]  # the query may be signed
        raise WeightsError(f"{label}: sends on from https to {address[:200]}, which is not encrypted; get the file by hand")


def _open(source: _Source, part: Path, tag: Path) -> Any:
    request = Request(source.url, headers={"User-Agent": _AGENT, **_continuation(source, part, tag)})
    for name, value in source.headers.items():
        request.add_unredirected_header(name, value)
    try:
        return build_opener(_Encrypted(source.label)).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and part.exists():  # the server's file is shorter, so another one
            part.unlink()
            return _open(source, part, tag)
        raise WeightsError(f"{source.label}: HTTP {error.code} {str(error.reason)[:200]}; {_by_hand(part)}") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: redirected to no address
        reason = error.reason if isinstance(error, URLError) else one_line(error)
        raise _no_network(source.label, part.parent, reason) from error


def _continuation(source: _Source, part: Path, tag: Path) -> dict[str, str]:
    """Headers that ask for the rest of the file if its version is unchanged; none to start anew."""
    known = tag.read_text(encoding="utf-8", errors="replace") if part.exists() and tag.exists() else ""
    if not (known and known.isascii() and known.isprintable()) or source.version not in (None, known):
        return {}
    rest = {"Range": f"bytes={part.stat().st_size}-"}
    return rest if source.version else rest | {"If-Range": known}


def _validator(headers: Any) -> str:
    """The value of If-Range: a strong ETag, else the date of the last change, else an empty text."""
    etag = headers.get("ETag", "")
    return str(etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", ""))


def _chunks(response: Any, label: str) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise WeightsError(f"{label}: connection lost ({one_line(error)}); the same command goes on from there") from error


def _at_the_authors(official: Official) -> _Source:
    return _Source(official.url, official.url, official.url.rsplit("/", 1)[-1], official.sha256)


def _at_the_hub(teacher: Teacher, target: Path) -> _Source:
    """The teacher's file by the hub's metadata. Raises WeightsError: no network, gated, not found."""
    repo = source_of(teacher).removeprefix("hub:")
    for file in _HUB_FILES:
        metadata = _metadata(repo, file, teacher.revision, target)
        if metadata is not None:
            return _Source(
                label=f"hub:{repo}",
                url=metadata.location,
                file=file,
                sha256=metadata.etag if re.fullmatch("[0-9a-f]{64}", metadata.etag or "") else None,
                revision=metadata.commit_hash,
                size=metadata.size,
                version=f"{metadata.commit_hash}:{metadata.etag}" if metadata.commit_hash and metadata.etag else None,
                headers=_hub_headers(metadata.location),
            )
    raise WeightsError(f"hub:{repo}: none of {', '.join(_HUB_FILES)} there; a file downloaded by hand goes into {target}")


def _metadata(repo: str, file: str, revision: str | None, target: Path) -> Any | None:
    """A file's metadata by the hub's client; None if the hub has no such file.

    Raises WeightsError: no network, gated, HTTP error, a redirect from https to http.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    url = hf_hub_url(repo, file, revision=revision)
    try:
        metadata = get_hf_file_metadata(url)
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        status = error.response.status_code
        page = f"https://huggingface.co/{repo}"
        gated = f"gated (HTTP {status}); accept its licence at {page}, then `hf auth login` or HF_TOKEN"
        other = f"HTTP {status}; a file downloaded by hand goes into {target}"
        raise WeightsError(f"hub:{repo}: {gated if status in (401, 403) else other}") from error
    except Exception as error:  # depends on the client's HTTP library; or offline
        raise _no_network(f"hub:{repo}", target, one_line(error)) from error
    _refuse_plain(f"hub:{repo}", url, metadata.location)
    return metadata


def _hub_headers(url: str) -> dict[str, str]:
    """Headers with the user's token for an address at the hub; none for another host."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    return build_hf_headers() if urlsplit(url)[:2] == urlsplit(constants.ENDPOINT)[:2] else {}
