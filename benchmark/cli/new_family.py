"""`bench new-family`: the draft of a family file."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from benchmark.cli.support.common import DONE, make_console, path_option
from families.spec import TIMM, UserError, quoted


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("new-family", help="the draft of a family file for a ViT of timm")
    parser.add_argument("name", metavar="timm:NAME", help="a plain ViT, as timm:vit_small_patch16_dinov3")
    parser.add_argument("--out", type=path_option, metavar="FILE.py", help="write it there (default: print it)")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    if not args.name.startswith(TIMM):
        raise UserError(f"new-family {quoted(args.name)}: a model of timm, such as timm:vit_small_patch16_dinov3")
    if args.out is not None and not re.fullmatch(r"[a-z][a-z0-9_]*\.py", args.out.name):
        told = "small letters, digits and underscore, a letter first, then .py; it is the family's name"
        raise UserError(f"--out {quoted(str(args.out))}: a family file's name has {told}")
    from benchmark.tools.draft import draft

    text, path = draft(args.name), args.out
    if path is None:
        print(text, end="")
        return DONE
    _write(path, text)
    make_console().print(f"{path}: replace what is marked TODO, then `bench check --family {path.stem}`", highlight=False)
    return DONE


def _write(path: Path, text: str) -> None:
    """Raises UserError for a file that is there already."""
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"--out {path}: it is there already") from None
