"""The command `bench`: one file a verb. Verbs import torch, timm and pandas when they run, so that
help comes at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmark.cli.support.common import DONE, INTERRUPTED, MOST_SAID, WRONG_REQUEST, Parser
from families.spec import UserError, one_line

ORDER = ("run", "evaluate", "report", "list", "status", "cancel", "logs", "export", "speed", "inspect", "fetch", "check")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 all done, 1 some run failed, 2 the request itself
    was wrong."""
    _prepare_streams()
    os.environ["MPLBACKEND"] = "agg"  # figures are drawn into files, whatever a user has set for windows
    if sys.platform == "win32":
        return _refused("Windows lacks the file locks that runs need (fcntl): use its Subsystem for Linux (WSL)")
    try:
        args = parse(argv)
        return int(args.verb(args))
    except UserError as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        print("bench: interrupted; the same command again goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:  # a full disk, a folder that is not ours
        if error.errno is None:
            raise
        return _refused(": ".join(str(part) for part in (error.filename, error.strerror) if part is not None))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of one command; `verb` runs it. Raises UserError."""
    return parser().parse_args(argv)


def _prepare_streams() -> None:
    """Write a replacement for characters that the terminal lacks, and nothing to a stream that is
    closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="replace")


def _refused(told: str) -> int:
    """Print what is wrong with a request on one line of printable characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in told)
    print(f"bench: {one_line(line, MOST_SAID)}", file=sys.stderr)
    return WRONG_REQUEST


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    whole = Parser(prog="bench", description="When does attention transfer work for Vision Transformers?")
    whole.add_argument("--version", action=_Version, nargs=0, help="print the version, and the commit in a git checkout")
    found = whole.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    for name in verbs():
        import_module(f"benchmark.cli.{name}").add_parser(found)
    return whole


class _Version(argparse.Action):
    """Print the version and exit. It calls git, which the other verbs need not wait for."""

    def __call__(self, parser: argparse.ArgumentParser, *given: object, **more: object) -> None:
        from benchmark.storage.provenance import PACKAGE, code_version, package_version

        made = code_version()
        commit = "" if made["commit"] is None else f", commit {made['commit'][:12]}{' with changes' if made['dirty'] else ''}"
        print(f"{PACKAGE} {package_version()}{commit}")
        parser.exit()


def verbs() -> list[str]:
    """The verbs: the files of this folder that declare `add_parser`, in the order of the help."""
    declared = [path.stem for path in Path(__file__).parent.glob("*.py") if "\ndef add_parser(" in path.read_text("utf-8")]
    return sorted(declared, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
