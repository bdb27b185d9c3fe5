"""Trials of searches that never ran, for the tests of reports."""

from __future__ import annotations

import math
import random

import optuna
from gantool.report.findings import Findings
from gantool.tune.race import Confirmed
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
LR, BETA, DIM, LOSS, R1 = "train.optimizer.lr", "train.optimizer.betas.1", "model.latent_dim", "loss.name", "loss.r1"
SECOND = f"1 - {BETA}"  # Optuna's name of the second beta
SPANS = {
    LR: FloatDistribution(1e-5, 1e-1, log=True),
    SECOND: FloatDistribution(1e-4, 1e-1, log=True),
    DIM: IntDistribution(0, 200),
    LOSS: CategoricalDistribution(["hinge", "<b>$x^2$", None, True]),
    R1: FloatDistribution(0.0, 10.0),
}
MIDDLE = {LR: 1e-3, SECOND: 1e-2, DIM: 100, LOSS: "hinge"}
DONE, STOPPED, FAILED, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
HOSTILE = "</script><script>alert(1)</script>"


def trial(value=None, state=DONE, point=None, steps=None, **told):
    """Make a trial; `told` are its attributes."""
    params = MIDDLE if point is None else point
    return create_trial(
        state=state,
        value=value if state == DONE else None,
        params=params,
        distributions={key: SPANS[key] for key in params},
        user_attrs=told,
        intermediate_values=steps,
    )


def scattered(count, metric, keys=(LR, SECOND, DIM), states=(DONE,), **told):
    """Make trials at random points, each with the metric of its point; their states take turns."""
    drawn, found = random.Random(0), []
    for index in range(count):
        point = {
            LR: 10 ** drawn.uniform(-5, -1),
            SECOND: 10 ** drawn.uniform(-4, -1),
            DIM: drawn.randint(0, 200),
            LOSS: drawn.choice(SPANS[LOSS].choices),
            R1: drawn.uniform(0, 10),
        }
        kept = {key: point[key] for key in keys if key != R1 or point[LOSS] == "hinge"}
        state = states[index % len(states)]
        steps = {1: 900.0 + index, 3: math.nan} if state == STOPPED else None
        found.append(trial(metric(point), state, kept, steps=steps, **told))
    return found


def studied(trials):
    """Return a study with these trials, which numbers them."""
    study = optuna.create_study()
    study.add_trials(trials)
    return study


def findings(trials, confirmed=(), winner=None, **more):
    """Return what a search with these trials found."""
    return Findings("fd", studied(trials).get_trials(), list(confirmed), winner, **more)


def usual():
    """Return findings of forty trials of every state; the winner is not the one with the lowest metric."""
    states = [DONE, DONE, STOPPED, DONE, FAILED, STOPPED, DONE, RUNNING]
    trials = scattered(40, lambda point: 40 + 100 * abs(math.log10(point[LR]) + 3), tuple(SPANS), states, seconds=9.0)
    trials[0].user_attrs["own"] = trials[1].user_attrs["copies"] = True
    trials[4].user_attrs["why"] = f"{HOSTILE}: & more"
    again = [Confirmed(6, (90.0,)), Confirmed(3, (150.0, 160.0, math.nan)), Confirmed(0, (200.0, 210.0))]
    return findings(trials, again, 6, name="eggs-001")
