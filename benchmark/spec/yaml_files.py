"""Read YAML files without trusting them, and find the shipped ones by name."""

from __future__ import annotations

import errno
import re
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmark.spec import bounds
from benchmark.spec.records import MOST_TOLD
from families.spec import UnknownName, UserError, quoted

MOST_BYTES = 10 * 2**20  # a result file has about 10 KB


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file. Raises OSError also if it is no regular file (a pipe could block) or has more
    bytes."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most / 2**20:g} MB", str(path))
    return content


FOLDER = Path(__file__).parent.parent
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a protocol's or study's file without its ending
MOST_YAML, MOST_NODES = bounds.MEGABYTE, 100_000  # bytes of a file, values in it
NUMBER = r"[-+]?(0|[1-9][0-9]{0,39}|(0|[1-9][0-9]*)?\.[0-9]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF)|\.(nan|NaN|NAN))"


def shipped(kind: Literal["protocols", "studies"]) -> dict[str, Path]:
    """The package's files by name."""
    return {path.stem: path for path in sorted((FOLDER / kind).glob("*.yaml"))}


def find_file(kind: str, word: str, known: Mapping[str, Path]) -> Path:
    """A shipped file by its name, or a YAML file by its path. Raises UnknownName or UserError."""
    if word in known:
        return known[word]
    path = Path(word)
    if path.suffix not in (".yaml", ".yml") or not _is_file(path):
        raise UnknownName(kind, word, [*known, "a YAML file's path"])
    if not FILE_NAME.fullmatch(path.stem):
        letters = "letters, digits, dot, dash and underscore, at most 100, a letter or digit first"
        raise UserError(f"{kind} {quoted(word)}: a file's name, which results and reports bear, has {letters}")
    if path.stem in known and path.resolve() != known[path.stem].resolve():
        raise UserError(f"{path}: {path.stem!r} is the name of a shipped {kind}; give the file another one")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or with a null byte
        return False


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, by libyaml if there is one (ten times as fast). A duplicate key is an
    error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = next((key for key, count in keys.items() if count > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key {quoted(twice)} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]

    def plain_number(self, node: yaml.ScalarNode) -> int | float:
        """A number in decimal digits. YAML 1.1 reads 010 as 8, 1:30 as 90 and 1_0 as 10."""
        text = self.construct_scalar(node)
        if not re.fullmatch(NUMBER, text):
            raise yaml.constructor.ConstructorError(None, None, f"{quoted(text)} is no number such as 12 or 0.5", node.start_mark)
        if node.tag.endswith("float"):
            return self.construct_yaml_float(node)  # type: ignore[no-any-return]
        return int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.plain_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.plain_number)


def read_yaml(path: Path) -> Any:
    """Read a YAML file. Raises UserError, one line, if it is no YAML, above a megabyte, or nested
    too deeply."""
    try:
        return _loaded(read_bytes(path, MOST_YAML))
    except RecursionError:
        raise UserError(f"{path}: not readable as YAML: nested too deeply") from None
    except Exception as error:  # PyYAML raises anything for a value that does not fit its tag
        told = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not readable as YAML: {told[:MOST_TOLD]}") from None


def read_value(text: str) -> Any:
    """A value as a YAML file would have it. Raises UserError."""
    try:
        return _loaded(text)
    except Exception as error:
        raise UserError(f"{quoted(text)}: not readable as YAML: {' '.join(str(error).split())[:MOST_TOLD]}") from None


def _loaded(content: bytes | str) -> Any:
    loader = _Loader(content)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _nodes(node, {}) > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES} values, with those that its aliases repeat")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values in a document, those of an alias each time. Raises ValueError for a value
    that holds itself."""
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("a value holds itself")
        return known[id(node)]
    known[id(node)], parts = 0, node.value if isinstance(node, yaml.CollectionNode) else []
    inner = (part for each in parts for part in (each if isinstance(each, tuple) else (each,)))
    known[id(node)] = 1 + sum(_nodes(part, known) for part in inner)
    return known[id(node)]
