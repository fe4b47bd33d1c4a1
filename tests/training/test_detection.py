"""Detectors on the backbones of finished runs: model, scores, and a training that resumes exactly."""

import json
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.image_list import ImageList

from benchmark import data
from benchmark.data import DataLocation
from benchmark.data.boxes import truth_of
from benchmark.spec.arm import Arm
from benchmark.spec.definitions import run_of
from benchmark.spec.plan import make_plan
from benchmark.spec.protocol import Protocol
from benchmark.spec.records import validated
from benchmark.spec.run import Cell
from benchmark.spec.study import Study
from benchmark.training.detection.detector import Detector, Pyramid
from benchmark.training.detection.scoring import average_precision, detections, encoded, pasted
from benchmark.training.detection.windows import global_of, restrict, window_bias
from benchmark.training.models import finished_model, frozen_teacher, model_of, student_of
from benchmark.training.state_files import weights_digest
from benchmark.transfer.attention_transfer import AttentionTransfer
from families.core.adapter import normalised
from families.core.attention import layout, read_routes
from families.spec import UserError

from ..conftest import WEIGHTS, perturbed, tiny_protocol
from .test_train import fit

TASK = "digit_boxes"


def protocol_of(**detector):
    content = tiny_protocol()
    task = content["tasks"][TASK]
    task["data"] |= {"val_images": 6, "test_images": 8}
    task["detector"] = {"width": 8, "anchor": 4, "proposals": 20, "sampled": 8, "detections": 5} | detector
    task["recipe"] |= {"steps": 4, "batch_size": 4}
    return validated(Protocol, content, "tiny")


