"""Merge results folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.storage.files import replacing, write_json, write_text
from benchmark.storage.result_file import Rejected, Result, written
from benchmark.storage.results import merged_evaluations, read_results

PUBLISHED = "published.yaml"  # the papers' figures beside results


@dataclass
class Merged:
    """Results of several folders by cell.

    Attributes:
        results: by the path of their cell; of a contradiction, that of the first folder.
        sources: the file that each is, unless evaluations of another one were added.
        counts: results by folder.
        contradictions: a line for each cell with two outcomes, or two runs.
        rejected: files that are no valid results.
    """

    results: dict[str, Result] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    counts: dict[Path, int] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def merge(folders: Sequence[Path]) -> Merged:
    """The results of these folders. Two results of one run with equal numbers are one, with the
    evaluations of both, the newer where both have one. Other pairs in one cell are contradictions,
    and so are two outcomes of one run in two cells, which are both kept."""
    merged, first, of_run = Merged(), dict[str, Path](), dict[str, str]()  # by path of the cell; its path, by key
    for folder in folders:
        results, rejected = read_results(folder)
        merged.counts[folder] = len(results)
        merged.rejected += rejected
        for result in results:
            path = result.cell.path
            old = merged.results.get(path)
            if old is None:
                merged.results[path], first[path] = result, folder
                merged.sources[path] = folder / path
                same = of_run.setdefault(result.key, path)
                other = merged.results[same]
                if differing_parts(other, result):
                    told = f"one run, two outcomes, {outcome(other)} ({first[same]}/{same}) and {outcome(result)} ({folder})"
                    merged.contradictions.append(f"{path}: {told}; both are kept")
            elif old.key != result.key:
                told = f"two runs, {old.key} ({first[path]}) and {result.key} ({folder})"
                merged.contradictions.append(f"{path}: {told}; the first is kept")
            elif parts := differing_parts(old, result):
                told = f"one run, two outcomes, {outcome(old)} ({first[path]}) and {outcome(result)} ({folder})"
                told += f", other {', '.join(parts)}"
                merged.contradictions.append(f"{path}: {told}; the first is kept")
            else:
                evaluations = merged_evaluations((old, result))
                if evaluations != old.evaluations:
                    merged.results[path] = old.model_copy(update={"evaluations": evaluations})
                    merged.sources.pop(path, None)
    return merged


def differing_parts(one: Result, other: Result) -> list[str]:
    """What has other numbers in two results of a run: of metrics, val and curve, and of the
    evaluations that both have on equal sets and beside equal models."""
    found = [name for name in ("metrics", "val", "curve") if getattr(one, name) != getattr(other, name)]
    for name in sorted(one.evaluations.keys() & other.evaluations.keys()):
        mine, theirs = (each.evaluations[name].model_dump(exclude={"date", "code", "data"}) for each in (one, other))
        if mine != theirs and (mine["on"], mine["beside"]) == (theirs["on"], theirs["beside"]):
            found.append(name)
    return found


def outcome(result: Result) -> str:
    """A result's number on test, as in "80.12"."""
    return f"{result.metrics.value:.4f}".rstrip("0").rstrip(".")


def write_merged(merged: Merged, folder: Path) -> None:
    """Write the merged results below a folder, files that are as they were byte for byte, and the
    published figures of the first folder that has some."""
    published = [each / PUBLISHED for each in merged.counts if (each / PUBLISHED).is_file()]
    if published:
        write_text(folder / PUBLISHED, published[0].read_text(encoding="utf-8"))
    for path, result in merged.results.items():
        target = folder / path
        if path not in merged.sources:
            write_json(target, written(result), durable=True)
            continue
        content = merged.sources[path].read_bytes()
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file:
            file.write(content)
