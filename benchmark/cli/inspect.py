"""`bench inspect`: the picture of a teacher's attention, or of a detector's detections."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import families
from benchmark.cli.support.common import DONE, make_console, number_option, path_option
from benchmark.spec import bounds
from families.spec import UserError, quoted

OF_TEACHERS = ("family", "size", "image", "blocks", "heads", "query", "protocol", "img_size", "random")
OF_DETECTORS = ("images", "score", "data")


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("inspect", help="the picture of a teacher's attention, or of what a detector finds")
    parser.add_argument("run", nargs="?", metavar="RUN", help="a detector to look at, as in deit/base/standard-none+task=coco-s0")
    parser.add_argument("--family", "--teacher", metavar="NAME|timm:NAME", help="a teacher to look at")
    parser.add_argument("--size", metavar="SIZE", help="default: the family's first")
    parser.add_argument("--image", type=path_option, metavar="FILE", help="default: the first test image of mini")
    parser.add_argument("--blocks", metavar="0,5,11|all", help="whose maps are drawn (default: first, middle, last)")
    parser.add_argument("--heads", metavar="0,3|all", help="beside their mean (default: all of few, else some)")
    parser.add_argument("--query", metavar="WHOSE", help="cls, mean (of the patches), centre or ROW,COLUMN (default: cls)")
    parser.add_argument("--protocol", metavar="NAME|FILE", help="whose teacher it is (default: mini)")
    number_option(
        parser, "--img-size", bounds.PIXELS, metavar="PX", help="a multiple of its patch size (default: the protocol's)"
    )
    parser.add_argument("--random", action="store_true", help="random weights: a look without training or fetching any")
    parser.add_argument("--images", metavar="0,3", help="numbers of RUN's test images (default: 0)")
    parser.add_argument("--score", type=score_option, metavar="0..1", help="the least score of detections shown (default: 0.5)")
    parser.add_argument("--data", type=path_option, metavar="DIR", help="the folder of RUN's images")
    parser.add_argument("--weights", type=path_option, metavar="DIR", help="pre-trained teachers (default: weights in --work)")
    parser.add_argument(
        "--work", type=path_option, default=Path(".bench"), metavar="DIR", help="where teachers and runs lie (default: .bench)"
    )
    parser.add_argument("--out", type=path_option, metavar="FILE.png", help="default: inspect/NAME.png in --work")
    parser.add_argument("--json", action="store_true", help="for programs; attention by head too")
    parser.set_defaults(verb=execute)


def score_option(text: str) -> float:
    """A score. Raises ArgumentTypeError for one that is not from 0 to 1."""
    if re.fullmatch(r"[0-9]*\.?[0-9]+", text, re.ASCII) and len(text) < 20 and float(text) <= 1:
        return float(text)
    raise argparse.ArgumentTypeError(f"{quoted(text)}: a number from 0 to 1")


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    if (args.run is None) == (args.family is None):
        raise UserError("inspect takes --family NAME, or the RUN of a detector")
    for name in OF_DETECTORS if args.run is None else OF_TEACHERS:
        if getattr(args, name) is not None and getattr(args, name) is not False:
            raise UserError(f"--{name.replace('_', '-')} goes with {'the RUN of a detector' if args.run is None else '--family'}")
    return _teacher(args) if args.run is None else _detector(args)


def _teacher(args: argparse.Namespace) -> int:
    from benchmark.spec.protocol import DEFAULT_PROTOCOL, load_protocol

    spec = families.spec(args.family)
    size = args.size or spec.sizes[0]
    spec.teacher(size)
    word = args.protocol or DEFAULT_PROTOCOL
    protocol = load_protocol(word)
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
    seen = look(Request(args.family, size, protocol, word, args.work, *words))
    found = as_json(seen)
    draw(seen, found, path)
    if args.json:
        print(json.dumps(found | {"picture": str(path)}, indent=1))
        return DONE
    console = make_console()
    show(found, console)
    console.print(f"picture: {path}", highlight=False, soft_wrap=True)
    return DONE


def _detector(args: argparse.Namespace) -> int:
    from benchmark.cli.support.work_folder import finished_run
    from benchmark.data import DataLocation
    from benchmark.execution.setup import place_of
    from benchmark.storage.scores import told
    from benchmark.storage.work_folder import Workspace
    from benchmark.tools.detections import as_json, check_images, draw, look, show
    from benchmark.tools.inspect import check_format

    item, cell, payload = finished_run(args.run, argparse.Namespace(work=args.work, results=None))
    if item.run.detector is None:
        raise UserError(f"{args.run}: no detector; --family {cell.family} --size {cell.size} shows its teacher's attention")
    numbers = check_images(item.run, args.images)
    path = args.out or args.work / "inspect" / f"{cell.name.replace('/', '-')}.png"
    check_format(path)
    root = None if args.data is None else args.data.absolute()
    place = place_of(item, DataLocation(root))
    least = 0.5 if args.score is None else args.score
    seen = look(item.run, Workspace(args.work), args.weights or args.work / "weights", place, numbers, least)
    title = f"{cell.name}\n{told(payload['metrics'])}; detections with a score of at least {least:g}"
    draw(title, seen, path)
    if args.json:
        print(json.dumps({"run": cell.path, "key": item.key, "images": as_json(seen), "picture": str(path)}, indent=1))
        return DONE
    console = make_console()
    show(title, seen, console)
    console.print(f"picture: {path}", highlight=False, soft_wrap=True)
    return DONE
