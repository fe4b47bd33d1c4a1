"""The teachers and arms of a request: `all`, and the `*` in a study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import families
from benchmark.spec.arm import STAR, STARRED, VARIANTS
from benchmark.spec.definitions import geometry_of
from benchmark.spec.protocol import Protocol
from benchmark.spec.study import Study, Teachers
from families.spec import UnknownName, UserError, quoted

ALL = Teachers()


@dataclass(frozen=True)
class Choice:
    """A teacher for which `*` is filled in; `before` is the text right before it, as in `only-*`."""

    protocol: Protocol
    family: str
    size: str
    depth: int
    before: str


def spelt_out(protocol: Protocol, study: Study, teachers: Iterable[tuple[str, str]]) -> Study:
    """The study with every arm that one of these teachers, (family, size), can have."""
    arms = dict.fromkeys(text for arm in study.arms for each in teachers for text in filled(protocol, arm, *each))
    return study.model_copy(update={"arms": tuple(arms) or study.arms})


def filled(protocol: Protocol, text: str, family: str, size: str) -> list[str]:
    """The text of an arm with each value that `*` stands for; one value throughout the text."""
    star = STAR.search(text)
    if star is None:
        return [text]
    key, before = star.groups()
    if key not in VARIANTS or (values := VARIANTS[key].star) is None:
        raise UserError(f"arm {quoted(text)}: * stands for what a teacher has of {', '.join(STARRED)}")
    depth = geometry_of(protocol, families.spec(family).teacher(size)).depth
    choice = Choice(protocol, family, size, depth, before or "")
    texts = [text.replace(star.group(), star.group()[:-1] + value) for value in values(choice)]
    return [one for each in texts for one in filled(protocol, each, family, size)]


def teachers_of(names: str, sizes: str | None, chosen: Teachers = ALL) -> list[tuple[str, str]]:
    """The (family, size) pairs of a request.

    Args:
        names: as in `deit3,dino`, or `all`.
        sizes: as in `base,large`; None: all. Alternative checkpoints count for named families only.
        chosen: the teachers that `all` means: those that a study is for.

    Raises UnknownName for an unknown family, or a size that a named family lacks.
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
