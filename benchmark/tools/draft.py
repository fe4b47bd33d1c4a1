"""The draft of a family file for a ViT of timm: what timm does not tell is marked TODO."""

from __future__ import annotations

import re

import families
from families.spec import IMAGENET_MEAN, IMAGENET_STD, STANDARD, TIMM, Component, Family

START = "TODO the start value in the authors' training code, with its place; the one here is timm's"


def draft(name: str) -> str:
    """A family file for `timm:NAME`. Raises UserError for a model that is unknown or no plain ViT."""
    spec = families.spec(name)
    body = [
        f"title={spec.title!r},",
        'paper="TODO authors and year, arXiv number",',
        f'recipe="TODO how and on what it was pre-trained; timm\'s tag: {spec.recipe}",',
        f"teachers=({_teacher(spec)},),",
        *(["native=(", *(f"    {line}" for each in spec.native for line in _component(each)), "),"] if spec.native else []),
        *([f"host={spec.host!r},"] if spec.native and spec.host != STANDARD else []),
        *([f"mean={spec.mean},", f"std={spec.std},"] if (spec.mean, spec.std) != (IMAGENET_MEAN, IMAGENET_STD) else []),
    ]
    text = "\n".join(["FAMILY = Family(", *(f"    {line}" for line in body), ")  # fmt: skip"])
    used = sorted(word for word in set(re.findall(r"\b[A-Z][A-Za-z]+(?=\()", text)) if word[0].isupper())
    native = ", ".join(each.name for each in spec.native) or "nothing"
    head = f'"""{name.removeprefix(TIMM)} (TODO authors, year, arXiv number).\n\nNative: {native}. Trap: TODO.\n"""'
    return f"{head}\n\nfrom families.spec import {', '.join(used)}\n\n{text}\n"


def _teacher(spec: Family) -> str:
    (each,) = spec.teachers
    numbers = ", ".join(map(str, (each.embed_dim, each.depth, each.num_heads, each.patch_size)))
    pixels = "" if each.img_size == 224 else f", img_size={each.img_size}, native_size={each.native_size}"
    return f"Teacher({each.size!r}, {each.model!r}, {numbers}, {each.licence!r}{pixels})"


def _component(each: Component) -> list[str]:
    source = START if each.initial else "TODO its place in the authors' code"
    lines = [f'{each.name!r}, "TODO what it does", "{source}",', f"args={dict(each.args)!r},"]
    lines += [f"initial={dict(each.initial)!r},"] if each.initial else []
    lines += ["inert_under_copy=True,"] if each.inert_under_copy else []
    return ["Component(", *(f"    {line}" for line in lines), "),"]
