"""The house keeps its rules: one direction of imports, families as data, and a new family is one file."""

import ast
import json
import re
import shutil
from graphlib import TopologicalSorter

import pytest

import families

from .conftest import ROOT, python


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "benchmark")


def test_families_never_import_benchmark():
    for path in (ROOT / "families").rglob("*.py"):
        assert not [name for name in imports_of(path) if name.split(".")[0] == "benchmark"], path


# What each room of benchmark/ may import beside itself. Execution and reporting never meet.
ROOMS = {
    "spec": ["families"],
    "storage": ["families", "spec"],
    "data": ["families", "spec"],
    "transfer": ["families", "spec"],
    "training": ["families", "spec", "storage", "data", "transfer"],
    "execution": ["families", "spec", "storage", "data", "transfer", "training"],
    "analysis": ["families", "spec", "storage"],
    "reporting": ["families", "spec", "storage", "analysis"],
    "tools": ["families", "spec", "storage", "data", "transfer", "training", "reporting"],
}
ROOMS["cli"] = ["families", *ROOMS]


def room_of(module):
    first, *rest = module.split(".")
    return rest[0] if first == "benchmark" and rest else first


def test_imports_run_one_way():
    folders = {path.name for path in (ROOT / "benchmark").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == set(ROOMS)
    for path in (ROOT / "benchmark").rglob("*.py"):
        room = path.relative_to(ROOT / "benchmark").parts[0]
        for name in imports_of(path):
            other = room_of(name)
            if room in ROOMS and other in ("families", *ROOMS) and other != room:
                assert other in ROOMS[room], f"{path.relative_to(ROOT)} imports {name}"


def test_no_module_stands_outside_the_rooms():
    assert [path.name for path in (ROOT / "benchmark").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", [folder.name for folder in sorted((ROOT / "benchmark").iterdir()) if folder.name in ROOMS])
def test_modules_of_a_room_do_not_import_each_other_in_a_circle(room):
    """As their imports stand: each module imports by itself, whichever is first."""
    modules = {}
    for path in (ROOT / "benchmark" / room).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        tops = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
        modules[name] = {f"{node.module}.{alias.name}" for node in tops for alias in node.names} | {node.module for node in tops}
    graph = {name: {other for other in imported if other in modules and other != name} for name, imported in modules.items()}
    tuple(TopologicalSorter(graph).static_order())


def test_importing_families_is_light():
    done = python("-c", "import sys, families; families.names(); [families.spec(n) for n in families.names()];"
                  "assert not {'torch', 'timm'} & set(sys.modules)")  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", families.names())
def test_a_family_file_is_data(name):
    path = ROOT / "families" / f"{name}.py"
    text = path.read_text()
    assert len(text.splitlines()) < 60
    tree = ast.parse(text)
    logic = (ast.If, ast.IfExp, ast.For, ast.While, ast.FunctionDef, ast.Lambda, ast.ListComp, ast.DictComp, ast.GeneratorExp)
    assert not [node for node in ast.walk(tree) if isinstance(node, logic)]
    assert set(imports_of(path)) == {"families.spec"}
    docstring = ast.get_docstring(tree)
    assert "Native:" in docstring and "Trap" in docstring and "arXiv" in docstring
    spec = families.spec(name)
    assert spec.paper and spec.recipe and all(teacher.licence for teacher in spec.teachers)
    assert all(component.source for component in spec.native)


PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
(README_EXAMPLE,) = [block for block in PYTHON_BLOCKS if "FAMILY" in block]
DINOV3 = '''
"""DINOv3 (Simeoni et al. 2025, arXiv 2508.10104). Native: see below. Trap: timm's Eva class, rotary embeddings."""

from families.spec import Component, Constant, Family, Host, Normal, Ref, Teacher

_ROPE = {"use_rot_pos_emb": True, "rope_type": "dinov3", "rope_temperature": 100, "rope_rotate_half": True}

FAMILY = Family(
    title="DINOv3",
    paper="Simeoni et al. 2025, arXiv 2508.10104",
    recipe="self-distillation, LVD-1689M",
    teachers=(
        Teacher("base", "vit_base_patch16_dinov3.lvd1689m", 768, 12, 12, 16, "DINOv3",
                native_size=256, args={"global_pool": "token"}),
    ),
    native=(
        Component("rope", "rotary position embedding on the patches", "dinov3", _ROPE, inert_under_copy=True),
        Component("no_pos_embed", "no absolute position embedding", "dinov3", {"use_abs_pos_emb": False}),
        Component("layer_scale", "gain", "dinov3: 1e-5", {"init_values": 1e-5}, {"*.ls?.gamma": Constant(1e-5)}),
        Component("registers", "four tokens", "dinov3", {"num_reg_tokens": 4}, {"reg_token": Normal(0.02)}),
        Component("no_qkv_bias", "no bias of q, k, v", "dinov3", {"qkv_bias": False}),
        Component("norm_eps", "epsilon 1e-5", "dinov3", {"norm_layer": Ref("torch.nn:LayerNorm")}),
    ),
    host=Host("timm.models.eva:Eva"),
)
'''


SEVERAL = """
import json, pytest, sys
from contextlib import redirect_stdout
from io import StringIO
from benchmark.cli import main
found = []
for words in json.loads(sys.argv[1]):
    with redirect_stdout(StringIO()) as out:
        code = pytest.main(words[1:]) if words[0] == "pytest" else main(words)
    found.append((int(code), out.getvalue()))
print(json.dumps(found))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("beit", README_EXAMPLE, id="the README's"),
        pytest.param("dinov3", DINOV3, id="DINOv3"),
    ],
)
def test_a_new_family_is_one_file(name, text, tmp_path, tiny):
    """Put there and nothing else edited, it is listed, checked, covered by the contract tests and run."""
    for folder in ("families", "benchmark", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / "copy" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    copy = tmp_path / "copy"
    (copy / "families" / f"{name}.py").write_text(text.lstrip())

    chosen = ("--family", name, "--protocol", str(tiny), "--cluster", "debug", "--seeds", "0")
    commands = [
        ("list", "--json"),
        ("check", "--family", name),
        ("run", *chosen, "--results", str(tmp_path / "r"), "--work", str(tmp_path / "w")),
        ("pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/tools/test_contract.py"),
    ]
    done = python("-c", SEVERAL, json.dumps(commands), cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    (listed, checked, run, collected) = json.loads(done.stdout)
    assert name in [family["name"] for family in json.loads(listed[1])["families"]]
    assert checked[0] == 0, checked[1] + done.stderr
    assert run[0] == 0, run[1] + done.stderr
    assert f"[{name}-base-copy_is_map_times_v]" in collected[1]
    assert len(list((tmp_path / "r").rglob("*.json"))) == 7


def prose_of(path):
    """(line number, text) of docstrings and of comments that stand on lines of their own."""
    text = path.read_text()
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            yield from ((n, lines[n - 1].replace('"""', "")) for n in range(node.body[0].lineno, node.body[0].end_lineno + 1))
    yield from ((n, line) for n, line in enumerate(lines, 1) if line.lstrip().startswith("#") and "Copyright" not in line)


@pytest.mark.parametrize("folder", ["benchmark", "families"])
def test_sizes_keep_to_what_can_be_read_at_once(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        assert not [node.name for node in classes if node.end_lineno - node.lineno >= 150], path
        assert not [(number, line) for number, line in prose_of(path) if len(line.rstrip()) > 100], path
