"""Programs that some tests need and pip does not bring: Debian's packages, installed where that may be done.

`python -m tests.packages page` installs what `make test-page` needs; exit code 3, with the reason, where that cannot be done.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

SKIPPED = 3
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
PAGE = {"chromium": "chromium", "chromedriver": "chromium-driver", "pdflatex": "texlive-latex-recommended"}
WHAT = {"page": PAGE}


def missing(packages: Mapping[str, str]) -> list[str]:
    """Those of the programs that this machine lacks."""
    return [program for program in packages if not shutil.which(program, path=PATH)]


def install(packages: Mapping[str, str]) -> str | None:
    """Install what is missing of {program: its Debian package}; the reason, in one line, where that cannot be done."""
    absent = missing(packages)
    wanted = sorted({packages[program] for program in absent})
    if not absent:
        return None
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"no {', '.join(wanted)}, and only root with apt-get can install them"
    failure = _apt("update") or _apt("install", "-y", "--no-install-recommends", *wanted)
    if failure is None and (absent := missing(packages)):
        failure = f"{', '.join(absent)} still missing"
    return failure


def _apt(*words: str) -> str | None:
    """Run apt-get; its complaint where it failed."""
    options = ("-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1")
    env = {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    words = ("apt-get", *options, *words)
    done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return f"{words[0]}: {' '.join(complaints) or done.returncode}" if done.returncode else None


if __name__ == "__main__":
    reason = install(WHAT[sys.argv[1]])
    print(reason or "", end="\n" if reason else "")
    sys.exit(SKIPPED if reason else 0)
