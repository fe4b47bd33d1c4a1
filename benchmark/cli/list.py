"""`bench list`: families, teachers, studies and protocols."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import families
from benchmark.cli.support.common import DONE, make_console
from families.spec import UnknownName

LISTS = ("families", "teachers", "studies", "protocols")


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("list", help="families, teachers, studies, protocols")
    parser.add_argument("what", nargs="?", default="families", metavar="|".join(LISTS))
    parser.add_argument("--json", action="store_true", help="for programs: everything")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    if args.what not in LISTS:
        raise UnknownName("list", args.what, LISTS)
    catalogue = _catalogue()
    if args.json:
        print(json.dumps(catalogue, indent=1))
        return DONE
    from rich.table import Table

    table = Table(header_style="bold")
    if args.what == "families":
        _fill(table, ("family", "title", "sizes", "native components", "paper"), (
            (f["name"], f["title"], ", ".join(t["size"] for t in f["teachers"]),
             ", ".join(c["name"] for c in f["native"]) or "none", f["paper"]) for f in catalogue["families"]
        ))  # fmt: skip
    elif args.what == "teachers":
        listed = [(f, kind, t) for f in catalogue["families"] for kind in ("teachers", "alternatives") for t in f[kind]]
        _fill(table, ("family", "size", "", "model", "weights", "dim/depth/heads", "patch", "licence"), (
            (f["name"], t["size"], "alternative" if kind == "alternatives" else "", t["model"], t["weights"],
             f"{t['embed_dim']}/{t['depth']}/{t['num_heads']}", str(t["patch_size"]), t["licence"] + " *" * t["restricted"])
            for f, kind, t in listed
        ))  # fmt: skip
    else:
        _fill(table, (args.what[:-1] if args.what == "protocols" else "study", "title"),
              ((entry["name"], entry["title"]) for entry in catalogue[args.what]))  # fmt: skip
    console = make_console()
    console.print(table)
    if args.what == "teachers":
        console.print(
            "* the licence restricts use, such as to research or to what is not commercial; read its terms", soft_wrap=True
        )
    return DONE


def _fill(table: Any, columns: Sequence[str], rows: Any) -> None:
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)


def _catalogue() -> dict[str, Any]:
    import yaml

    from benchmark.spec.yaml_files import shipped

    def told(kind: Any, *keys: str) -> list[dict[str, Any]]:
        found = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in shipped(kind).values()}
        return [{"name": name} | {key: found[name][key] for key in keys if key in found[name]} for name in sorted(found)]

    return {
        "families": [_described(name) for name in families.names()],
        "studies": told("studies", "title", "teachers", "arms", "choose", "tables"),
        "protocols": told("protocols", "title"),
    }


def _described(name: str) -> dict[str, Any]:
    spec = families.spec(name)
    teachers, alternatives = (
        [
            {
                "size": teacher.size,
                "model": teacher.model,
                "weights": "timm" if teacher.official is None else teacher.official.url,
                **teacher.geometry,
                "licence": teacher.licence,
                "restricted": teacher.is_restricted,
            }
            for teacher in group
        ]
        for group in (spec.teachers, spec.alternatives)
    )
    native = [
        {"name": c.name, "description": c.description, "source": c.source, "inert_under_copy": c.inert_under_copy}
        for c in spec.native
    ]
    about = {"name": name, "title": spec.title, "paper": spec.paper, "recipe": spec.recipe, "sets": spec.sets}
    return about | {"teachers": teachers, "alternatives": alternatives, "native": native}
