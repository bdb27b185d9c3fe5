"""What a study leaves for people: the winner as a recipe, a run and images, and a table of all trials."""

from __future__ import annotations

import csv
import io
import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gantool import images
from gantool.files import atomic_write
from gantool.files import write as write_file
from gantool.inference.compare import side_by_side
from gantool.inference.sampling import TrainedModel
from gantool.models.base import Generative
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.runs import Run
from gantool.terminal import duration, number, several
from gantool.training import engine
from gantool.tune.study import ENDED, MADE_WITH, Study, epochs_of, lowest
from gantool.tune.verdict import Verdict, shown

COMPARISON = "comparison.png"
OWN = "the recipe's own values"
STORY = ("sampler", "pruner", "tune_seed")  # of a trial: what chose and judged it


def recipe_of(study: Study, number: int) -> Recipe:
    """Return the recipe of a trial, with the full length of the one that is searched."""
    # The address of a database may hold a password, and training needs none.
    return engine.change(study.recipe, {**study.space.changes(study.trials()[number].params), "tune.storage": None})


def sentence(study: Study) -> str:
    """Return in one line what the search can say about its best setting; empty before a trial has finished."""
    verdict = study.verdict()
    if verdict is None:
        return ""
    told = verdict.sentence()
    if verdict.kind == "better":
        told = f"trial {verdict.number} of {len(study.trials())} is {told}"
    return f"{told}, after {several(verdict.epochs, 'epoch')}{_finished(study)}"


def interim_summary(study: Study) -> str:
    """Return in a few words how a search stands while it runs."""
    verdict, winner = study.verdict(), study.winner()
    if verdict is None or winner is None:
        return ""
    metric, race = study.recipe.metric, study.race()
    if verdict.kind == "unconfirmed" and (verdict.number != winner.number or verdict.values == (winner.value,)):
        lower = any((trial.value or 0.0) < (winner.value or 0.0) for trial in study.finished())
        copies = "; copies of training images left out" if lower else ""
        lowest = f"lowest {metric} {number(winner.value or 0.0)} (trial {winner.number}, one seed{copies})"
        if len(study.spent()) < study.wanted or race.over:
            return lowest
        if race.contender is None:
            among = ", ".join(str(trial.number) for trial in study.candidates())
            return f"{lowest}; new seeds choose among trials {among}"
        return f"{lowest}; new seeds compare trial {race.contender} with your recipe"
    seeds = several(len(verdict.values), "seed")
    told = f"trial {verdict.number}: {verdict.in_words(verdict.values)}"
    if not verdict.own:
        return f"{told} over {seeds}; your recipe failed"
    return f"{told}, your recipe: {shown(verdict.own)}, {seeds} each"


def advice(study: Study) -> str:
    """Return what would decide where the verdict is open, and how long that probably takes; else nothing."""
    verdict, race = study.verdict(), study.race()
    if verdict is None or race.pending or study.tune.confirm is None:
        return ""
    if verdict.kind != "unsure":
        return ""
    wanted = verdict.seeds_to_decide()
    if wanted is None:
        return "the two are so close that 100 seeds would hardly decide"
    took = [run.user_attrs["seconds"] for run in study.runs() if "seconds" in run.user_attrs]
    trainings = 2 * (wanted - len(verdict.values))
    seconds = trainings * statistics.fmean(took) / study.search.user_attrs.get("slots", 1) if took else 0.0
    about = f" (about {duration(seconds)})" if seconds else ""
    would = "would probably" if verdict.spread is not None else "may"
    return f"--set tune.confirm.seeds={wanted} {would} decide{about}"


def _finished(study: Study) -> str:
    """Return what the finished trainings of the winner and of its rival reached, where they are longer."""
    verdict = study.verdict()
    found = [(label, study.best_run(one)) for label, one in pair(study)]
    longer = {label: best for label, best in found if best and verdict and best.epochs > verdict.epochs}
    if not longer:
        return ""
    told = [f"{label} {number(best.value)} after {best.epochs}" for label, best in longer.items()]
    return f"; trained on with one seed: {', '.join(told)}"


