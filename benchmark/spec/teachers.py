"""The teachers and arms of a request: sets of families, and the `*` in a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import families
from benchmark.spec.architectures import geometry_of
from benchmark.spec.arm import STAR, STARRED, VARIANTS, WORDS
from benchmark.spec.protocol import Protocol
from benchmark.spec.study import Study, Teachers
from families.spec import UnknownName, UserError, quoted

ALL, PAPERS = "all", "papers"  # sets of families: every one; those of Li et al. 2024 and Qin et al. 2026
EVERY = Teachers()
LICENCES = ("commercial",)  # uses that teachers can be chosen for


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
    if key not in STARRED or (values := VARIANTS[WORDS[key]].star) is None:
        raise UserError(f"arm {quoted(text)}: * stands for what a teacher has of {', '.join(STARRED)}")
    depth = geometry_of(protocol, families.spec(family).teacher(size)).depth
    choice = Choice(protocol, family, size, depth, before or "")
    texts = [text.replace(star.group(), star.group()[:-1] + value) for value in values(choice)]
    return [one for each in texts for one in filled(protocol, each, family, size)]


def teachers_of(names: str, sizes: str | None, chosen: Teachers = EVERY) -> list[tuple[str, str]]:
    """The (family, size) pairs of a request.

    Args:
        names: families and sets of them, as in `deit3,dino` or `papers`; `all`: every family. Of a
            set, those that `chosen` is for; if it names its families, any set means these.
        sizes: as in `base,large`; None: all. Alternative checkpoints count for named families only.
        chosen: the teachers that a study is for.

    Raises UnknownName for an unknown family, or a size that a named family lacks.
    """
    for word in chosen.families or ():
        families.spec(word)
    if isinstance(chosen.native, str):
        native = dict.fromkeys(component.name for name in families.names() for component in families.spec(name).native)
        if chosen.native not in native:
            raise UnknownName("native component", chosen.native, native)
    wanted = None if sizes is None else list(dict.fromkeys(word.strip() for word in sizes.split(",")))
    pairs = dict[tuple[str, str], None]()
    for word in (word.strip() for word in names.split(",")):
        members = _members(word, chosen)
        if members is None:
            pairs |= dict.fromkeys((word, size) for size in _sizes_of(word, wanted))
            continue
        known = dict.fromkeys(size for name in members for size in families.spec(name).sizes)
        for size in wanted or ():
            if size not in known:
                raise UnknownName("size", size, known)
        pairs |= dict.fromkeys(
            (name, size) for name in members for size in wanted or families.spec(name).sizes if size in families.spec(name).sizes
        )
    return list(pairs)


def licensed(teachers: Sequence[tuple[str, str]], licence: str | None) -> list[tuple[str, str]]:
    """The teachers whose weights a licence leaves free for a use: `commercial` leaves out those that
    restrict it (Teacher.is_restricted); None: all.

    Raises UnknownName for another use, UserError if no teacher is left.
    """
    if licence is None:
        return list(teachers)
    if licence not in LICENCES:
        raise UnknownName("use of a licence", licence, LICENCES)
    found = [(family, size) for family, size in teachers if not families.spec(family).teacher(size).is_restricted]
    if teachers and not found:
        raise UserError(f"--licence {licence}: the licence of each of these teachers restricts its use")
    return found


def _members(word: str, chosen: Teachers) -> list[str] | None:
    """The families of a set that a study is for; None for a word that names no set."""
    members = families.names() if word == ALL else families.members(word)
    if not members:
        return None
    return chosen.chosen(families.names() if chosen.families is not None else members, families.spec)


def _sizes_of(family: str, wanted: list[str] | None) -> list[str]:
    """The sizes, or labels of alternatives, that are wanted of a named family."""
    spec = families.spec(family)
    for size in wanted or ():
        if size not in spec.labels:
            raise UnknownName(f"size of {family}", size, spec.labels)
    return wanted or list(spec.sizes)
