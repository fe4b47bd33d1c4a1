"""Evaluations that finished runs lack."""

from __future__ import annotations

from benchmark.execution.survey import Survey
from benchmark.spec.evaluations import on_set
from benchmark.spec.plan import Item, evaluated
from benchmark.storage.result_file import Result, labelled


def lacking(survey: Survey) -> list[Item]:
    """Evaluations of a plan's finished runs on sets of the protocol that are not in their results;
    none where the command only evaluates what it was asked for."""
    found = list[Item]()
    for key in (*survey.launch.outcome.found, *survey.launch.outcome.restored) if survey.trains else ():
        item = survey.plan.items[key]
        results = _results_of(survey, item) if item.evaluation is None else []
        if results:
            wanted = (on_set(item.run, name) for name in ("test", *item.run.settings.data.shifted_sets))
            found += [evaluated(item, each) for each in wanted if not all(result.has(each) for result in results)]
    return found


def _results_of(survey: Survey, item: Item) -> list[Result]:
    """The results of a finished run in its cells, as they will be; also one that is in the work
    folder alone."""
    own, payload = survey.recorded.get(item.key), survey.payload(item.key)
    if own is None:
        return [] if payload is None else [Result.model_validate(labelled(item.cells[0], item.run, payload))]
    there = [survey.launch.results.get(cell) for cell in item.cells] if len(item.cells) > 1 else []
    return [own, *(each.model_copy(update={"evaluations": own.evaluations}) for each in there if isinstance(each, Result))]
