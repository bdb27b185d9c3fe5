"""What a study leaves for people: the best recipe and its pictures, and a table of all trials."""

from __future__ import annotations

import csv
import io
import math
import shutil
from typing import Any

from optuna.trial import FrozenTrial

from gantool import engine
from gantool import recipe as recipes
from gantool.recipe import Recipe
from gantool.runs import replacing
from gantool.runs import write as write_file
from gantool.tune.findings import Findings
from gantool.tune.study import ENDED, Study, best_epoch_of, epochs_of, lowest, spoilt


def best(home: Study) -> FrozenTrial | None:
    """Give the winner: by its mean over seeds once the candidates are confirmed, else by its own measurement.

    A distance rewards copies, and can be low for few different pictures: a trial that collapsed or memorised wins only
    among its kind.
    """
    confirmed = home.confirmed()
    if confirmed:
        return home.trials()[confirmed[0].number]
    finished = home.finished()
    return finished[0] if finished else None


def recipe_of(home: Study, number: int) -> Recipe:
    """Give the recipe of a trial, with the full length of the one that is searched."""
    # The address of a database may hold a password, and training needs none.
    return engine.change(home.recipe, {**home.space.changes(home.trials()[number].params), "tune.storage": None})


def crowned(home: Study) -> str:
    """Say in one line which trial is the best, and against what; empty before one has finished."""
    winner = best(home)
    if winner is None:
        return ""
    met = spoilt(winner)
    confirmed = {one.number: one for one in home.confirmed()}
    metric, epochs = home.recipe.metric, epochs_of(winner)
    if winner.number in confirmed:
        one = confirmed[winner.number]
        met |= set(one.spoilt)
        count = len(one.values)
        told = f"{metric} {one} over {count} seed{'s' if count != 1 else ''}"
    else:
        told = f"{metric} {winner.value:.4g}"
    line = f"Trial {winner.number} of {len(home.trials())}: {told} after {epochs} epochs"
    line += "".join(f"; {code}" for code in sorted(met))
    own = next((one for one in home.trials() if one.user_attrs.get("own") and one.number in confirmed), None)
    if own is not None and own.number != winner.number:
        line += f"; the recipe's own values: {confirmed[own.number]}"
    lower = _lower_but_spoilt(home, winner)
    if lower and not met:
        line += f"; lower, but collapsed or memorised: trial {', '.join(map(str, lower))}"
    return line


def _lower_but_spoilt(home: Study, winner: FrozenTrial) -> list[int]:
    """Name the trials that only a diagnosis keeps from being the best, with their own seed or another one."""
    confirmed = {one.number: one for one in home.confirmed()}
    found = []
    for trial in home.finished():
        one, best_one = confirmed.get(trial.number), confirmed.get(winner.number)
        lower = one.mean < best_one.mean if one and best_one else (trial.value or 0) < (winner.value or 0)
        if lower and (spoilt(trial) or (one and one.spoilt)):
            found.append(trial.number)
    return sorted(found)


def write(home: Study) -> None:
    """Write `trials.csv`, and `best.yaml` and `best.png` once a trial has finished; drop the losers' weights."""
    with home.still():
        _write(home)


def _write(home: Study) -> None:
    write_file(home.path / "trials.csv", table(home))
    winner = best(home)
    if winner is not None and not _is_told(home, head := f"# {crowned(home)}.\n"):
        write_file(home.path / "best.yaml", head + recipes.dump(recipe_of(home, winner.number)))
        grid = home.folder(winner.number) / "samples" / f"epoch-{best_epoch_of(winner):04d}.png"
        if grid.exists():
            with replacing(home.path / "best.png") as aside:
                shutil.copyfile(grid, aside)
    for trial in home.trials():
        if trial.state in ENDED and not (winner and trial.number == winner.number):
            shutil.rmtree(home.folder(trial.number) / "checkpoints", ignore_errors=True)
    for run in home.runs():
        if run.state in ENDED:
            folder = home.folder(run.user_attrs["of"], run.user_attrs["seed"])
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def table(home: Study) -> str:
    """Give all trials as CSV, and the mean and deviation of those that were confirmed."""
    text = io.StringIO()
    keys, metric = list(home.space.ranges), home.recipe.metric
    confirmed = {one.number: one for one in home.confirmed()}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["number", "state", metric, *keys, "epochs", "seconds", "diagnoses", "why", f"{metric}_mean", f"{metric}_std"]
    )
    for row in rows(home):
        one = confirmed.get(row["number"])
        writer.writerow(
            [
                *(row["number"], row["state"], "" if row[metric] is None else row[metric]),
                *(row["values"].get(key, "") for key in keys),
                *(row["epochs"], row["seconds"], " ".join(row["diagnoses"]), row["why"]),
                *((one.mean, one.deviation) if one else ("", "")),
            ]
        )
    return text.getvalue()


def summary(home: Study) -> dict[str, Any]:
    """Give a study as plain values, for programs."""
    winner = best(home)
    return {
        "study": str(home.path),
        "metric": home.recipe.metric,
        "trials": home.tune.trials,
        "best": None if winner is None else winner.number,
        "sentence": crowned(home),
        "seconds": home.search.user_attrs.get("seconds", 0.0),
        "confirmed": [
            {
                "number": one.number,
                "values": [_json(value) for value in one.values],
                "mean": _json(one.mean),
                "deviation": _json(one.deviation),
            }
            for one in home.confirmed()
        ],
        "rows": rows(home),
    }


def findings(home: Study) -> Findings:
    """Give a study for `insight` to make sense of."""
    values = [home.space.changes(trial.params) for trial in home.trials()]
    return Findings(
        home.recipe.metric, home.trials(), values, home.space.logarithmic(), home.space.mirrored(), home.confirmed()
    )


def rows(home: Study) -> list[dict[str, Any]]:
    """Give all trials as plain values, each with the metric at its best, and with what its other seeds came to."""
    found, later = [], {one.number: one.spoilt for one in home.confirmed()}
    for trial in home.trials():
        found.append(
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                home.recipe.metric: lowest(trial),
                "values": home.space.changes(trial.params),
                "epochs": epochs_of(trial),
                "seconds": trial.user_attrs.get("seconds", ""),
                "diagnoses": list(
                    dict.fromkeys([*trial.user_attrs.get("diagnoses", []), *later.get(trial.number, ())])
                ),
                "why": trial.user_attrs.get("why", ""),
            }
        )
    return found


def _json(value: float) -> float | None:
    """Give a number that JSON has; it has neither infinity nor what is no number."""
    return value if math.isfinite(value) else None


def _is_told(home: Study, head: str) -> bool:
    """Tell whether `best.yaml` says so already, and `best.png` is there to see."""
    path = home.path / "best.yaml"
    if not path.is_file() or not (home.path / "best.png").is_file():
        return False
    with path.open(encoding="utf-8") as file:
        return file.readline() == head
