"""Finished models load back into timm with equal outputs, and serve as a detector's backbone."""

import re

import pytest
import timm
import torch
import yaml

from benchmark.spec.definitions import run_of
from benchmark.spec.evaluations import measured_on
from benchmark.spec.protocol import load_protocol
from benchmark.spec.run import Cell
from benchmark.storage.work_folder import Workspace
from benchmark.training.models import finished_model, student_of, timm_args
from families import load

from ..conftest import ROOT, perturbed
from ..made import MADE

EXPORTED = {
    "deit": ["standard-distill", "finetune", "teacher"],
    "dinov2_reg": ["matched-distill", "matched-none+native=registers", "finetune"],
    "beitv2": ["matched-none", "finetune", "matched-none+without=no_pos_embed"],
    "clip": ["matched-distill", "teacher"],
    "mae": ["matched-none"],
    "mocov3": ["matched-none"],
    "dinov3": ["matched-distill", "teacher"],
    "siglip2": ["matched-none"],
    "timm:vit_base_patch16_rope_mixed_ape_224": ["matched-distill", "standard-distill"],
}


@pytest.fixture
def kept(tmp_path, tiny):
    """Put perturbed weights where a finished run would have left them: gives the run and the words to export it."""
    protocol = load_protocol(str(tiny))[1]
    workspace = Workspace(tmp_path / "work")

    def keep(family, arm, finish=True):
        cell = Cell("tiny", family, "base", arm, 0)
        run = run_of(protocol, cell)
        folder = workspace.run(run.key).path
        folder.mkdir(parents=True)
        if finish:
            score = {"top1": 12.5, "top5": 50.0, "loss": 2.0}
            made_by = MADE["provenance"] | {"commit": "c0ffee", "finished": "2026-01-01"}
            metrics, val = (score | {"on": measured_on(run, name)} for name in ("test", "val"))
            payload = {**MADE, "metrics": metrics, "val": val, "curve": [], "teacher": None, "provenance": made_by}
            workspace.finish(run.key, payload, None)
        model = student_of(run) if run.role == "student" else load(family).architecture("base", **timm_args(run))
        torch.save(perturbed(model).state_dict(), folder / "weights.pt")
        study = tmp_path / "study.yaml"
        study.write_text(yaml.safe_dump({"title": "-", "arms": ["standard-none" if arm == "teacher" else arm]}))
        if arm == "teacher":
            study.write_text(yaml.safe_dump({"title": "-", "arms": ["standard-copy"]}))
        words = ["export", run.key, "--family", family, "--sizes", "base", "--seeds", "0", "--study", study]
        return run, cell, folder, [*words, "--protocol", tiny, "--work", tmp_path / "work"]

    return keep


@pytest.mark.parametrize("family", EXPORTED)
def test_what_was_exported_loads_back(family, kept, bench, tmp_path):
    for number, arm in enumerate(EXPORTED[family]):
        run, _, folder, words = kept(family, arm)
        code, _, err = bench(*words, "--out", tmp_path / f"out{number}")
        assert code == 0, err
        model = finished_model(run, folder / "weights.pt")
        x = torch.randn(2, 3, 24, 24)
        loaded = timm.create_model(f"local-dir:{tmp_path / f'out{number}'}", pretrained=True).eval()
        torch.testing.assert_close(loaded(x), model(x), atol=1e-5, rtol=0)
        assert model(x).abs().max() > 1e-3
        assert len({path.stat().st_mode for path in (tmp_path / f"out{number}").iterdir()}) == 1
        told = (tmp_path / f"out{number}" / "README.md").read_text()
        assert "top-1 in % on the protocol's test set: 12.5" in told and run.key in told
        config = timm.data.resolve_model_data_config(loaded)
        assert list(config["mean"]) == pytest.approx([0.19] * 3) and config["input_size"] == (3, 24, 24)
        source = (
            re.search(r"(timm\.create_model\('.*)", told).group(1).replace("PATH/TO/THIS/FOLDER", str(tmp_path / f"out{number}"))
        )
        torch.testing.assert_close(eval(source.replace("true", "True").replace("false", "False")).eval()(x), loaded(x))


def test_what_cannot_be_exported(kept, bench, tmp_path):
    for arm, words in [
        ("standard-copy", "Copy needs its teacher's attention at test time"),
    ]:
        code, _, err = bench(*kept("deit", arm)[3])
        assert code == 2 and words in err and len(err.strip().splitlines()) == 1
    code, _, err = bench(*kept("deit", "standard-distill", finish=False)[3])
    assert code == 2 and "not finished" in err
    run = kept("deit", "matched-none")[3]
    (tmp_path / "there").mkdir()
    code, _, err = bench(*run, "--out", tmp_path / "there")
    assert code == 2 and "it is there already" in err
    code, _, err = bench(*kept("clip", "matched-none+native=norm_eps")[3])
    assert code == 2 and "no architecture of timm's has exactly these components" in err


def test_an_exported_backbone_gives_features_as_documented(kept, bench, tmp_path):
    """The example of docs/detection.md, at another image size than the student's."""
    _, _, _, words = kept("dinov2_reg", "matched-distill")
    assert bench(*words, "--out", tmp_path / "out")[0] == 0
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "detection.md").read_text(), re.S)
    names = {}
    exec(block.replace("PATH/TO/EXPORT", str(tmp_path / "out")).replace("img_size=448", "img_size=48"), names)
    features = names["backbone"](torch.rand(1, 3, 48, 48))
    assert features[-1].shape[2] == features[-1].shape[3] and len(names["how"]["mean"]) == 3
    side = names["backbone"].model.patch_embed.patch_size[0]
    assert features[-1].shape[-1] == 48 // side
