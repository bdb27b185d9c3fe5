"""Every check of the project. `nox` runs lint, types and tests; `nox -s bench` and `nox -s ranking` measure.

`nox -s gpu` checks a GPU, and `nox -s floors` the lowest versions that pyproject.toml allows.

torch and what it brings take about 6 GB and two minutes to install, so that all sessions that need it share one
environment, `.nox/workshop`, which is made once.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.reuse_existing_virtualenvs = True

WORKSHOP = Path(".nox/workshop").absolute()
FLOORS = Path(".nox/floors").absolute()
PYTHON = WORKSHOP / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

PARALLEL = ("--numprocesses", str(os.cpu_count()), "--dist", "loadfile", "--no-loadscope-reorder")
EXTRAS = ".[real,samplers]"
MISSING = ("pydantic", "platformdirs", "optuna", "safetensors")  # on a machine that has torch, typer, rich and Pillow
PRESENT = ("numpy", "pyyaml")  # dependencies of MISSING that the machine has
MAX_BYTES = 30e6  # of the unpacked wheels

ONE_SEARCH = "tests/tune/test_clusters.py::test_a_search_on_a_private_ray"


def workshop(session: nox.Session) -> str:
    """Make or refresh the shared environment and return its Python."""
    if not PYTHON.exists():
        session.run(sys.executable, "-m", "venv", str(WORKSHOP), external=True)
    pip = (str(PYTHON), "-m", "pip", "--disable-pip-version-check")
    session.run(*pip, "install", "--quiet", "pip>=25.1", external=True)  # the first that knows dependency groups
    session.run(*pip, "install", "--quiet", "--editable", EXTRAS, "--group", "test", external=True)
    return str(PYTHON)


def above_floors(frozen: str) -> list[str]:
    """Return the packages whose installed version is higher than the lowest that pyproject.toml names."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    wanted += [line for name, lines in extras.items() if name in EXTRAS for line in lines]
    installed = dict(line.lower().split("==") for line in frozen.splitlines() if "==" in line)
    above = []
    for line in wanted:
        name, floor = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", line.lower()).groups()
        if f"{installed[name]}.".removeprefix(f"{floor}.").strip(".0"):  # 3.9.0 is 3.9
            above.append(f"{name} {installed[name]}, not {floor}")
    return above


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
    """Run all tests, in a process for each core. They need no network and no GPU."""
    session.run(workshop(session), "-m", "pytest", *(session.posargs or PARALLEL), external=True)


@nox.session(venv_backend="none", default=False)
def quick(session: nox.Session) -> None:
    """Check the style, and run the tests that are not marked as slow, in two minutes."""
    session.run(workshop(session), "-m", "ruff", "check", ".", external=True)
    session.run(str(PYTHON), "-m", "pytest", *PARALLEL, "-m", "not slow", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def fuzz(session: nox.Session) -> None:
    """Recipes, images, archives, runs and studies that were changed at random: nox -s fuzz -- --inputs 2000 runs."""
    support = {"PYTHONPATH": "tests/support"}
    session.run(workshop(session), "tests/tools/fuzz.py", *session.posargs, env=support, external=True)


@nox.session(venv_backend="none", default=False)
def crash(session: nox.Session) -> None:
    """Every fault of the disk, thousands of states after a crash, and a hundred pairs of starts: about an hour."""
    pytest = (workshop(session), "-m", "pytest", "tests/faults", "-k", "not fuzz", *session.posargs)
    session.run(*pytest, env={"GANTOOL_CRASH": "1"}, external=True)


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Speed, as ratios within one run: training against a plain loop and, without arguments, what a search costs."""
    session.run(workshop(session), "tests/tools/bench.py", *session.posargs, external=True)
    if not session.posargs:
        session.run(str(PYTHON), "tests/tools/bench_tune.py", external=True)


@nox.session(venv_backend="none", default=False)
def ladder(session: nox.Session) -> None:
    """Bench of `fd`: how many deviations above undamaged images it puts noise, blur, lost classes and the like."""
    session.run(workshop(session), "tests/tools/ladder.py", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def ranking(session: nox.Session) -> None:
    """Bench of the metrics: which one ranks generators of 64x64 eggs as a judge does that knows the truth."""
    session.run(workshop(session), "tests/tools/ranking.py", *(session.posargs or ["ranking"]), external=True)


@nox.session(name="gan-table", venv_backend="none", default=False)
def gan_table(session: nox.Session) -> None:
    """Learning curves of 400 configurations of gan14, for `gantool study simulate`: hours; the same line resumes."""
    session.run(workshop(session), "tests/tools/gan_table.py", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def verdicts(session: nox.Session) -> None:
    """How often a search says `better`, with and without a better setting: simulated, and in 20 real searches."""
    session.run(workshop(session), "tests/tools/verdicts.py", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def gpu(session: nox.Session) -> None:
    """All recipes on the GPU of this machine, in less than eight minutes; without a GPU the check checks itself."""
    session.run(workshop(session), "tests/tools/gpu.py", *session.posargs, external=True)


@nox.session(name="gpu-wheels", default=False)
def gpu_wheels(session: nox.Session) -> None:
    """Gather the wheels for `tests/tools/gpu.py --wheels`: nox -s gpu-wheels -- 3.12 DIR x86_64-manylinux_2_28."""
    python, folder, system = (*session.posargs, *(None, None, None)[len(session.posargs) :])
    python, system = python or "3.12", system or "x86_64-manylinux_2_28"
    target = Path(folder or f".nox/wheels-{python}")
    if target.exists():
        session.error(f"{target} already exists; name another folder, or delete it")
    session.install("uv>=0.9")
    present = Path(session.create_tmp()) / "present.txt"
    present.write_text("\n".join(PRESENT) + "\n", encoding="utf-8")
    where = ("--target", str(target), "--python-version", python, "--python-platform", system)
    session.run(
        "uv", "pip", "install", "--quiet", *where, "--only-binary", ":all:", "--excludes", str(present), *MISSING
    )
    for compiled in target.glob("sqlalchemy/**/*.so"):
        compiled.unlink()  # a third of all bytes; SQLAlchemy has the same code in Python
    shutil.rmtree(target / "bin", ignore_errors=True)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    session.log(f"{target}: {size / 1e6:.1f} MB")
    if size > MAX_BYTES:
        session.error(f"{target}: more than {MAX_BYTES / 1e6:.0f} MB")


@nox.session(venv_backend="none", default=False)
def floors(session: nox.Session) -> None:
    """Quick tests and one search with Ray, on the lowest Python and the lowest versions that pyproject.toml allows."""
    uv = shutil.which("uv")
    if uv is None:
        session.error("needs uv: pip install uv")
    session.run(uv, "venv", "--quiet", "--allow-existing", "--python", "3.11", str(FLOORS), external=True)
    python = str(FLOORS / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    lowest = ("--python", python, "--resolution", "lowest-direct")
    session.run(uv, "pip", "install", *lowest, "--editable", EXTRAS, "--group", "test", external=True)
    above = above_floors(session.run(uv, "pip", "freeze", "--python", python, external=True, silent=True))
    if above:
        session.error(f"cannot be installed together, so raise the floors in pyproject.toml: {', '.join(above)}")
    # An old library may use a part of its own dependencies that newer versions deprecate.
    pytest = (python, "-m", "pytest", "-W", "ignore::DeprecationWarning")
    session.run(*pytest, *(session.posargs or [*PARALLEL, "-m", "not slow"]), external=True)
    if not session.posargs:
        session.run(*pytest, ONE_SEARCH, external=True)
