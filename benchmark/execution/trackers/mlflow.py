"""MLflow: by its client, since runs that train together are open at once."""

from __future__ import annotations

import re
from collections.abc import Mapping

from benchmark.execution.trackers import PROJECT, Tracked


class MLflow:
    """One of its runs, found again by the tag `key`."""

    PACKAGE = "mlflow"

    def __init__(self, run: Tracked) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.client = MlflowClient()
        found = self.client.get_experiment_by_name(PROJECT)
        try:
            experiment = self.client.create_experiment(PROJECT) if found is None else found.experiment_id
        except MlflowException:  # another worker has just made it
            experiment = self.client.get_experiment_by_name(PROJECT).experiment_id
        before = self.client.search_runs([experiment], f"tags.key = '{run.key}'")
        if before:
            self.id = before[0].info.run_id
            return
        made = self.client.create_run(experiment, run_name=run.name, tags={"key": run.key, "protocol": run.group})
        self.id = made.info.run_id
        for name, value in run.settings.items():
            self.client.log_param(self.id, re.sub(r"[^\w\-. :/]", "_", name), value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics."""
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        """Log scores on test, and end it."""
        for name, value in summary.items():
            self.client.log_metric(self.id, name, value)
        self.client.set_terminated(self.id, status="FINISHED" if summary else "KILLED")


TRACKER = MLflow
