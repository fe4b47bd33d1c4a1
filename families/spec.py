"""What a family file is made of: frozen records, data only. Standard library only; nothing here
imports torch or timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
HEADS_INPUT = ("global_pool", "fc_norm", "use_fc_norm")  # timm's arguments
TIMM = "timm:"  # before the name of a model of timm that has no family file


@dataclass(frozen=True)
class Ref:
    """An importable object named as `module:attribute`, so that a family file need not import it."""

    path: str


@dataclass(frozen=True)
class Partial:
    """An importable class or function, as in Ref, with arguments given beforehand."""

    path: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Constant:
    """Every element starts at `value`."""

    value: float


@dataclass(frozen=True)
class Normal:
    """Elements are drawn from a normal distribution of mean 0 and this standard deviation."""

    std: float


@dataclass(frozen=True)
class SinCos:
    """A fixed (not trained) 2-D sine-cosine table; prefix rows are zero.

    `first` names the axis, "row" or "column", that the first half of the channels encodes: MoCo v3
    encodes rows first, MAE columns first, so that their tables are transposes of each other.
    """

    first: str


@dataclass(frozen=True)
class RopeFrequencies:
    """Learned frequencies of 2-D rotary embeddings, [2 axes, blocks, heads, head_dim / 2] (RoPE-mixed:
    Heo et al. 2024, arXiv 2403.13298): lengths base^(-4 i / head_dim), in one random direction for
    each head of a block and in the direction at a right angle to it."""

    base: float


Initial = Constant | Normal | SinCos | RopeFrequencies

# How authors resample position tables for another input size: families/core/positions.py.
Positions = Literal[
    "bicubic", "bicubic_offset", "bicubic_antialias", "bilinear", "bilinear_corners", "geometric_spline"
]  # fmt: skip


@dataclass(frozen=True)
class PerSize:
    """An initial value or an argument that depends on the model's size: size -> value.

    An alternative whose label is not listed has that of its size, the label up to `_`: `base_ft`
    starts as `base` does.
    """

    values: Mapping[str, Any]


@dataclass(frozen=True)
class Component:
    """One native component: a part of a teacher's architecture that the standard student lacks.

    Attributes:
        name: as users type it.
        description: what it does, in one line.
        source: where the initial value comes from (upstream's training code or paper).
        args: constructor arguments that switch it on, in the family's host model. Those of the
            head's input (`global_pool`, `fc_norm`, `use_fc_norm`) hold for the teacher too,
            whichever head a protocol wants.
        initial: start values by parameter-name pattern (timm's VisionTransformer names), from
            upstream's training code.
        inert_under_copy: Attention Copy bypasses it in copied blocks, so it cannot have an effect
            there.
        sizes: the sizes, or labels of alternatives, that have it; None: all.
    """

    name: str
    description: str
    source: str
    args: Mapping[str, Any] = field(default_factory=dict)
    initial: Mapping[str, Initial | PerSize] = field(default_factory=dict)
    inert_under_copy: bool = False
    sizes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Host:
    """The timm model that can hold a family's native components, and the arguments that switch all
    of them off.

    `model` is a timm name, or a class as `module:Class` where a timm name has a default that no
    argument switches off (`create_model` drops arguments that are None).
    """

    model: str
    standard: Mapping[str, Any] = field(default_factory=dict)


STANDARD = Host("vit_base_patch16_224")


@dataclass(frozen=True)
class Layout:
    """How an authors' checkpoint becomes a timm state dict.

    Attributes:
        containers: keys under one of which the state dict lies; the first that exists is taken.
        only: keep the keys with this prefix and strip it.
        strip: prefixes to strip where present, one after the other.
        drop: patterns of keys, after stripping, that belong to pre-training heads.
    """

    containers: tuple[str, ...]
    only: str = ""
    strip: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Official:
    """A checkpoint that timm does not host: the authors' file, its layout, and its sha256 where
    that is known."""

    url: str
    layout: Layout
    sha256: str | None = None


PERMISSIVE = ("Apache-2.0", "MIT")  # licences that ask for a notice alone


@dataclass(frozen=True)
class Teacher:
    """One pre-trained model of a family.

    Attributes:
        size: as users type it (small, base, large).
        model: timm's `name` or `name.tag`.
        embed_dim, depth, num_heads, patch_size, img_size: the geometry, which a student shares;
            pixels for the last two.
        licence: of the weights, upstream.
        native_size: pixels a side of the file's position table; timm's default for the model.
        args: further timm arguments the teacher needs.
        official: the authors' checkpoint where timm hosts none.
        revision: the commit of the hub repository to fetch, where one is pinned; without it the
            newest is fetched and its commit recorded.
    """

    size: str
    model: str
    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int
    licence: str
    img_size: int = 224
    native_size: int = 224
    args: Mapping[str, Any] = field(default_factory=dict)
    official: Official | None = None
    revision: str | None = None

    def at(self, img_size: int | None) -> Teacher:
        """The teacher at another input size, in pixels a side; None: at its own. Raises UserError
        for one that is no multiple of its patch."""
        if img_size is None:
            return self
        patch = self.patch_size
        if img_size < patch or img_size % patch:
            below = img_size - img_size % patch
            near = [str(size) for size in (below, below + patch) if size]
            reason = f"no multiple of {patch}, the patch size of {self.model}"
            raise UserError(f"img_size {img_size}: {reason}; the nearest: {' and '.join(near)}")
        return replace(self, img_size=img_size)

    @property
    def is_restricted(self) -> bool:
        """Whether its licence restricts use: no commercial use, research alone, or terms of its own."""
        return self.licence not in PERMISSIVE

    @property
    def geometry(self) -> dict[str, int]:
        """The timm arguments that teacher and student share."""
        return {
            "img_size": self.img_size,
            "patch_size": self.patch_size,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
        }


@dataclass(frozen=True)
class Family:
    """A family of teachers: who made them, how they were pre-trained, and what is native to their
    architecture.

    `alternatives` are further checkpoints under labels with a `_`, as `base_ft` or `large_p14`.
    They can be named wherever a size can; `sizes`, and so a request for all of them, leaves them
    out. `positions` names the authors' rule for position tables at another input size; the default
    is timm's, for those that tell none. `sets` are words that name this family together with
    others: `papers`, those of Li et al. 2024 and Qin et al. 2026. Boards show the `remark` under
    their results.
    """

    title: str
    paper: str
    recipe: str
    teachers: tuple[Teacher, ...]
    native: tuple[Component, ...] = ()
    host: Host = STANDARD
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    alternatives: tuple[Teacher, ...] = ()
    positions: Positions = "bicubic_antialias"
    sets: tuple[str, ...] = ()
    remark: str = ""

    @property
    def sizes(self) -> tuple[str, ...]:
        """The sizes the family has, in the file's order; without the alternatives'."""
        return tuple(teacher.size for teacher in self.teachers)

    @property
    def labels(self) -> tuple[str, ...]:
        """The sizes, then the alternatives' labels."""
        return self.sizes + tuple(teacher.size for teacher in self.alternatives)

    def teacher(self, size: str) -> Teacher:
        """The teacher of one size or alternative. Raises UnknownName for a size that the family lacks."""
        by_size = {teacher.size: teacher for teacher in (*self.teachers, *self.alternatives)}
        if size not in by_size:
            raise UnknownName(f"size of {self.title}", size, by_size)
        return by_size[size]

    def components(self, size: str, names: Any = None) -> dict[str, Component]:
        """The native components that a size has, of those called `names` (None: all), in the file's
        order; their initial values and arguments are those of this size.

        Raises UnknownName for a component that the family lacks, UserError for one that has no
        value for this size.
        """
        known = {component.name: component for component in self.native}
        wanted = known if names is None else list(names)
        for name in wanted:
            if name not in known:
                raise UnknownName(f"native component of {self.title}", name, known)
        listed = [component for name, component in known.items() if name in wanted]
        return {each.name: _at_size(each, size) for each in listed if each.sizes is None or _own(size, each.sizes)}


def _own(label: str, sizes: Any) -> str | None:
    """The label or its size, whichever is among `sizes` first; None if neither is."""
    return next((word for word in (label, label.partition("_")[0]) if word in sizes), None)


def _at_size(component: Component, size: str) -> Component:
    def given(value: Any) -> Any:
        if not isinstance(value, PerSize):
            return value
        own = _own(size, value.values)
        if own is None:
            plain = size.partition("_")[0]
            raise UserError(f"{component.name} is known to start at some value for {', '.join(value.values)}, not for {plain}")
        return value.values[own]

    args, initial = ({key: given(value) for key, value in each.items()} for each in (component.args, component.initial))
    return replace(component, args=args, initial=initial)


class UserError(Exception):
    """A mistake of the user's: shown as one line, exit code 2."""


class WeightsError(UserError):
    """Weights are missing, damaged or another model's; the message names the file or address."""


MOST_SHOWN = 80  # characters of what a user gave


def quoted(given: object, most: int = MOST_SHOWN) -> str:
    """What a user gave, in quotes and on one line; of a long text its beginning."""
    text = str(given)
    return repr(text if len(text) <= most else f"{text[:most]}...")


def one_line(told: object, most: int = 300) -> str:
    """An error, or what a program said, on one line of at most `most` characters; never empty."""
    nothing = type(told).__name__ if isinstance(told, BaseException) else "without a word"
    return " ".join(str(told).split())[:most] or nothing


class UnknownName(UserError):
    """A word that names nothing here; the message gives the nearest valid one and all that are valid."""

    def __init__(self, kind: str, word: object, valid: Any) -> None:
        names = [str(name) for name in valid]
        folded = {name.casefold(): name for name in reversed(names)}
        near = get_close_matches(str(word)[:MOST_SHOWN].casefold(), folded, n=1, cutoff=0.5)
        hint = f"did you mean {folded[near[0]]!r}? " if near else ""
        super().__init__(f"unknown {kind}: {quoted(word)}; {hint}valid: {', '.join(names) or 'none'}")
