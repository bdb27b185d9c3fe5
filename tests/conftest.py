"""Fixtures that several files of tests share."""

from __future__ import annotations

import logging
import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks are quicker on one
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as gantool does, for files that load torch before it
os.environ["NO_COLOR"] = "1"  # messages are compared as text
os.environ["COLUMNS"] = "160"
os.environ.pop("GANTOOL_DATA", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background; children would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

# The two files that start Ray are not for two processes at once: while one process works on the first of them for four
# minutes, the other is busy with the files between them.
ORDER = (
    "test_clusters.py",
    *("test_confirm.py", "test_search.py", "test_study_cli.py", "test_commands.py", "test_training.py"),
    "test_interrupts.py",
)
SLOW = (
    *ORDER,
    *("test_generating.py", "test_printed.py", "test_every_recipe.py", "test_diagnoses.py", "test_evaluate.py"),
    *("test_scoring.py", "test_download.py", "test_gpu_check.py", "test_contract.py", "test_study.py"),
    *("test_board.py", "test_state.py", "test_every_fault.py", "test_crash_states.py"),
)  # files that take more than ten seconds; `nox -s quick` leaves them out


def pytest_collection_modifyitems(items):
    """Mark slow files, and sort files for processes that share them."""
    for item in items:
        if item.path.name in SLOW:
            item.add_marker(pytest.mark.slow)
    places = {name: place for place, name in enumerate(ORDER)}
    items.sort(key=lambda item: places.get(item.path.name, len(ORDER)))


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data directory for the whole session: `digits` is decoded into it once a size."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys, data_dir, monkeypatch):
    """Run the command line in this process, and return the exit code, standard output and standard error."""
    from gantool.cli import main

    monkeypatch.setenv("GANTOOL_DATA", str(data_dir))

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return stop.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def logged():
    """The messages that gantool logs."""
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            found.append(record.getMessage())

    logger, handler = logging.getLogger("gantool"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)