def pair(study: Study) -> list[tuple[str, int]]:
    """Return the captions and numbers of the two trials to look at: the recipe's own values and their best rival."""
    own, verdict = study.own(), study.verdict()
    found = [] if own is None else [(OWN, own.number)]
    rival = None if verdict is None else verdict.number
    return found if rival is None else [*found, (f"trial {rival}", rival)]


def write(study: Study) -> None:
    """Write `trials.csv`, and `best.yaml` and `best.png` once a trial has finished; delete what nobody will need."""
    with study.cached_trials():
        write_file(study.path / "trials.csv", table(study))
        winner = study.winner()
        if winner is not None:
            _write_winner(study, winner.number)
        _drop_checkpoints(study)


def _write_winner(study: Study, winner: int) -> None:
    head = f"# {sentence(study)}.\n"
    path = study.path / "best.yaml"
    told = path.is_file() and path.read_text(encoding="utf-8").startswith(head)
    if not told:
        write_file(path, head + recipes.dump(recipe_of(study, winner)))
    best = study.best_run(winner)
    if best is None:
        return
    moved = study.point_to(best.folder)
    grid = best.folder / "samples" / f"epoch-{best.epoch:04d}.png"
    if grid.exists() and (moved or not told or not (study.path / "best.png").is_file()):
        with atomic_write(study.path / "best.png") as aside:
            shutil.copyfile(grid, aside)


def _drop_checkpoints(study: Study) -> None:
    """Delete the weights of every training that is over, but for the best of each trial that may win."""
    numbers = {number for _, number in pair(study)} | {one.number for one in (study.winner(),) if one is not None}
    if not study.race().over:
        numbers |= {trial.number for trial in study.candidates()}
    kept = {best.folder for best in map(study.best_run, numbers) if best is not None}
    running = {study.folder_of(run) for run in [*study.trials(), *study.runs()] if run.state not in ENDED}
    for run in [*study.trials(), *study.runs()]:
        folder = study.folder_of(run)
        if run.state in ENDED and folder not in kept | running:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def settle(study: Study) -> None:
    """Let Optuna's own best trial be the winner, and draw the winner beside the recipe's own values."""
    study.agree()
    compare(study)


def compare(study: Study) -> Path | None:
    """Draw what the recipe's own values and the best setting make of the same latents; None where there is no pair."""
    if not issubclass(study.recipe.model.target, Generative):
        return None
    named, lengths = {}, set()
    for label, one in pair(study):
        best = study.best_run(one)
        if best is not None and (best.folder / "checkpoints" / "best.pt").is_file():
            caption = "your recipe" if label == OWN else label
            named[f"{caption}: {study.recipe.metric} {number(best.value)}"] = TrainedModel(
                Run(best.folder), "best", "cpu"
            )
            lengths.add(best.epochs)
    if len(named) < 2 or len(lengths) > 1:  # a longer training beside a shorter one would mislead
        return None
    images.save(side_by_side(named), study.path / COMPARISON)
    return study.path / COMPARISON


def table(study: Study) -> str:
    """Return all trials as CSV, with the mean and deviation of those that were trained again with new seeds."""
    text = io.StringIO()
    keys, metric = list(study.space.ranges), study.recipe.metric
    confirmed = {one.number: one for one in study.confirmed()}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("number", "state", metric, *keys, "epochs", "seconds", "diagnoses", "why"),
            *(f"{metric}_mean", f"{metric}_std", "seeds", *STORY),
        ]
    )
    for row in rows(study):
        one = confirmed.get(row["number"])
        writer.writerow(
            [
                *(row["number"], row["state"], "" if row[metric] is None else row[metric]),
                *(row["values"].get(key, "") for key in keys),
                *(row["epochs"], row["seconds"], " ".join(row["diagnoses"]), row["why"]),
                *((one.mean, one.deviation, len(one.values)) if one else ("", "", "")),
                *(row[name] for name in STORY),
            ]
        )
    return text.getvalue()


