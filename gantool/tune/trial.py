"""One trial, in a worker process of Ray's."""

from __future__ import annotations

import contextlib
import math
import shutil
from pathlib import Path
from typing import Any


def run_trial(config: dict[str, Any]) -> None:
    """Train one configuration and report its metric to Ray whenever it is measured.

    A configuration that fails is reported with the reason, as `why`, and not raised: what fails once with these values
    fails again. Only the death of the process is for Ray to retry.

    Args:
        config: `number` of the trial, the text of its `recipe`, `folder` of its run, `data_dir`. Each is plain data:
            nothing that is trained on travels with it.
    """
    import ray
    from ray import tune

    from gantool import engine, recipe
    from gantool.errors import GantoolError, TrainingError
    from gantool.runs import Run

    best_epoch = 0
    try:
        chosen = recipe.parse(config["recipe"], f"trial {config['number']}", engine.KINDS)
        folder = Path(config["folder"])
        shutil.rmtree(folder, ignore_errors=True)  # what a worker left that died in this trial
        run = Run.create(config["recipe"], name=chosen.name, out=folder)
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        training = engine.train(chosen, run, data_dir=Path(config["data_dir"]), device=device, resumable=False)
        with contextlib.closing(training) as reports:
            for report in reports:
                if not report.metrics:
                    continue
                score = report.metrics[chosen.metric]
                if score <= report.best:
                    best_epoch = report.epoch
                tune.report(
                    {
                        "score": score,
                        "diagnoses": list(report.diagnoses),
                        "best": report.best,
                        "best_epoch": best_epoch,
                        "epoch": report.epoch,
                        "seconds": report.seconds,
                        "finished": report.epoch == chosen.train.epochs,
                    }
                )
                if "diverged" in report.diagnoses:
                    message = next(news.message for news in report.news if news.code == "diverged")
                    raise TrainingError(message.partition(";")[0])  # a search needs no advice
    except (GantoolError, RuntimeError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        tune.report({"score": math.nan, "epoch": -1, "finished": False, "why": why[:300], "done": True})
