"""`bench speed`: time steps of training."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import families
from benchmark.cli.support.common import DONE, check_device, cores, make_console, number_option, path_option
from benchmark.spec import bounds
from families.spec import UnknownName, UserError

if TYPE_CHECKING:
    from rich.console import Console


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("speed", help="time plain, copy and distill steps beside each other")
    parser.add_argument("--family", "--teacher", required=True, metavar="NAME|timm:NAME")
    parser.add_argument("--size", metavar="SIZE", help="default: the family's first")
    parser.add_argument("--matched", action="store_true", help="the matched student (default: the standard one)")
    parser.add_argument("--protocol", metavar="NAME|FILE", help="as its runs do; run --dry-run then estimates hours")
    number_option(parser, "--batch", bounds.BATCH, metavar="N", help="default: 8")
    number_option(parser, "--img-size", bounds.PIXELS, metavar="PX", help="default: the teacher's; a multiple of its patch size")
    number_option(parser, "--rounds", bounds.ROUNDS, default=20, metavar="N", help="steps of each kind, in turn (default: 20)")
    number_option(parser, "--blocks", bounds.DEPTH, metavar="N", help="transfer the first N blocks (default: all)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda or auto (default)")
    parser.add_argument("--precision", metavar="NAME", help="float32 (default) or bfloat16")
    parser.add_argument("--teacher-precision", metavar="NAME", help="the teacher's own (default: the same)")
    parser.add_argument("--compile", action="store_true", help="run the student through torch.compile")
    parser.add_argument("--compile-teacher", action="store_true", help="run the teacher through torch.compile")
    parser.add_argument("--formulation", metavar="NAME", help="maps or parts (default: what is faster on the device)")
    number_option(parser, "--threads", bounds.PROCESSES, metavar="N", help="of the CPU (default: one a core)")
    parser.add_argument("--no-yardstick", action="store_true", help="leave out the written-out maps")
    parser.add_argument("--data", type=path_option, metavar="DIR", help="the images, where --protocol needs some")
    parser.add_argument("--images", type=path_option, metavar="DIR", help="measure the loader on this folder of image folders")
    parser.add_argument(
        "--work", type=path_option, default=Path(".bench"), metavar="DIR", help="where --protocol's measurements are kept"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    from benchmark.spec.protocol import load_protocol

    name, protocol = (None, None) if args.protocol is None else load_protocol(args.protocol)
    if protocol is None and args.data is not None:
        raise UserError("--data goes with --protocol, whose images it has")
    spec = families.spec(args.family)
    size = args.size or spec.sizes[0]
    precisions = ("float32", "bfloat16")
    compiled = ("compile", "compile_teacher")
    for option in ("batch", "img_size", "blocks", "precision", "teacher_precision", *compiled, "formulation", "threads"):
        if protocol is not None and getattr(args, option):
            raise UserError(f"--{option.replace('_', '-')} goes without --protocol, which says it")
    for option, word, valid in (
        ("--precision", args.precision, (None, *precisions)),
        ("--teacher-precision", args.teacher_precision, (None, *precisions)),
        ("--formulation", args.formulation, (None, "maps", "parts")),
    ):
        if word not in valid:
            raise UnknownName(option, word, [each for each in valid if each])
    spec.teacher(size)
    check_device(args.device)
    from benchmark.data import DataLocation
    from benchmark.execution.setup import torch_device
    from benchmark.storage.files import ensure_writable
    from benchmark.storage.measurements import protocol_setting, save_measurement
    from benchmark.storage.work_folder import Workspace
    from benchmark.tools.speed import limits, measure, measure_data, measure_images, setting_of

    device = torch_device(args.device)
    if protocol is not None:
        setting = protocol_setting(protocol, args.family, size, args.matched, device)
    else:
        setting = setting_of(
            args.family,
            size,
            args.batch,
            args.img_size,
            matched=args.matched,
            blocks=args.blocks,
            device=device,
            precision=args.precision or "float32",
            teacher_precision=args.teacher_precision,
            compile=args.compile,
            compile_teacher=args.compile_teacher,
            threads=args.threads or cores(),
            held=None if args.formulation is None else args.formulation == "maps",
        )
    pipeline = None if args.images is None else measure_images(args.images, setting.geometry["img_size"])
    if protocol is not None:
        ensure_writable("--work", args.work)
        pipeline = pipeline or measure_data(protocol, DataLocation(args.data, device=device))
    console = make_console(stderr=args.json)
    with console.status("measuring") as status:
        found = measure(setting, args.rounds, not args.no_yardstick, lambda doing: status.update(f"measuring: {doing}"))
    found["data"] = None if pipeline is None else pipeline | {"workers_needed": limits(found, pipeline)}
    if name is not None:
        save_measurement(Workspace(args.work), name, setting, found)
    if args.json:
        print(json.dumps(found, indent=1))
        return DONE
    _show_speed(found, console)
    return DONE


def _show_speed(found: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    setting = found["setting"]
    geometry = setting["geometry"]
    table = Table(
        title=f"{setting['family']} {setting['size']} ({'matched' if setting['matched'] else 'standard'} student), "
        f"{geometry['img_size']} px, {found['tokens']} tokens, batch {setting['batch']}, {setting['device']}, "
        f"{setting['precision']}, {setting['threads']} threads; {found['rounds']} rounds",
        header_style="bold",
    )
    columns = ("step", "ms (quartiles)", "ratio to plain (quartiles)", "images/s", "memory MiB", "teacher", "forward", "backward")
    for column in (*columns, "update"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for kind, title in SPEED_ROWS.items():
        row = found.get(kind)
        if row is None:
            continue
        low, high = (f"{1000 * value:.1f}" for value in row["quartiles"])
        near, far = (f"{value:.2f}" for value in row["ratio_quartiles"])
        memory = f"{row['peak_memory_mb']:.0f} ({row['memory_ratio']:.2f}x)" if "memory_ratio" in row else ""
        phases = [f"{1000 * row['phases'][name]:.1f}" if "phases" in row else "" for name in ("teacher", *columns[6:], "update")]
        table.add_row(
            title, f"{1000 * row['seconds']:.1f} ({low}–{high})", f"{row['ratio']:.3f} ({near}–{far})",
            f"{row['images_per_second']:.1f}", memory, *phases,
        )  # fmt: skip
    console.print(table)
    how = "maps are built once and held" if found["formulation"] == "maps" else "no map is held"
    console.print(f"Medians. {how}. Memory: peak above what importing takes, in a process of its own.", highlight=False)
    pipeline = found["data"]
    if pipeline is not None:
        needed = pipeline["workers_needed"]
        console.print(
            f"data: {pipeline['images_per_second_per_worker']:.0f} images/s a loader worker ({pipeline['source']}); one step "
            f"after the other needs {needed['plain']:.2f} workers for plain, {needed['copy']:.2f} for copy, "
            f"{needed['distill']:.2f} for distill. " + _advice(max(needed.values())),
            highlight=False,
        )


SPEED_ROWS = {
    "plain": "plain",
    "copy": "copy",
    "distill": "distill",
    "second_copy": "copy beside another arm",
    "second_distill": "distill beside another arm",
    "teacher": "teacher alone",
    "explicit_copy": "copy, maps written out",
    "explicit_distill": "distill, maps written out",
}


def _advice(workers: float) -> str:
    if workers < 0.5:
        return "The loader is not the limit."
    return (
        "The loader is the limit below that many: more workers, images stored at the size that is trained on, "
        "and arms that train together (they share each batch) help."
    )
