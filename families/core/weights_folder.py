"""Where weights lie in a folder. Imports neither torch nor timm."""

from __future__ import annotations

from pathlib import Path

from families.spec import WeightsError

RECORD = "fetched.json"  # beside a fetched file: its origin
ORIGIN = ".origin.txt"  # after the name of a file put there by hand: one line of its user about its origin
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".npz")
_NO_WEIGHTS = (".part", ".incomplete", ".json", ORIGIN)


def find_weights(folder: Path, family: str, size: str) -> Path | None:
    """A teacher's file in a weights folder: `<family>-<size>.<any suffix>`, or a file with a
    checkpoint's suffix inside the folder `<family>-<size>`. A file in place of the folder serves
    whichever teacher. None if there is none; unfinished downloads, JSON and `ORIGIN` do not count.

    Raises WeightsError that names them for several files.
    """
    if folder.is_file():
        return folder
    name = f"{family}-{size}"
    found = [path for path in _files(folder) if path.name.startswith(f"{name}.")]
    found += [path for path in _files(folder / name) if path.name.endswith(SUFFIXES)]
    if len(found) > 1:
        raise WeightsError(f"{folder}: several files for {name}: {', '.join(map(str, found))}; keep one")
    return found[0] if found else None


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.endswith(_NO_WEIGHTS))
