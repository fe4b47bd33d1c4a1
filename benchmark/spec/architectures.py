"""The models that a protocol gives to students and teachers, as records of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from benchmark.spec.arm import Start
from benchmark.spec.protocol import Protocol
from benchmark.spec.run import Architecture, Geometry
from families.spec import (
    STANDARD,
    Component,
    Constant,
    Family,
    Host,
    Normal,
    Partial,
    Ref,
    RopeFrequencies,
    SinCos,
    Teacher,
    UnknownName,
    UserError,
)


def architecture(protocol: Protocol, spec: Family, size: str, components: dict[str, Component]) -> Architecture:
    """A model of a teacher's geometry, at the protocol's scale if it has one, with components in the
    family's host. Raises UnknownName for a size that the protocol lacks.
    """
    return hosted(geometry_of(protocol, spec.teacher(size)), components, spec.host)


def hosted(geometry: Geometry, components: dict[str, Component], host: Host, start: Start = "usual") -> Architecture:
    """A model with these components, in `host` if there are any."""
    described = {name: {"args": _plain(c.args), "initial": _plain(c.initial)} for name, c in components.items()}
    host = host if components else STANDARD
    off = _plain(host.standard)
    return Architecture(geometry=geometry, components=described, host=host.model, switched_off=off, start=start)


def geometry_of(protocol: Protocol, teacher: Teacher) -> Geometry:
    """A teacher's geometry, at a protocol's scale or input size if it has one. Raises UnknownName,
    or UserError for an input size that is no multiple of the teacher's patch."""
    scale = protocol.scale
    if scale is None:
        return Geometry(**teacher.at(protocol.img_size).geometry)
    if teacher.size not in scale.sizes:
        raise UnknownName("size of this protocol", teacher.size, scale.sizes)
    scaled, wanted = scale.sizes[teacher.size], round(teacher.embed_dim / teacher.num_heads * scale.head_dim)
    if wanted < 1:
        raise UserError(f"scale.head_dim {scale.head_dim}: leaves no channel of a head of {teacher.model}")
    fitting = (size for size in range(wanted, 0, -1) if scaled.embed_dim % size == 0 and (size == wanted or size % 4 == 0))
    head_dim = next(fitting, None)  # the size that is wanted, else a smaller one that rotary embeddings can take
    if head_dim is None:
        raise UserError(f"scale.sizes.{teacher.size}: embed_dim {scaled.embed_dim} is not a multiple of head_dim {wanted}")
    heads = scaled.embed_dim // head_dim
    patch, img = scale.patch_size, scale.img_size
    return Geometry(img_size=img, patch_size=patch, embed_dim=scaled.embed_dim, depth=scaled.depth, num_heads=heads)


def _plain(values: Any) -> dict[str, Any]:
    return {key: _tagged(value) for key, value in values.items()}


def _tagged(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {type(value).__name__: asdict(value)}
    return [_tagged(each) for each in value] if isinstance(value, tuple) else value  # as JSON gives it back


def records_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """A component's arguments or initial values in an Architecture, as the records of family files."""
    return {key: _record(value) for key, value in values.items()}


def _record(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    ((kind, fields),) = value.items()
    return _RECORDS[kind](**fields)


_RECORDS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (Constant, Normal, Partial, Ref, RopeFrequencies, SinCos)
}
