"""The pages of docs/ that the code writes: cli.md, protocols.md, schema.md. `python -m tests.reference` writes them."""

import argparse
import inspect
import itertools
import os
import re
import textwrap
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from .conftest import ROOT

CLI = """\
# Command line

The help of each verb, as `bench VERB --help` prints it. Exit codes: 0 done, 1 some run failed (or
`report --check`, `merge` and `submit` found something), 2 the request was wrong: one line says
what.

Words are completed in bash and zsh, families after commas too. `pip install shtab`, then write the
output of this to `~/.local/share/bash-completion/completions/bench`, or with `zsh` to a file
`_bench` in a folder of `$fpath`:

```sh
bench completion bash
```

`bench --version` prints the version, and the commit in a git checkout.
"""


def cli():
    """The help of each verb."""
    from benchmark.cli import parser

    os.environ["COLUMNS"] = "100"
    (found,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    told = {each.dest: each.help for each in found._choices_actions}
    parts = [f"## bench {name}\n\n{told[name]}\n\n```text\n{verb.format_help()}```\n" for name, verb in found.choices.items()]
    return "\n".join([CLI, *parts])


PROTOCOLS = """\
# Protocols

A protocol is a YAML file: data, sizes of the models, recipes, evaluation and seeds. These come with
the package. [Data sets](data.md) tells how to get the images and what a GPU needs for them,
[ImageNet](imagenet.md#data) how to write a protocol of your own. Each file in
`benchmark/protocols/` gives the source of its values. *Pre-trained* teachers are fetched; others
are trained by the protocol first, for the steps in parentheses. Without `--family` and `--sizes` a
command takes the 20 teachers of the papers; add `--dry-run` to see what it would train.

"""


def protocols():
    """The shipped protocols: a table, then descriptions."""
    from benchmark.spec.protocol import load_protocol
    from benchmark.spec.yaml_files import shipped

    found = {name: load_protocol(name)[1] for name in shipped("protocols")}
    head = ("protocol", "training images", "input, px", "teachers", "steps", "batch", "command")
    rows = [_row(head), "|---|---|---:|---|---:|---:|---|", *(_protocol(*each) for each in found.items())]
    said = {}
    for name, each in found.items():
        said.setdefault(re.match(r".*?(?<! al)\.(?= [A-Z\d]|$)", each.description)[0], []).append(f"`{name}`")
    lines = [_wrapped(f"{', '.join(names)}: {sentence}", "- ") for sentence, names in said.items()]
    return PROTOCOLS + "\n".join([*rows, "", "## What they are", "", *lines]) + "\n"


def _protocol(name, protocol):
    data, taught, recipe = protocol.data, protocol.teacher, protocol.recipe
    options = "" if data.is_embedded else f"{' --study detection' if protocol.tasks else ''} --data DIR"
    images = "" if data.is_embedded else f"{data.source.removeprefix('torchvision/') or 'folders'}, {data.training_images:,}"
    return _row(
        (
            f"`{name}`",
            images or "made on the spot",
            protocol.scale.img_size if protocol.scale else protocol.img_size or "the teacher's",
            "pre-trained" if taught is None else f"trained ({taught.recipe.steps:,})",
            f"{recipe.steps:,}",
            f"{recipe.batch_size:,}",
            f"`bench run --protocol {name}{options}`",
        )
    )


SCHEMA = """\
# Result files

`results/<protocol>/<family>/<size>/<arm>-s<seed>.json` holds one run and its evaluations. The file
is an object of the fields of [Result](#result), and its parts follow. `benchmark.results`
([From Python](python.md)) reads a folder of them as a table. An unknown key, an edited file, and
one whose `key` is not that of its run are left out of every report.
"""


def schema():
    """The fields of a result file: a table for each record in it."""
    from benchmark.storage.result_file import Result

    kinds = [Result]
    for kind in kinds:  # grows
        parts = [part for field in kind.model_fields.values() for part in _parts(field.annotation)]
        kinds += [part for part in dict.fromkeys(parts) if part not in kinds]
    return "\n".join([SCHEMA, *map(_record, kinds)])


def _record(kind):
    about, meanings = _told(kind)
    for base in kind.__mro__[1:]:
        meanings = (_told(base)[1] if "Attributes:" in (base.__doc__ or "") else {}) | meanings
    fields = [(field.alias or name, _kind(field.annotation), meanings.get(name, "")) for name, field in kind.model_fields.items()]
    rows = [
        (", ".join(f"`{name}`" for name, *_ in alike), *told) for told, alike in itertools.groupby(fields, lambda each: each[1:])
    ]
    columns = ("field", "type", "meaning")[: 3 if any(meaning for *_, meaning in rows) else 2]
    table = [_row(columns), "|" + "---|" * len(columns), *(_row(each[: len(columns)]) for each in rows)]
    return "\n".join([f"## {kind.__name__}", "", about, "", *table, ""])


def _told(kind):
    """A record's docstring without its Attributes, and these by name."""
    text = re.sub(r"\bNone\b", "null", inspect.cleandoc(kind.__doc__ or ""))
    about, _, attributes = text.partition("Attributes:\n")
    found = {}
    for names, meaning in re.findall(r"^    (\w[\w, ]*): (.*(?:\n     .*)*)", attributes, re.M):
        found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()).removesuffix("."))
    return "\n\n".join(map(_wrapped, about.strip().split("\n\n"))), found


PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", Any: "anything"}


def _kind(annotation):
    """A type, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return "plain value" if {str, int, bool} <= {*inner} else " or ".join(map(_kind, inner))
    if origin is dict:
        return f"object ({_kind(inner[1])} by name)"
    if origin in (list, tuple):
        return f"list ({', '.join(_kind(each) for each in inner if each is not ...)})"
    return PLAIN.get(annotation) or f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def _parts(annotation):
    """The records that a type names."""
    from benchmark.spec.records import Record

    if inspect.isclass(annotation) and issubclass(annotation, Record):
        yield annotation
    for each in get_args(annotation):
        yield from _parts(each)


def _row(cells):
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _wrapped(text, first=""):
    return textwrap.fill(
        " ".join(text.split()), 100, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
    )


PAGES = {"cli.md": cli, "protocols.md": protocols, "schema.md": schema}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (ROOT / "docs" / file).write_text(page(), encoding="utf-8")
