"""What the command line prints: help, mistakes in its use, stand-ins for letters, `-q`, and commands to paste."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gantool.errors import command_line
from gantool.runs import Run

from commands import TINY, code, sets

ENTRY = (sys.executable, "-m", "gantool")
COMMANDS = (
    *("", "train", "sample", "animate", "score", "compare", "nearest", "explain", "shapes", "tune"),
    *("study", "study status", "study report", "study promote", "study export", "study compare", "study simulate"),
    *("data", "data fetch", "data list", "data show"),
)
SEARCH = {"model.latent_dim": 16, "tune.trials": 2, "tune.epochs": 1, "tune.confirm": None, "tune.finish": None}


@pytest.fixture
def shell(data_dir, tmp_path):
    """Run a pasted line in a new process, in a folder whose name has a space; return the exit code and the output."""
    folder = tmp_path / "my work"
    folder.mkdir()

    def run(line, **variables):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
        words = [*ENTRY, *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=False)
        return done.returncode, *(text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))

    run.folder = folder
    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_plain_words_and_fits_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert code(*command.split(), "--help") == 0
    out = capsys.readouterr().out
    assert not re.search(r"\[\[|\{|<(str|int|float|list)|range|INTEGER|TEXT", out)
    assert max(map(len, out.splitlines())) <= 80
    assert "-q, --quiet" in out


def test_help_names_the_commands_in_sections(capsys):
    assert code("--help") == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.endswith(":")] == [
        "Train and look:",
        "Search:",
        "What exists:",
        "Options:",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'? see: gantool --help"),
        (["data", "lst"], "unknown command 'lst'; did you mean 'list'? see: gantool data --help"),
        (["train", "gan14", "--restart"], "unknown option '--restart'; known: --data-dir, "),
        (["train", "gan14", "--resum"], "unknown option '--resum'; did you mean '--resume'? see: gantool train --help"),
        (["shapes"], "gantool shapes: RECIPE is missing; see: gantool shapes --help"),
        (["train", "gan14", "x"], "gantool train: unexpected argument x; see: gantool train --help"),
        (["train", "--out"], "--out: needs a value; see: gantool"),
        (["tune", "gan14", "--trials", "x"], "--trials: "),
        (["tune", "gan14", "--trials", "0"], "--trials: "),
        (["tune", "gan14", "--engine", "x"], "--engine: 'x' is not one of 'ray', 'inline'; see: gantool tune --help"),
    ],
)
def test_a_wrong_use_is_an_error_of_one_line(arguments, message, capsys):
    assert code(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


SHOWS = """
import sys
from gantool.cli.stand_ins import use_stand_ins
use_stand_ins(sys.stdout)
print("9 \u00b1 1 \u00d7 \u00e9 \u2581\u2588 \u2026 \ud55c")
"""


def options(values):
    """Return the --set options of these values."""
    texts = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())
    return [word for text in texts for word in ("--set", text)]


def printed(text):
    """Return the commands that an output names: indented ones, and those behind a colon at the end of a line."""
    lines = re.findall(r"^  (gantool .+)$|: (gantool [^;()]+)$|\((gantool [^)]+)\)", text, re.MULTILINE)
    return [next(filter(None, groups)) for groups in lines]


def test_a_console_without_these_letters_gets_stand_ins(shell):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SHOWS], env=environment, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "9 +- 1 x e _# ~ ?"
    result, out, err = shell(command_line("sample", "nowhere-\u00e9"), PYTHONIOENCODING="ascii")
    assert (result, out) == (2, "")
    assert err.startswith("error: nowhere-e: no run of this name")


def test_quiet_prints_the_result_alone(data_dir, tmp_path, capsys):
    given = ("gan14", *sets(), "--data-dir", data_dir, "--device", "cpu")
    assert code("train", *given, "--out", tmp_path / "a", "-q") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"{tmp_path / 'a'}: best fd ")
    assert "  gantool" not in out
    assert code("--quiet", "sample", tmp_path / "a") == 0
    assert capsys.readouterr().err == ""
    assert code("sample", tmp_path / "a", "--seeds", "x") == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert code("train", *given, "--out", tmp_path / "b") == 0  # -q holds for one command
    assert "learning from " in capsys.readouterr().err


def test_json_is_all_that_is_printed(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANTOOL_DATA", str(data_dir))
    found = {}
    for command in (
        ["train", "gan14", *sets(), "--out", "run"],
        *(["sample", "run"], ["animate", "run"], ["score", "run", "--metrics", "fd"], ["nearest", "run"]),
        *(["compare", "run", "run"], ["explain"], ["explain", "diverged"], ["shapes", "gan14"], ["data", "list"]),
        *(["data", "fetch", "digits"], ["data", "show", "digits", "--set", "size=8"]),
    ):
        assert code(*command, "--json") == 0
        found[command[0]] = json.loads(capsys.readouterr().out)
    assert found["train"].keys() >= {"run", "finished", "epoch", "best", "best_epoch", "metric", "diagnoses"}
    assert found["train"]["finished"] is True
    assert found["sample"]["files"] == [str(Path("run/sample-0-15.png"))]
    assert found["animate"]["frames"] == 2
    assert found["score"]["verdict"].startswith("fd is ")
    assert found["compare"]["runs"][0]["run"] == "run"


def test_every_printed_command_works_when_it_is_pasted(tmp_path, monkeypatch, capsys):
    """With a data directory and a run that have spaces in their names, and that later commands do not name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "unused"))
    common = [*options(TINY), "--data-dir", "my data", "--device", "cpu"]
    sessions = [
        command_line("train", "gan14", *common, "--out", "my run"),
        command_line("train", "my run", "--resume"),
        command_line("tune", "gan14", *common, *options(SEARCH), "--engine", "inline", "--out", "my study"),
        command_line("study", "status", "my study"),
    ]
    seen = set()
    for line in sessions:
        assert code(*shlex.split(line)[1:]) == 0, line
        seen.update(printed("".join(capsys.readouterr())))
    assert {line.split()[1] for line in seen} >= {"train", "sample", "animate", "study"}
    for line in sorted(seen):
        assert code(*shlex.split(line)[1:]) == 0, line
    assert not (tmp_path / "unused" / "gantool").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_signal_to_a_search_is_answered_at_once(shell):
    words = ["tune", "gan14", *options({**TINY, **SEARCH, "tune.epochs": 2000, "train.evaluate_every": 1000})]
    words += ["--engine", "inline", "--data-dir", "my data", "--device", "cpu", "--out", "it"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen([*ENTRY, *words], cwd=shell.folder, env=environment, **streams)
    run = Run(shell.folder / "it/trials/0000")
    while driver.poll() is None and not run.entries():
        time.sleep(0.05)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=100)
    assert driver.returncode == 130, err
    assert err.splitlines().count("stopping: running trials are being saved; Ctrl-C again exits at once") == 1
    assert printed(out) == ["gantool tune it"]
    assert run.data_dir == shell.folder / "my data"
