"""`bench list`: families, teachers, studies and protocols."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import families
from benchmark.cli.support.common import DONE, licence_option, make_console, path_option
from families.spec import UnknownName, UserError, WeightsError

LISTS = ("families", "teachers", "studies", "protocols")


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("list", help="families, teachers, studies, protocols")
    parser.add_argument("what", nargs="?", default="families", metavar="|".join(LISTS))
    licence_option(parser)
    parser.add_argument("--weights", type=path_option, metavar="DIR", help="where weights may lie (default: weights in --work)")
    parser.add_argument("--work", type=path_option, default=Path(".bench"), metavar="DIR", help="default: .bench")
    parser.add_argument("--json", action="store_true", help="for programs: everything")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    if args.what not in LISTS:
        raise UnknownName("list", args.what, LISTS)
    if args.licence is not None and args.what not in ("families", "teachers"):
        raise UserError("--licence goes with families and teachers")
    catalogue = _catalogue(args.licence, args.weights or args.work / "weights")
    if args.json:
        print(json.dumps(catalogue, indent=1))
        return DONE
    from rich.table import Table

    table = Table(header_style="bold")
    if args.what == "families":
        _fill(table, ("family", "title", "set", "sizes", "native components", "paper"), (
            (f["name"], f["title"], ", ".join(f["sets"]) or "further", ", ".join(t["size"] for t in f["teachers"]),
             ", ".join(c["name"] for c in f["native"]) or "none", f["paper"]) for f in catalogue["families"]
        ))  # fmt: skip
    elif args.what == "teachers":
        listed = [(f, kind, t) for f in catalogue["families"] for kind in ("teachers", "alternatives") for t in f[kind]]
        _fill(table, ("family", "size", "", "model", "weights", "here", "dim/depth/heads", "patch", "licence"), (
            (f["name"], t["size"], "alternative" if kind == "alternatives" else "", t["model"], t["weights"],
             "yes" if t["here"] else "", f"{t['embed_dim']}/{t['depth']}/{t['num_heads']}", str(t["patch_size"]),
             t["licence"] + " *" * t["restricted"])
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


def _catalogue(licence: str | None, weights: Path) -> dict[str, Any]:
    import yaml

    from benchmark.spec.teachers import licensed
    from benchmark.spec.yaml_files import shipped

    def told(kind: Any, *keys: str) -> list[dict[str, Any]]:
        found = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in shipped(kind).values()}
        return [{"name": name} | {key: found[name][key] for key in keys if key in found[name]} for name in sorted(found)]

    every = [(name, size) for name in families.names() for size in families.spec(name).labels]
    wanted = {*licensed(every, licence)}
    described = [_described(name, {size for family, size in wanted if family == name}, weights) for name in families.names()]
    return {
        "families": [each for each in described if each["teachers"] or each["alternatives"]],
        "studies": told("studies", "title", "teachers", "arms", "choose", "tables"),
        "protocols": told("protocols", "title"),
    }


def _described(name: str, wanted: Collection[str], weights: Path) -> dict[str, Any]:
    from families.core.weights_folder import find_weights

    spec = families.spec(name)

    def here(size: str) -> str | None:
        """The file of a teacher; of several, their folder."""
        try:
            found = find_weights(weights, name, size) if weights.is_dir() else None
        except WeightsError:
            return str(weights)
        return None if found is None else str(found)

    teachers, alternatives = (
        [
            {
                "size": teacher.size,
                "model": teacher.model,
                "weights": "timm" if teacher.official is None else teacher.official.url,
                **teacher.geometry,
                "licence": teacher.licence,
                "restricted": teacher.is_restricted,
                "here": here(teacher.size),
            }
            for teacher in group
            if teacher.size in wanted
        ]
        for group in (spec.teachers, spec.alternatives)
    )
    native = [
        {"name": c.name, "description": c.description, "source": c.source, "inert_under_copy": c.inert_under_copy}
        for c in spec.native
    ]
    about = {"name": name, "title": spec.title, "paper": spec.paper, "recipe": spec.recipe, "sets": spec.sets}
    return about | {"teachers": teachers, "alternatives": alternatives, "native": native}
