"""Native components that are inert: Copy bypasses them in each block that it copies, and here it
copies all of the student's."""

from __future__ import annotations

from collections.abc import Iterable

import families
from benchmark.spec.arm import Arm
from benchmark.spec.definitions import components_of
from benchmark.spec.run import Run


def inert_by_name(arm: Arm, family: str, size: str, run: Run) -> dict[str, bool]:
    """The native components of an arm's student, each with whether it is inert; `run`: of the arm
    at any seed."""
    whole = run.transfer.copies and {*range(run.student.geometry.depth)} <= {*run.transfer.blocks}
    return {name: whole and component.inert_under_copy for name, component in components_of(arm, family, size).items()}


def inert(arm: Arm, family: str, size: str, run: Run) -> bool:
    """Whether an arm is Copy into a student with native components, all of which are inert."""
    found = inert_by_name(arm, family, size, run)
    return bool(found) and all(found.values())


def inert_components(family: str, size: str, copies: Iterable[tuple[Arm, Run]]) -> tuple[str, ...]:
    """A family's native components that are inert in each of these arms that has them, if one has."""
    found = [inert_by_name(arm, family, size, run) for arm, run in copies]
    names = [component.name for component in families.spec(family).native if component.inert_under_copy]
    known = {name: [each[name] for each in found if name in each] for name in names}
    return tuple(name for name, each in known.items() if each and all(each))
