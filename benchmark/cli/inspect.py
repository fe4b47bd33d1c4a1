"""`bench inspect`: the picture of a teacher's attention."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import families
from benchmark.cli.support.common import DONE, make_console, number_option, path_option
from benchmark.spec import bounds
from families.spec import UserError


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("inspect", help="the picture of a teacher's attention, and its numbers by block")
    parser.add_argument("--family", "--teacher", required=True, metavar="NAME|timm:NAME")
    parser.add_argument("--size", metavar="SIZE", help="default: the family's first")
    parser.add_argument("--image", type=path_option, metavar="FILE", help="default: the first test image of mini")
    parser.add_argument("--blocks", metavar="0,5,11|all", help="whose maps are drawn (default: first, middle, last)")
    parser.add_argument("--heads", metavar="0,3|all", help="beside their mean (default: all of few, else some)")
    parser.add_argument("--query", metavar="WHOSE", help="cls, mean (of the patches), centre or ROW,COLUMN (default: cls)")
    parser.add_argument("--protocol", default="mini", metavar="NAME|FILE", help="whose teacher it is (default: mini)")
    number_option(
        parser, "--img-size", bounds.PIXELS, metavar="PX", help="a multiple of its patch size (default: the protocol's)"
    )
    parser.add_argument("--random", action="store_true", help="random weights: a look without training or fetching any")
    parser.add_argument("--weights", type=path_option, metavar="DIR", help="pre-trained teachers (default: weights in --work)")
    parser.add_argument(
        "--work", type=path_option, default=Path(".bench"), metavar="DIR", help="where teachers lie (default: .bench)"
    )
    parser.add_argument("--out", type=path_option, metavar="FILE.png", help="default: inspect/FAMILY-SIZE.png in --work")
    parser.add_argument("--json", action="store_true", help="for programs: by head too")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.spec.protocol import load_protocol

    spec = families.spec(args.family)
    size = args.size or spec.sizes[0]
    spec.teacher(size)
    protocol = load_protocol(args.protocol)
    if args.weights is not None and (args.random or protocol[1].teacher is not None):
        raise UserError("--weights goes with a protocol of pre-trained teachers, as imagenet, and without --random")
    if args.img_size is not None:
        if protocol[1].scale is not None:
            raise UserError("--img-size goes with a protocol of pre-trained teachers, as imagenet")
        protocol = (protocol[0], protocol[1].model_copy(update={"img_size": args.img_size}))
    from benchmark.tools.inspect import Request, as_json, check_format, draw, look, show

    path = args.out or args.work / "inspect" / f"{args.family}-{size}.png"
    check_format(path)
    words = (args.blocks, args.heads, args.query, args.image, args.weights, args.random)
    seen = look(Request(args.family, size, protocol, args.protocol, args.work, *words))
    found = as_json(seen)
    draw(seen, found, path)
    if args.json:
        print(json.dumps(found | {"picture": str(path)}, indent=1))
        return DONE
    console = make_console()
    show(found, console)
    console.print(f"picture: {path}", highlight=False, soft_wrap=True)
    return DONE
