"""What a study writes for people: the verdict, the winner as a recipe and images, and tables of its trials."""

from __future__ import annotations

import csv
import io
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from optuna.trial import TrialState

from gantool import images
from gantool.files import copy, remove
from gantool.files import write as write_file
from gantool.inference.compare import side_by_side
from gantool.inference.sampling import TrainedModel
from gantool.models.base import Generative
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.runs import STUDY, Run
from gantool.terminal import duration, number, several
from gantool.training import engine
from gantool.tune.record import MADE_WITH
from gantool.tune.study import ENDED, Study, lowest
from gantool.tune.verdict import Verdict, shown

COMPARISON = "comparison.png"
FILES = (STUDY, "recipe.yaml", "trials.csv", "best.yaml", "best.png", COMPARISON)  # of a study, besides its trials
OWN = "your recipe"  # the caption of the trial with the recipe's own values
STORY = ("sampler", "pruner", "tune_seed")  # attributes of a trial: what chose and judged it


def recipe_of(study: Study, number: int) -> Recipe:
    """Return the recipe of a trial, with the full length of the one that is searched."""
    # The address of a database may hold a password, and training needs none.
    return engine.change(study.recipe, {**study.space.changes(study.trials()[number].params), "tune.storage": None})


def sentence(study: Study) -> str:
    """Return the verdict as a sentence, with the longer trainings; empty before a trial has finished."""
    verdict = study.verdict()
    if verdict is None:
        return ""
    finalists = study.finalists()
    found = [(label, study.best_run(trial)) for label, trial in pair(study) if trial in finalists]
    runs = [(label, best) for label, best in found if best is not None]
    longer = ""
    # Lengths differ if the time ran out during one of the trainings, and then their values cannot be compared.
    if len({best.epochs for _, best in runs}) == 1 and runs[0][1].epochs > verdict.epochs:
        values = [f"{label} {number(best.value)} after {several(best.epochs, 'epoch')}" for label, best in runs]
        longer = f"; trained on with one seed: {', '.join(values)}"
    return f"{verdict.sentence()}, after {several(verdict.epochs, 'epoch')}{longer}"


def interim_summary(study: Study) -> str:
    """Return in a few words what a running search has found so far."""
    verdict, winner, race = study.verdict(), study.winner(), study.race()
    if verdict is None or winner is None:
        return ""
    if verdict.kind != "unconfirmed" or (verdict.number == winner.number and verdict.values != (winner.value,)):
        seeds = several(len(verdict.values), "new seed")
        values = f"trial {verdict.number}: {verdict.in_words(verdict.values)}"
        if not verdict.own:
            return f"{values} over {seeds}; your recipe failed"
        return f"{values}, your recipe: {shown(verdict.own)}, {seeds} each"
    lower = any((trial.value or 0.0) < (winner.value or 0.0) for trial in study.finished())
    copies = "; copies of training images left out" if lower else ""
    lowest = f"lowest {study.recipe.metric} {number(winner.value or 0.0)} (trial {winner.number}, one seed{copies})"
    if len(study.spent()) < study.wanted or race.over:
        return lowest
    if race.contender is None:
        among = ", ".join(str(trial.number) for trial in study.candidates())
        return f"{lowest}; new seeds choose among trials {among}"
    return f"{lowest}; new seeds compare trial {race.contender} with your recipe"


def advice(study: Study) -> str:
    """Return the setting that would decide an open verdict, and how long that probably takes; else an empty text."""
    verdict = study.verdict()
    if verdict is None or verdict.kind != "unsure" or not study.race().over or study.tune.confirm is None:
        return ""
    wanted = verdict.seeds_to_decide()
    if wanted is None:
        return "the two are so close that even 100 seeds would hardly decide"
    took = [run.user_attrs["seconds"] for run in study.runs() if "seconds" in run.user_attrs]
    trainings = 2 * (wanted - len(verdict.values)) / study.search.user_attrs.get("slots", 1)
    about = f" (about {duration(trainings * statistics.fmean(took))})" if took else ""
    would = "would probably" if verdict.spread is not None else "may"
    return f"--set tune.confirm.seeds={wanted} {would} decide{about}"


def pair(study: Study) -> list[tuple[str, int]]:
    """Return the captions and numbers of the two trials to look at: the recipe's own values and their best rival."""
    own, verdict = study.own(), study.verdict()
    found = [] if own is None else [(OWN, own.number)]
    if verdict is not None and verdict.number is not None:
        found.append((f"trial {verdict.number}", verdict.number))
    return found


def write(study: Study) -> None:
    """Write `trials.csv`, and `best.yaml` and `best.png` once a trial has finished; delete weights that cannot win."""
    with study.cached_trials():
        write_file(study.path / "trials.csv", table(study))
        winner = study.winner()
        if winner is not None:
            _write_winner(study, winner.number)
        _delete_checkpoints(study)


def _write_winner(study: Study, winner: int) -> None:
    head = f"# {sentence(study)}.\n"
    path, image = study.path / "best.yaml", study.path / "best.png"
    is_known = path.is_file() and path.read_text(encoding="utf-8").startswith(head)
    best = study.best_run(winner)
    if best is not None:
        is_known = is_known and study.points_to(best.folder)
        grid = best.folder / "samples" / f"epoch-{best.epoch:04d}.png"
        if grid.exists() and not (is_known and image.is_file()):
            copy(grid, image)  # first, so that a killed search does not take an old image for the winner's
    if not is_known:
        write_file(path, head + recipes.dump(recipe_of(study, winner)))
    if best is not None:
        study.point_to(best.folder)


