"""Results as a tidy table: one row a score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

import pandas as pd

from benchmark.analysis.measures import MEASURES
from benchmark.spec.arm import Arm
from benchmark.spec.definitions import is_teacher
from benchmark.storage.result_file import Result
from benchmark.storage.scores import BoxScore

# Columns by what they hold: labels, scores, and what is the same in every row of a result.
LABELS = ("protocol", "family", "size", "arm", "student", "method", "seed", "set")
SCORES = ("top1", "top5", "loss", "box_ap", "mask_ap")
OF_RESULT = ("val", "area", "attention_kl", "teacher_top1", "steps", "seconds", "device", "finished", "commit", "code", "key")
COLUMNS = (*LABELS, *SCORES, *OF_RESULT)


def tidy(results: Iterable[Result]) -> pd.DataFrame:
    """One row for each score of each result: on the test set (`set` is "test"), then on every other
    set and by every other evaluation that it has.

    Columns:
        protocol, family, size, arm, seed: the labels of the result.
        student, method: standard or matched, and none, copy or distill, of the arm; of a teacher,
            "teacher" and its arm.
        set: what was measured: "test", a shifted set, or an evaluation such as "knn".
        top1, top5: in percent. loss: mean cross-entropy.
        box_ap, mask_ap: COCO's average precision in percent, of detectors.
        val: top-1, or a detector's box AP, on val at the end of training, in percent.
        area: mean top-1 on val over the training, in percent (protocol.measure: area).
        attention_kl: mean over the transferred blocks of KL(teacher || student), in nats, on test.
        teacher_top1: of the result's teacher on test, in percent.
        steps, seconds, device: of training. finished: its end, ISO 8601.
        commit, code: the commit, and the digest of the code that can change a number.
        key: the identity of the run. Equal keys are one run.

    What a result does not have is missing (NaN or None).
    """
    rows = [row for result in results for row in _rows(result)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        dict.fromkeys((*SCORES, "val", "area", "attention_kl", "teacher_top1"), float)
    )


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    cell, made = result.cell, result.provenance
    student, method = ("teacher", cell.arm) if is_teacher(cell.arm) else (Arm.parse(cell.arm).student, Arm.parse(cell.arm).method)
    labels: dict[str, Any] = {"protocol": cell.protocol, "family": cell.family, "size": cell.size, "arm": cell.arm}
    labels |= {"student": student, "method": method, "seed": cell.seed}
    kl, boxes = result.metrics.attention_kl, isinstance(result.metrics, BoxScore)
    same = {
        "val": result.val_value,
        "area": None if boxes or not result.curve or result.val_value is None else MEASURES["area"].of(result),
        "attention_kl": fmean(kl) if kl else None,
        "teacher_top1": None if result.teacher is None else result.teacher.top1,
        "steps": result.run.protocol.recipe.steps,
        "seconds": result.cost.seconds,
        "device": result.cost.device,
        "finished": made.finished,
        "commit": made.commit,
        "code": made.code,
        "key": result.key,
    }
    yield labels | {"set": "test"} | _scores(result.metrics) | same
    for name, score in result.evaluations.items():
        yield labels | {"set": name} | _scores(score) | same


def _scores(score: object) -> dict[str, Any]:
    return {name: getattr(score, name, None) for name in SCORES}
