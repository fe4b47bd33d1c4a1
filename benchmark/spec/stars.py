"""What `*` in an arm of a study stands for, for each teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import families
from families.spec import UserError

if TYPE_CHECKING:
    from benchmark.spec.teachers import Choice

QUARTERS = 4


def star_blocks(choice: Choice) -> list[str]:
    """Of `first-*` and `last-*`: quarters of the depth; of `only-*`: each block."""
    if choice.before == "only-":
        return [str(block) for block in range(choice.depth)]
    return [str(k) for k in sorted({max(1, choice.depth * part // QUARTERS) for part in range(1, QUARTERS)})]


def star_native(choice: Choice) -> list[str]:
    """The native components of the teacher, one by one."""
    return list(families.spec(choice.family).components(choice.size))


def star_of(choice: Choice) -> list[str]:
    """The papers' other families with native components that a student of this size can have."""
    return [name for name in families.members("papers") if name != choice.family and _gives(name, choice.size)]


def _gives(family: str, size: str) -> bool:
    try:
        return bool(families.spec(family).native and families.spec(family).components(size))
    except UserError:  # no components that start at this size
        return False


def star_task(choice: Choice) -> list[str]:
    """The protocol's tasks."""
    return list(choice.protocol.tasks)


def star_recipe(choice: Choice) -> list[str]:
    """The protocol's other ways to pre-train its teachers."""
    return list(choice.protocol.teacher.others) if choice.protocol.teacher else []


def star_student(choice: Choice) -> list[str]:
    """The family's other sizes that the protocol has, on the teacher's grid."""
    spec, scale = families.spec(choice.family), choice.protocol.scale
    own = spec.teacher(choice.size)
    if scale is not None:
        return [size for size in spec.sizes if size != own.size and size in scale.sizes]
    alike = [each for each in spec.teachers if (each.patch_size, each.img_size) == (own.patch_size, own.img_size)]
    return [each.size for each in alike if each.size != own.size]
