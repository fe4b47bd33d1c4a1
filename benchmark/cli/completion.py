"""`bench completion`: a script that completes words in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import families
from benchmark.cli.support.common import DEVICES, DONE
from families.spec import UnknownName, UserError

SHELLS = ("bash", "zsh")
LISTED = ("family", "study", "protocol", "cluster", "device")  # options whose values are completed, after commas too


def add_parser(verbs: Any) -> None:
    """Declare the verb and its options."""
    parser = verbs.add_parser("completion", help="a script that completes verbs, options, families, studies, protocols")
    parser.add_argument("shell", metavar="|".join(SHELLS))
    parser.set_defaults(verb=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    if args.shell not in SHELLS:
        raise UnknownName("shell", args.shell, SHELLS)
    try:
        import shtab
    except ImportError:
        raise UserError("completion: shtab is not installed; pip install shtab") from None
    from benchmark.cli import parser

    whole = parser()
    for action in _actions(whole):
        name = next((option.lstrip("-") for option in action.option_strings if option.lstrip("-") in LISTED), None)
        if name is not None:
            action.complete = dict.fromkeys(SHELLS, f"_bench_{name}")  # type: ignore[attr-defined]
        elif isinstance(action.metavar, str) and action.metavar.startswith(("DIR", "FILE", "NAME|FILE", "RESULTS")):
            action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]
    preamble: Any = {"bash": "\n".join(map(_in_bash, LISTED)), "zsh": "\n".join(map(_in_zsh, LISTED))}
    print(shtab.complete(whole, args.shell, preamble=preamble))
    return DONE


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options and arguments of a parser and of its verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
        else:
            yield action


def _values(name: str) -> str:
    from benchmark.execution import backends
    from benchmark.spec.yaml_files import shipped

    sets = sorted({word for each in families.names() for word in families.spec(each).sets})
    return " ".join(
        {
            "family": lambda: [*families.names(), *sets, "all"],
            "study": lambda: [*shipped("studies")],
            "protocol": lambda: [*shipped("protocols")],
            "cluster": backends.names,
            "device": lambda: DEVICES,
        }[name]()
    )


def _in_bash(name: str) -> str:
    """A function that completes a word, or what follows its last comma."""
    words = f'-W "{_values(name)}" -- "${{1##*,}}"'
    return f'_bench_{name}() {{ if [[ "$1" == *,* ]]; then compgen -P "${{1%,*}}," {words}; else compgen {words}; fi; }}'


def _in_zsh(name: str) -> str:
    return f"_bench_{name}() {{ _values -s , {name} {_values(name)} }}"