def _delete_checkpoints(study: Study) -> None:
    """Delete the weights of every training that has ended, except for the best of each trial that may win."""
    numbers = {number for _, number in pair(study)} | {one.number for one in (study.winner(),) if one is not None}
    if not study.race().over:
        numbers |= {trial.number for trial in study.candidates()}
    kept = {best.folder for best in map(study.best_run, numbers) if best is not None}
    runs = [*study.trials(), *study.runs()]
    kept |= {study.folder_of(run) for run in runs if run.state not in ENDED}
    for folder in {study.folder_of(run) for run in runs} - kept:
        remove(folder / "checkpoints")


def compare(study: Study) -> None:
    """Draw images of the recipe's own values and of the best setting from the same latents, if epochs are equal."""
    if not issubclass(study.recipe.model.target, Generative):
        return
    named, lengths = [], set()
    for label, trial in pair(study):
        best = study.best_run(trial)
        if best is not None and (best.folder / "checkpoints" / "best.pt").is_file():
            caption = f"{label}: {study.recipe.metric} {number(best.value)}"
            named.append((caption, TrainedModel(Run(best.folder), "best", "cpu")))
            lengths.add(best.epochs)
    if len(named) == 2 and len(lengths) == 1:  # a longer training would look better than a shorter one
        images.save(side_by_side(named, width=120), study.path / COMPARISON)


def rows(study: Study) -> list[dict[str, Any]]:
    """Return all trials as plain values, each with the metric at its best."""
    return [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            study.recipe.metric: lowest(trial),
            "values": study.space.changes(trial.params),
            "epochs": trial.last_step or 0,
            "seconds": trial.user_attrs.get("seconds", ""),
            "diagnoses": list(trial.user_attrs.get("diagnoses", [])),
            "why": trial.user_attrs.get("why", ""),
            **{name: trial.user_attrs.get(name, "") for name in STORY},
        }
        for trial in study.trials()
    ]


def table(study: Study) -> str:
    """Return all trials as CSV, with the mean and deviation of those that were trained again with new seeds."""
    text, metric = io.StringIO(), study.recipe.metric
    columns = ["number", "state", metric, *study.space.ranges, "epochs", "seconds", "diagnoses", "why"]
    columns += [f"{metric}_mean", f"{metric}_std", "seeds", *STORY]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    again = {
        one.number: {f"{metric}_mean": one.mean, f"{metric}_std": one.deviation, "seeds": len(one.values)}
        for one in study.confirmed()
    }
    for row in rows(study):
        cells = {**row, **row["values"], **again.get(row["number"], {}), "diagnoses": " ".join(row["diagnoses"])}
        writer.writerow(cells)
    return text.getvalue()


def summary(study: Study) -> dict[str, Any]:
    """Return a study as plain values, for programs."""
    winner = study.winner()
    found: dict[str, Any] = {
        "study": str(study.path),
        "metric": study.recipe.metric,
        "trials": study.tune.trials,
        "best": None if winner is None else winner.number,
        "sentence": sentence(study),
        "verdict": _plain(study.verdict()),
        "advice": advice(study),
        "seconds": study.search.user_attrs.get("seconds", 0.0),
        "environment": study.search.user_attrs.get(MADE_WITH),
        "confirmed": [{**asdict(one), "mean": one.mean, "deviation": one.deviation} for one in study.confirmed()],
        "rows": rows(study),
    }
    return {name: _finite(value) for name, value in found.items()}


def _plain(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    effect = verdict.effect
    return {
        "kind": verdict.kind,
        "trial": verdict.number,
        "values": verdict.values,
        "own": verdict.own,
        "ratio": effect and effect.ratio,
        "interval": effect and (effect.low, effect.high),
        "epochs": verdict.epochs,
        "copies": verdict.copies,
    }


def _finite(value: Any) -> Any:
    """Replace infinity and NaN, which JSON cannot hold, by None."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_finite, value))
    return value if not isinstance(value, float) or math.isfinite(value) else None


def side_by_side_of(studies: Sequence[Study]) -> list[dict[str, Any]]:
    """Return what several searches found, as plain values.

    `lowest` is the lowest metric with one seed after each quarter of the seconds of its trials. `same_points` is an
    earlier study of these that tried some of the same values, and how many.
    """
    points = [[study.space.changes(trial.params) for trial in study.trials()] for study in studies]
    found = []
    for index, study in enumerate(studies):
        verdict, winner = study.verdict(), study.winner()
        shared = [(str(studies[at].shown), sum(one in points[at] for one in points[index])) for at in range(index)]
        alike = [one for one in shared if one[1] > 1]  # the first trial of each has the recipe's own values
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
                "winner": winner and winner.number,
                "verdict": verdict and verdict.kind,
                "sentence": sentence(study),
                "same_points": max(alike, key=lambda other: other[1], default=None),
            }
        )
    return found


def _lowest_over_time(study: Study) -> list[float | None]:
    """Return the lowest metric of finished trials at each quarter of the trials' seconds, in their order."""
    trials = study.spent()
    passed = list(itertools.accumulate(float(trial.user_attrs.get("seconds") or 0.0) for trial in trials))
    finished = [
        (at, trial.value)
        for at, trial in zip(passed, trials, strict=True)
        if trial.value is not None and trial.state == TrialState.COMPLETE
    ]
    return [
        min((value for at, value in finished if at <= passed[-1] * quarter / 4 + 1e-9), default=None)
        for quarter in (1, 2, 3, 4)
    ]