def detector_run(arm="standard-none", family="deit", **detector):
    return run_of(protocol_of(**detector), Cell("tiny", family, "base", f"{arm}+task={TASK}", 0))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Perturbed weights of a student by family, as a finished run leaves them."""

    def made(family, arm):
        run = run_of(protocol_of(), Cell("tiny", family, "base", arm, 0))
        path = tmp_path_factory.mktemp("backbone") / WEIGHTS
        torch.save(perturbed(student_of(run)).state_dict(), path)
        return path

    return made


@pytest.mark.parametrize(
    ("family", "arm"), [("deit", "standard-none"), ("beitv2", "matched-none"), ("dinov2_reg", "matched-none")]
)
def test_a_detector_begins_with_its_backbones_weights(backbone, family, arm):
    """All of them but the head, with position tables at the detector's grid; other parameters depend on the run alone."""
    path = backbone(family, arm)
    run, before = detector_run(arm, family), torch.load(path)
    one, two = model_of(run, {"backbone": path}), model_of(run, {"backbone": path})
    body = one.body.state_dict()
    kept = {name for name in before if not name.startswith(("head.", "norm.", "fc_norm."))}
    assert body.keys() == kept
    moved = {name for name in body if body[name].shape != before[name].shape}
    assert (
        all(each.endswith(("pos_embed", "relative_position_bias_table", "relative_position_index")) for each in moved) and moved
    )
    assert all(torch.equal(body[name], before[name]) for name in kept - moved)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    torch.save(one.state_dict(), path.with_name("own.pt"))
    again = finished_model(run, path.with_name("own.pt"))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_pyramid_equals_its_formulation_written_out(backbone):
    """ViTDet's simple feature pyramid, from the tokens of the last block."""
    body = model_of(detector_run(), {"backbone": backbone("deit", "standard-none")}).body
    pyramid = perturbed(Pyramid(body, 8)).eval()
    images = torch.randn(2, 3, 48, 48)
    x = body.patch_embed(images)
    x = body._pos_embed(x)
    for block in body.blocks:
        x = block(x)
    last = x[:, 1:].transpose(1, 2).reshape(2, 48, 6, 6)

    def norm(x, layer):
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return (x - mean) / (var + layer.eps).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]

    def tail(x, level):
        one, first, three, second = list(level)[-4:]
        return norm(F.conv2d(norm(F.conv2d(x, one.weight), first), three.weight, padding=1), second)

    def doubled(x, layer):  # stride 2, kernel 2: each place becomes 2 x 2
        b, _, h, w = x.shape
        out = torch.einsum("bihw,iopq->bohpwq", x, layer.weight).reshape(b, -1, 2 * h, 2 * w)
        return out + layer.bias[:, None, None]

    four, two, one, half = pyramid.levels
    wanted = [
        tail(doubled(F.gelu(norm(doubled(last, four[0]), four[1])), four[3]), four),
        tail(doubled(last, two[0]), two),
        tail(last, one),
        tail(last.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)), half),
    ]
    wanted.append(wanted[-1][:, :, ::2, ::2])
    found = pyramid(images)
    assert [tuple(each.shape[2:]) for each in found.values()] == [(24, 24), (12, 12), (6, 6), (3, 3), (2, 2)]
    for own, other in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "arm"), [("deit", "standard-none"), ("beitv2", "matched-none"), ("dinov2_reg", "matched-none")]
)
def test_windows_are_attention_within_parts_of_the_image(backbone, family, arm):
    """A block with windows computes, for the patches of a window, what it would without the patches outside it."""
    body = model_of(detector_run(arm, family), {"backbone": backbone(family, arm)}).body.eval()
    images = torch.randn(2, 3, 48, 48)
    restrict(body, windows=2, global_blocks=1)
    assert global_of(12, 4) == {2, 5, 8, 11} and global_of(2, 1) == {1}
    names = layout(body)
    first, second = (route.map() for route in read_routes(body, images))
    restrict(body, windows=1, global_blocks=1)
    (whole,) = read_routes(body, images, [0])
    places = {name: tuple(map(int, name.removeprefix("patch").split(","))) for name in names if name.startswith("patch")}
    for row in (0, 1):
        for column in (0, 1):
            own = [
                i
                for i, name in enumerate(names)
                if name in places and (places[name][0] // 3, places[name][1] // 3) == (row, column)
            ]
            seen = [i for i, name in enumerate(names) if name not in places] + own
            alone = whole.select(seen).map()[:, :, -len(own) :]
            torch.testing.assert_close(first[:, :, own][..., seen], alone)
            others = [i for i in range(len(names)) if i not in seen]
            assert not first[:, :, own][..., others].any()
    assert second.min() > 0 and math.isinf(window_bias(body, 2).min())


def test_copy_hands_over_the_teachers_maps_of_the_detectors_images(tmp_path, backbone):
    """At the detector's size, with its windows: the teacher's own weights at that size, written out."""
    run = detector_run("standard-copy", windows=2, global_blocks=1)
    teacher_path = tmp_path / WEIGHTS
    plain = run_of(protocol_of(), Cell("tiny", "deit", "base", "teacher", 0))
    torch.save(perturbed(model_of(plain, {}), seed=3).state_dict(), teacher_path)
    files = {"backbone": backbone("deit", "standard-copy"), "run": teacher_path}
    detector, teacher = model_of(run, files).eval(), frozen_teacher(run, files)
    images = torch.randn(2, 3, 48, 48)
    maps = [route.map() for route in read_routes(teacher, images)]
    transfer = AttentionTransfer(run.transfer, detector.body, teacher)
    with torch.no_grad(), transfer.guiding(images):
        found = detector.backbone(images)
    body = detector.body
    x = body._pos_embed(body.patch_embed(images))
    for block, given in zip(body.blocks, maps, strict=True):
        v = block.attn.qkv(block.norm1(x))[..., 2 * 48 :].unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)
        x = x + block.attn.proj((given @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    wanted = detector.backbone.levels[2](x[:, 1:].transpose(1, 2).reshape(2, 48, 6, 6))
    torch.testing.assert_close(found["2"], wanted, rtol=1e-4, atol=1e-4)


def test_average_precision_equals_pycocotools_called_directly(tmp_path):
    """By its files, of detections that are right, shifted, of another class, and too many."""
    dataset = data.load(protocol_of().tasks[TASK].data, DataLocation(), 48, None)
    truth, draw = dataset.truth("test"), torch.Generator().manual_seed(0)
    found = []
    for each in truth["annotations"]:
        for move in (0, 1, 5):
            left, top, width, height = each["bbox"]
            mask = torch.zeros(48, 48, dtype=torch.bool)
            mask[int(top) : int(top + height), int(left + move) : int(left + move + width)] = True
            label = each["category_id"] if move < 5 else 1 + each["category_id"] % 10
            score = float(torch.rand((), generator=draw))
            found.append({"image_id": each["image_id"], "category_id": label, "score": score,
                          "bbox": [left + move, top, width, height], "segmentation": encoded(mask)})  # fmt: skip
    scores = average_precision(truth, found)
    files = [tmp_path / "truth.json", tmp_path / "found.json"]
    for path, content in zip(files, (truth, found), strict=True):
        path.write_text(json.dumps(content, default=lambda value: value.decode()))
    true = COCO(str(files[0]))
    given = true.loadRes(str(files[1]))
    for kind, name in (("box", "bbox"), ("mask", "segm")):
        if name == "segm":  # without boxes, whose sizes would stand for those of masks
            given = true.loadRes([{key: each[key] for key in each if key != "bbox"} for each in found])
        evaluation = COCOeval(true, given, name)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        own = [scores[f"{kind}_{number}"] for number in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")]
        assert own == [None if value < 0 else pytest.approx(100 * value) for value in evaluation.stats[:6]]
    assert 0 < scores["box_ap"] < 100 and scores["box_ap_large"] is None
    assert average_precision(truth, [])["mask_ap50"] == 0


def test_sizes_of_masks_are_those_of_their_pixels():
    """A wrong mask of 800 pixels in a box of 1,600 is small: it counts against small objects, as in COCO."""
    whole, half = torch.zeros(100, 100, dtype=torch.bool), torch.zeros(100, 100, dtype=torch.bool)
    whole[:20, :20], half[50:70, 50:90] = True, True
    true = {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 20, 20], "area": 400.0,
            "segmentation": encoded(whole)}  # fmt: skip
    truth = {"info": {}, "images": [{"id": 7, "height": 100, "width": 100}], "annotations": [true],
             "categories": [{"id": 1, "name": "a"}]}  # fmt: skip
    right = {"image_id": 7, "category_id": 1, "score": 0.5, "bbox": [0, 0, 20, 20], "segmentation": encoded(whole)}
    wrong = right | {"score": 0.9, "bbox": [50, 50, 40, 40], "segmentation": encoded(half)}
    scores = average_precision(truth, [right, wrong])
    assert scores["mask_ap_small"] == pytest.approx(50) and scores["box_ap_small"] == pytest.approx(100)
    nothing = average_precision(truth, [])
    assert nothing["box_ap"] == nothing["mask_ap_small"] == 0 and nothing["box_ap_large"] is None


def test_detections_are_told_in_pixels_of_the_original_image():
    """Of one that is wider than high and was resized: boxes by both axes, masks where their centres lie."""
    target = {"image": 3, "size": (60, 101), "shown": (29, 48)}
    mask = torch.zeros(1, 1, 28, 28)
    mask[..., :13] = 1  # nearly the left half of its box
    found = {"boxes": torch.tensor([[12.0, 0.0, 36.0, 29.0]]), "labels": torch.tensor([2]), "scores": torch.tensor([0.5]),
             "masks": mask}  # fmt: skip
    (told,) = detections(target, found)
    assert told["image_id"] == 3 and told["category_id"] == 2
    assert told["bbox"] == pytest.approx([25.25, 0, 50.5, 60])
    pixels = torch.from_numpy(rle.decode(told["segmentation"]))
    assert pixels.shape == (60, 101) and (pixels.sum(1) == pixels[0].sum()).all()
    assert pixels[0].nonzero().flatten().tolist() == list(range(25, 49))


@pytest.mark.parametrize("size", [12, 20, 40])
def test_a_perfect_mask_is_pasted_as_it_was(size):
    """A disc's probabilities over its box give its pixels again, but for its edge."""
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    disc = (y - 30) ** 2 + (x - 30) ** 2 <= (size / 2) ** 2
    box = torch.tensor([30 - size / 2, 30 - size / 2, 30 + size / 2, 30 + size / 2])
    cells = (torch.arange(28) + 0.5) / 28 * size + 30 - size / 2
    mask = ((cells[:, None] - 30) ** 2 + (cells - 30) ** 2 <= (size / 2) ** 2).float()
    found = pasted(mask, box, (60, 60))
    assert (found & disc).sum() / (found | disc).sum() > 0.95
    assert not pasted(mask, torch.tensor([70.0, 0, 80, 10]), (60, 60)).any()


def test_cells_of_patches_of_14_have_their_true_sides():
    """Anchors and pooled regions are where their pixels are, to the last column of the image."""
    body = timm.create_model("vit_tiny_patch16_224", patch_size=14, img_size=112, embed_dim=24, depth=2, num_heads=2)
    settings = protocol_of().tasks[TASK].detector
    detector = Detector(body, settings, 10, "seed")
    features = detector.backbone(torch.randn(1, 3, 112, 112))
    assert [each.shape[-1] for each in features.values()] == [32, 16, 8, 4, 2]
    anchors = detector.rpn.anchor_generator(ImageList(torch.zeros(1, 3, 112, 112), [(112, 112)]), list(features.values()))[0]
    centres = (anchors[:, 0] + anchors[:, 2]) / 2
    counts = [3 * side**2 for side in (32, 16, 8, 4, 2)]
    for own, stride in zip(centres.split(counts), (3.5, 7, 14, 28, 56), strict=True):
        assert own.unique().tolist() == pytest.approx([stride * place for place in range(int(112 / stride))])
    ramp = {name: torch.arange(each.shape[-1]).mul(112 / each.shape[-1]).expand_as(each) for name, each in features.items()}
    for box in ([90.0, 90, 104, 104], [30.0, 30, 100, 100]):  # a ramp of x: the mean over a box is its middle
        pooled = detector.roi_heads.box_roi_pool(ramp, [torch.tensor([box])], [(112, 112)])
        assert float(pooled.mean()) == pytest.approx((box[0] + box[2]) / 2, abs=0.1)


@pytest.mark.long
def test_a_detector_learns_the_objects_that_it_is_shown(backbone):
    """Boxes and masks of four images, at their places."""
    run = detector_run(width=32, proposals=100, sampled=64, detections=20)
    detector = model_of(run, {"backbone": backbone("deit", "standard-none")})
    dataset = data.load(protocol_of().tasks[TASK].data, DataLocation(), 48, None)
    images, targets = dataset.compose("train", 4, torch.Generator().manual_seed(0))
    x, optimizer = normalised(images, run.protocol.normalisation), torch.optim.AdamW(detector.parameters(), 1e-3)
    torch.manual_seed(0)
    for _ in range(250):
        optimizer.zero_grad()
        detector.train()(x, targets).backward()
        optimizer.step()
    with torch.no_grad():
        found = detector.eval()(x, targets)
    told = [one for target, each in zip(targets, found, strict=True) for one in detections(target, each)]
    scores = average_precision(truth_of(targets, [str(digit) for digit in range(10)]), told)
    assert scores["box_ap50"] > 90 and scores["mask_ap50"] > 90, scores


def test_true_objects_found_whole_score_100():
    dataset = data.load(protocol_of().tasks[TASK].data, DataLocation(), 48, None)
    truth = dataset.truth("val")
    found = [
        {name: each[name] for name in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 1.0}
        for each in truth["annotations"]
    ]
    scores = average_precision(truth, found)
    assert scores["box_ap"] == pytest.approx(100) and scores["mask_ap"] == pytest.approx(100)


def test_digit_boxes_are_a_function_of_stream_and_step():
    """Boxes lie tightly around masks; sets are fixed; two processes have each a half of a batch."""
    protocol = protocol_of()
    task = protocol.tasks[TASK]
    dataset = data.load(task.data, DataLocation(), 48, None)
    images, targets = next(dataset.train("a", task.recipe, 3))
    again, same = next(dataset.train("a", task.recipe, 3))
    assert torch.equal(images, again) and all(
        torch.equal(one["masks"], two["masks"]) for one, two in zip(targets, same, strict=True)
    )
    assert not torch.equal(images, next(dataset.train("a", task.recipe, 4))[0])
    for image, target in zip(images, targets, strict=True):
        assert 1 <= len(target["labels"]) <= 4 and set(target["labels"].tolist()) <= set(range(1, 11))
        for (left, top, right, bottom), mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
            inside = mask[top:bottom, left:right]
            assert (
                inside.sum() == mask.sum() > 0
                and all(inside[edge].any() for edge in (0, -1))
                and all(inside[:, edge].any() for edge in (0, -1))
            )
            assert image[:, mask.bool()].amax(0).min() > 0
    halves = [
        next(data.load(task.data, DataLocation(rank=rank, ranks=2), 48, None).train("a", task.recipe, 3)) for rank in (0, 1)
    ]
    assert sum(len(half[1]) for half in halves) == 4 and torch.equal(halves[0][0][0], images[0])


def test_stopped_and_resumed_is_uninterrupted(tmp_path, backbone):
    """Exactly: weights, curve and scores of a detector."""
    protocol = protocol_of()
    study = Study(title="-", arms=[f"standard-none+task={TASK}"])
    item = list(make_plan("tiny", protocol, "study", study, [("deit", "base")], [0]).items.values())[-1]
    files = {"backbone": backbone("deit", "standard-none")}
    whole = fit(item, tmp_path / "whole", files=files)
    assert fit(item, tmp_path / "parts", files=files, stop_at=3) is None
    parts = fit(item, tmp_path / "parts", files=files)
    assert parts["metrics"] == whole["metrics"] and parts["curve"] == whole["curve"]
    assert {"box_ap", "mask_ap50", "on"} <= whole["metrics"].keys() and "val_box_ap" in whole["curve"][0]
    digests = {weights_digest(tmp_path / name / WEIGHTS) for name in ("whole", "parts")}
    assert len(digests) == 1


def test_training_reaches_every_parameter(backbone):
    """One step changes all of a detector, its backbone too."""
    run = detector_run()
    detector = model_of(run, {"backbone": backbone("deit", "standard-none")})
    assert isinstance(detector, Detector)
    task = protocol_of().tasks[TASK]
    images, targets = next(data.load(task.data, DataLocation(), 48, None).train("a", task.recipe, 0))
    detector.train()(normalised(images, run.protocol.normalisation), targets).backward()
    assert [name for name, each in detector.named_parameters() if each.grad is None] == []


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ("standard-none+task=digits", "unknown task of this protocol: 'digits'; did you mean 'digit_boxes'"),
        ("standard-none+lr=x2+task=digit_boxes", "task goes without budget, lr"),
        ("standard-none+match=end+task=digit_boxes", "task goes without budget"),
    ],
)
def test_impossible_detectors_are_refused_in_one_line(arm, told):
    with pytest.raises(UserError) as error:
        Arm.parse(arm)
        run_of(protocol_of(), Cell("tiny", "deit", "base", arm, 0))
    assert told in str(error.value) and "\n" not in str(error.value)


def test_windows_hold_whole_patches():
    with pytest.raises(UserError, match=r"48 px are not 4 windows of whole patches a side \(8 px\)"):
        detector_run(windows=4)
