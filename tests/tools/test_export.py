"""Finished models load back into timm with equal outputs, and serve as a detector's backbone."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard

from benchmark.spec.definitions import run_of
from benchmark.spec.evaluations import measured_on
from benchmark.spec.protocol import load_protocol
from benchmark.spec.run import Cell
from benchmark.storage.work_folder import Workspace
from benchmark.training.models import finished_model, student_of, timm_args
from families import load

from ..conftest import ROOT, perturbed, python
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
        assert list(config["mean"]) == pytest.approx([0.19] * 3) and tuple(config["input_size"]) == (3, 24, 24)
        source = (
            re.search(r"(timm\.create_model\('.*)", told).group(1).replace("PATH/TO/THIS/FOLDER", str(tmp_path / f"out{number}"))
        )
        torch.testing.assert_close(eval(source).eval()(x), loaded(x))


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


class Hub(ThreadingHTTPServer):
    """A hub that makes repositories, takes files whole, and gives them back."""

    def __init__(self):
        self.files, self.made, self.status = {}, [], None
        super().__init__(("127.0.0.1", 0), HubHandler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class HubHandler(BaseHTTPRequestHandler):
    """Its answers, in the hub's own protocol."""

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def log_message(self, *words):
        pass

    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def content(self):
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        content = self.content()
        if self.server.status is not None:
            return self.answer({"error": "no"}, self.server.status)
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(content))
            return self.answer({"url": f"{self.address}/me/{self.server.made[-1]['name']}"})
        if "/preupload/" in self.path:
            asked = [each["path"] for each in json.loads(content)["files"]]
            return self.answer({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]})
        assert "/commit/main" in self.path
        for line in map(json.loads, content.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer({"commitUrl": f"{self.address}/me/student/commit/c0ffee", "commitOid": "c0ffee" + "0" * 34})

    def do_GET(self):
        name = self.path.partition("/resolve/main/")[2]
        if name not in self.server.files:
            return self.answer({"error": "none"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit="c0ffee" + "0" * 34)
        content = self.server.files[name]
        return self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit="c0ffee" + "0" * 34)

    do_HEAD = do_GET  # noqa: N815


def command_on(hub, *words, impatient=False, **more):
    """The command in a process of its own, since the client reads the hub's address when it is imported; `impatient`:
    the client tries again at once."""
    waits = "import time; time.sleep = lambda seconds: None; " if impatient else ""
    code = f"{waits}import sys; from benchmark.cli import main; sys.exit(main(sys.argv[1:]))"
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    return python("-c", code, *words, env={"HF_ENDPOINT": address, "HF_TOKEN": "hf_x", **more})


@pytest.mark.long
def test_an_exported_model_is_uploaded_and_loads_from_the_hub(kept, tmp_path):
    run, _, folder, words = kept("deit", "standard-distill")
    hub = Hub()
    done = command_on(hub, *words, "--out", tmp_path / "out", "--push", "me/student", "--private", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    assert "/me/student/commit/c0ffee" in done.stdout.splitlines()[-1]
    (made,) = hub.made
    assert (made["name"], made["organization"]) == ("student", "me")
    assert made.get("private") is True or made.get("visibility") == "private"  # older and newer clients
    assert hub.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    code = "import timm, torch, sys; model = timm.create_model('hf-hub:me/student', pretrained=True).eval();"
    code += "print(json.dumps(model(torch.ones(1, 3, 24, 24) / 3).tolist()))"
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HOME": str(tmp_path / "hf2")}
    loaded = python("-c", "import json; " + code, env=address)
    assert loaded.returncode == 0, loaded.stderr
    expected = finished_model(run, folder / "weights.pt")(torch.ones(1, 3, 24, 24) / 3)
    torch.testing.assert_close(torch.tensor(json.loads(loaded.stdout)), expected, atol=1e-5, rtol=0)


def test_the_card_is_read_as_the_hub_reads_it(kept, bench, tmp_path):
    run, _, _, words = kept("deit", "standard-distill")
    assert bench(*words, "--out", tmp_path / "out")[0] == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("timm", "image-classification") and "attention-transfer" in data[
        "tags"
    ]
    assert "license" not in data, "students of teachers that were trained here have none that we know"
    assert {each.metric_name: each.metric_value for each in card.data.eval_results} == {"top-1": 12.5, "top-5": 50.0}
    told = data["attention_transfer"]
    assert (told["method"], told["student"], told["run"], told["commit"]) == ("distill", "standard", run.key, "c0ffee")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pretrained_cfg"]["tag"] == "tiny.standard-distill-s0"
    assert not {"url", "hf_hub_id", "paper_ids", "license"} & {k for k, v in config["pretrained_cfg"].items() if v}


@pytest.mark.long
def test_a_hub_that_refuses_or_is_away(kept, bench, tmp_path):
    words = kept("deit", "standard-distill")[3]
    hub = Hub()
    hub.status = 401
    done = command_on(hub, *words, "--out", tmp_path / "a", "--push", "me/student")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--push 'me/student'" in done.stderr
    assert (tmp_path / "a" / "README.md").exists() and f"the model is in {tmp_path / 'a'}: delete it" in done.stderr
    for wrong in ("a b/c/d", "name", "a b/c", ""):
        code, _, err = bench(*words, "--out", tmp_path / "b", "--push", wrong)
        assert code == 2 and err.count("\n") == 1 and not (tmp_path / "b").exists()
    hub.shutdown()
    hub.server_close()
    done = command_on(hub, *words, "--out", tmp_path / "c", "--push", "me/student", impatient=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    code, _, err = bench(*words, "--private")
    assert code == 2 and "--private goes with --push" in err
