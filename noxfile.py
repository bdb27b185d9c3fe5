"""Every check of the project. `nox` runs lint, types and tests; `nox -s bench` and `nox -s ranking` measure.

torch and what it brings take about 6 GB and two minutes to install, so that all sessions that need it share one
environment, `.nox/workshop`, which is made once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.reuse_existing_virtualenvs = True

WORKSHOP = Path(".nox/workshop").absolute()
PYTHON = WORKSHOP / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def workshop(session: nox.Session) -> str:
    """Make or refresh the shared environment; gives its Python."""
    if not PYTHON.exists():
        session.run(sys.executable, "-m", "venv", str(WORKSHOP), external=True)
    pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check")
    session.run(*pip, "install", "--quiet", "pip>=25.1", external=True)  # the first that knows dependency groups
    session.run(*pip, "install", "--quiet", "--editable", ".[real,client,samplers]", "--group", "test", external=True)
    return str(PYTHON)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting, by ruff."""
    session.install("ruff>=0.15")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Types, by mypy, strictly."""
    session.run(workshop(session), "-m", "mypy", external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The tests: real files, a real Ray, a real HTTP server on this machine; no network, no GPU needed."""
    session.run(workshop(session), "-m", "pytest", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Speed, as ratios within one run: training against a plain loop and, without arguments, what a search costs."""
    session.run(workshop(session), "tests/bench.py", *session.posargs, external=True)
    if not session.posargs:
        session.run(str(PYTHON), "tests/bench_tune.py", external=True)


@nox.session(venv_backend="none", default=False)
def ranking(session: nox.Session) -> None:
    """Bench of the metrics: which one ranks generators of 64x64 eggs as a judge does that knows the truth."""
    session.run(workshop(session), "tests/ranking.py", *(session.posargs or ["ranking"]), external=True)
