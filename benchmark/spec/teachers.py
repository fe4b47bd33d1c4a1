"""Which teachers and arms a request means: `all`, and the `*` of a study."""

from __future__ import annotations

import re
from collections.abc import Iterable

import families
from benchmark.spec.arm import STAR
from benchmark.spec.definitions import geometry_of
from benchmark.spec.protocol import Protocol
from benchmark.spec.study import Study, Teachers
from families.spec import UnknownName, UserError

ALL = Teachers()


QUARTERS = 4  # first and last blocks that are transferred, where a study leaves open how many


def spelt_out(protocol: Protocol, study: Study, teachers: Iterable[tuple[str, str]]) -> Study:
    """A study whose arms are all those that one of these teachers, (family, size), can have."""
    arms = dict.fromkeys(text for arm in study.arms for each in teachers for text in filled(protocol, arm, *each))
    return study.model_copy(update={"arms": tuple(arms) or study.arms})


def filled(protocol: Protocol, text: str, family: str, size: str) -> list[str]:
    """An arm, or a text that names several, with each value that this teacher has for its `*`, the same one throughout."""
    star = STAR.search(text)
    if star is None:
        return [text]
    texts = [text.replace(star.group(), star.group()[:-1] + value) for value in _values(protocol, star, family, size)]
    return [one for each in texts for one in filled(protocol, each, family, size)]


def _values(protocol: Protocol, star: re.Match[str], family: str, size: str) -> list[str]:
    key, before = star.groups()
    spec = families.spec(family)
    if key == "blocks":
        depth = geometry_of(protocol.scale, spec.teacher(size)).depth
        return [str(k) for k in (range(depth) if before == "only-" else _quarters(depth))]
    if key in ("native", "without"):
        return [component.name for component in spec.native]
    if key == "of":
        return [name for name in families.names() if name != family and families.spec(name).native and _starts(name, size)]
    if key == "data":
        return list(protocol.datasets)
    return list(protocol.teacher.others) if protocol.teacher else []


def _quarters(depth: int) -> list[int]:
    return sorted({max(1, depth * part // QUARTERS) for part in range(1, QUARTERS)})


def _starts(family: str, size: str) -> bool:
    try:
        families.spec(family).components(size)
    except UserError:
        return False
    return True


def teachers_of(names: str, sizes: str | None, chosen: Teachers = ALL) -> list[tuple[str, str]]:
    """(family, size) pairs of a request: `names` as `deit3,dino`, or `all` that a study is for (`chosen`), `sizes` as in
    `base,large` or None for all. Families that are named may be asked for alternatives too.

    Raises UnknownName for a family that is none, or a size that a named family has not.
    """
    for word in chosen.families or ():
        families.spec(word)
    if isinstance(chosen.native, str):
        native = dict.fromkeys(component.name for name in families.names() for component in families.spec(name).native)
        if chosen.native not in native:
            raise UnknownName("native component", chosen.native, native)
    listed = chosen.chosen(families.names(), families.spec) if names == "all" else [word.strip() for word in names.split(",")]
    wanted = None if sizes is None else [word.strip() for word in sizes.split(",")]
    known = dict.fromkeys(size for name in listed for size in families.spec(name).sizes)
    for size in wanted or ():
        if names == "all" and size not in known:
            raise UnknownName("size", size, known)
    pairs = []
    for name in dict.fromkeys(listed):
        spec = families.spec(name)
        for size in dict.fromkeys(wanted or spec.sizes):
            if size in (spec.sizes if names == "all" else spec.labels):
                pairs.append((name, size))
            elif names != "all":
                raise UnknownName(f"size of {name}", size, spec.labels)
    return pairs