def summary(study: Study) -> dict[str, Any]:
    """Return a study as plain values, for programs."""
    winner, verdict = study.winner(), study.verdict()
    return {
        "study": str(study.path),
        "metric": study.recipe.metric,
        "trials": study.tune.trials,
        "best": None if winner is None else winner.number,
        "sentence": sentence(study),
        "verdict": None if verdict is None else _plain(verdict),
        "advice": advice(study),
        "seconds": study.search.user_attrs.get("seconds", 0.0),
        "environment": study.search.user_attrs.get(MADE_WITH),
        "confirmed": [
            {
                "number": one.number,
                "values": [_json(value) for value in one.values],
                "mean": _json(one.mean),
                "deviation": _json(one.deviation),
                "epochs": one.epochs,
            }
            for one in study.confirmed()
        ],
        "rows": rows(study),
    }


def _plain(verdict: Verdict) -> dict[str, Any]:
    effect = verdict.effect
    return {
        "kind": verdict.kind,
        "trial": verdict.number,
        "values": [_json(value) for value in verdict.values],
        "own": [_json(value) for value in verdict.own],
        "ratio": None if effect is None else _json(effect.ratio),
        "interval": None if effect is None else [_json(effect.low), _json(effect.high)],
        "epochs": verdict.epochs,
        "copies": verdict.copies,
    }


def side_by_side_of(homes: Sequence[Study]) -> list[dict[str, Any]]:
    """Return what several searches came to, as plain values, each beside the first that tried the same values.

    `lowest` is the lowest metric with one seed after each quarter of the seconds of its trials.
    """
    found: list[dict[str, Any]] = []
    points = [[study.space.changes(trial.params) for trial in study.trials()] for study in homes]
    for index, study in enumerate(homes):
        verdict, winner, tried = study.verdict(), study.winner(), points[index]
        shared = {
            str(other.shown): sum(point in points[before] for point in tried)
            for before, other in enumerate(homes[:index])
        }
        # The first trial of each has the recipe's own values.
        alike = {name: count for name, count in shared.items() if count > 1}
        found.append(
            {
                "study": str(study.shown),
                "metric": study.recipe.metric,
                "trials": len(study.spent()),
                "seconds": study.search.user_attrs.get("seconds", 0.0),
                "sampler": study.tune.sampler,
                "pruner": study.tune.pruner,
                "seed": study.tune.seed,
                "lowest": _lowest_over_time(study),
                "winner": None if winner is None else winner.number,
                "verdict": None if verdict is None else verdict.kind,
                "sentence": sentence(study),
                "same_points": max(alike.items(), key=lambda pair: pair[1], default=None),
            }
        )
    return found


def _lowest_over_time(study: Study) -> list[float | None]:
    """Return the lowest metric of finished trials at each quarter of the trials' seconds, in their order."""
    took = [float(trial.user_attrs.get("seconds") or 0.0) for trial in study.spent()]
    total, passed = sum(took), 0.0
    found: list[float | None] = [None] * 4
    for trial, seconds in zip(study.spent(), took, strict=True):
        passed += seconds
        if trial.value is None or trial.state.name != "COMPLETE":
            continue
        for quarter in range(4):
            if passed <= total * (quarter + 1) / 4 + 1e-9:
                before = found[quarter]
                found[quarter] = trial.value if before is None else min(before, trial.value)
    return found


def rows(study: Study) -> list[dict[str, Any]]:
    """Return all trials as plain values, each with the metric at its best."""
    found = []
    for trial in study.trials():
        found.append(
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                study.recipe.metric: lowest(trial),
                "values": study.space.changes(trial.params),
                "epochs": epochs_of(trial),
                "seconds": trial.user_attrs.get("seconds", ""),
                "diagnoses": list(trial.user_attrs.get("diagnoses", [])),
                "why": trial.user_attrs.get("why", ""),
                **{name: trial.user_attrs.get(name, "") for name in STORY},
            }
        )
    return found


def _json(value: float) -> float | None:
    """Return a number that JSON has; it has neither infinity nor what is no number."""
    return value if math.isfinite(value) else None
