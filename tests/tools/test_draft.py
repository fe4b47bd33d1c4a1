"""The draft of a family file is the family that timm's name gives, with what is not known marked."""

import ast

import pytest

import families
from families.spec import Family

NAMES = [
    "vit_small_patch16_dinov3",
    "vit_base_patch16_224",
    "aimv2_large_patch14_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_draft_is_what_the_name_gives(name, bench, tmp_path):
    path = tmp_path / "mine.py"
    code, out, err = bench("new-family", f"timm:{name}", "--out", path)
    assert code == 0 and "bench check --family mine" in out, err
    text = path.read_text()
    assert bench("new-family", f"timm:{name}")[1] == text
    docstring = ast.get_docstring(ast.parse(text))
    assert "Native:" in docstring and "Trap: TODO" in docstring and "arXiv" in docstring
    made = {}
    exec(text, made)
    family, wanted = made["FAMILY"], families.spec(f"timm:{name}")
    assert isinstance(family, Family) and family.teachers == wanted.teachers
    assert (family.host, family.mean, family.std) == (wanted.host if wanted.native else family.host, wanted.mean, wanted.std)
    shared = [(each.name, dict(each.args), dict(each.initial), each.inert_under_copy) for each in wanted.native]
    assert [(each.name, dict(each.args), dict(each.initial), each.inert_under_copy) for each in family.native] == shared
    assert text.count("TODO") == 4 + 2 * len(family.native) and len(text.splitlines()) < 80


def test_what_is_refused(bench, tmp_path):
    (tmp_path / "there.py").write_text("mine")
    for words, told in (
        (("deit",), "a model of timm"),
        (("timm:xcit_small_12_p16_224",), "is a Xcit"),
        (("timm:vit_tiny_patch16_224", "--out", tmp_path / "there.py"), "it is there already"),
        (("timm:vit_tiny_patch16_224", "--out", tmp_path / "nowhere" / "x.py"), "No such file"),
    ):
        code, out, err = bench("new-family", *words)
        assert (code, out) == (2, "") and told in err and err.count("\n") == 1
    assert (tmp_path / "there.py").read_text() == "mine"
