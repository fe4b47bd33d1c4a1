"""docs/cli.md: the help of each verb. `python -m tests.reference` writes it."""

import argparse
import os

from .conftest import ROOT

PAGE = ROOT / "docs" / "cli.md"
HEAD = """\
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


def page():
    """The text of the page."""
    from benchmark.cli import parser

    os.environ["COLUMNS"] = "100"
    (found,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    told = {each.dest: each.help for each in found._choices_actions}
    parts = [f"## bench {name}\n\n{told[name]}\n\n```text\n{verb.format_help()}```\n" for name, verb in found.choices.items()]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
