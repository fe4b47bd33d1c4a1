"""Losses, parts and sources are files of folders: the names in an arm are theirs, and a new one needs no other edit."""

import json
import shutil
from typing import get_args

import pytest

from benchmark.spec import arm, plugins
from benchmark.spec.run import Transfer
from benchmark.transfer.losses import loss_named
from benchmark.transfer.parts import part_named
from benchmark.transfer.sources import source_named

from ..conftest import ROOT, python

LOSS = '''
"""Huber's loss."""

import torch.nn.functional as F

OF_DISTRIBUTIONS = False


def loss(teacher, student):
    return F.huber_loss(student.float(), teacher.float())
'''
SOURCE = '''
"""The attention of the image two places further in the batch."""

WHOLE_BATCH = True


def attention(route, block, reader):
    return route.other_image().other_image()
'''
STUDY = """
title: plug-ins
arms: [standard-distill+loss=huber, standard-distill+loss=huber+part=k, standard-copy+source=second-next]
"""


def test_names_in_arms_are_those_of_files():
    for kind, named, load in (
        ("losses", arm.Loss, loss_named),
        ("parts", arm.Part, part_named),
        ("sources", arm.Source, source_named),
    ):
        assert get_args(named) == plugins.names(f"transfer/{kind}") and len(get_args(named)) > 3
        assert all(load(name) is not None for name in get_args(named))


@pytest.mark.parametrize("loss", plugins.names("transfer/losses"))
def test_a_loss_declares_what_it_compares(loss):
    declared = plugins.constant("transfer/losses", loss, "OF_DISTRIBUTIONS", None)
    assert declared is loss_named(loss).OF_DISTRIBUTIONS is (loss in ("ce", "kl"))


def test_declarations_are_read_without_importing():
    assert [part for part in plugins.names("transfer/parts") if not Transfer(part=part).needs_route] == ["map"]
    assert [each for each in plugins.names("transfer/sources") if Transfer(source=each).needs_average] == ["average"]
    assert [each for each in plugins.names("transfer/sources") if Transfer(source=each).needs_whole_batch] == ["other-image"]


@pytest.mark.long
def test_a_new_loss_and_a_new_source_are_one_file_each(tmp_path, tiny):
    for folder in ("families", "benchmark"):
        shutil.copytree(ROOT / folder, tmp_path / "copy" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    transfer = tmp_path / "copy" / "benchmark" / "transfer"
    (transfer / "losses" / "huber.py").write_text(LOSS)
    (transfer / "sources" / "second_next.py").write_text(SOURCE)
    (tmp_path / "plugged.yaml").write_text(STUDY)
    words = ("--family", "deit", "--sizes", "base", "--protocol", tiny, "--study", tmp_path / "plugged.yaml", "--seeds", "0")
    where = ("--results", tmp_path / "r", "--work", tmp_path / "w", "--cluster", "debug")
    done = python("-m", "benchmark.cli", "run", *words, *where, cwd=tmp_path / "copy")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "r").rglob("*.json")}
    assert found["standard-distill+loss=huber-s0"]["run"]["transfer"]["loss"] == "huber"
    assert found["standard-copy+source=second-next-s0"]["run"]["transfer"]["source"] == "second-next" and len(found) == 5
