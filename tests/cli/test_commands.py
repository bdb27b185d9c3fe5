"""Help, version and streams of the command line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gantool import __version__, checkpoints
from gantool.runs import Run
from PIL import Image

from commands import sets
from processes import posix, process, waited


def test_no_arguments_show_the_help(command):
    assert "Train and look:" in "".join(command()[1:])


def test_help_loads_no_heavy_library():
    script = (
        "import sys\nfrom gantool.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'optuna', 'numpy', 'PIL', 'pydantic', 'sklearn', 'torchvision', 'plotly', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_tells_its_version():
    done = process("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"gantool {__version__}\n", "")


@posix
def test_a_reader_that_has_had_enough_ends_it_quietly():
    for arguments in (["shapes", "dcgan28", "--json"], ["data", "list"]):
        reader, writer = os.pipe()
        os.close(reader)
        words = [sys.executable, "-m", "gantool", *arguments]
        done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)

        assert (done.returncode, done.stderr) == (141, "")


@posix
def test_training_whose_reader_has_gone_saves_the_run_and_says_so_by_its_exit_code(command, inside):
    words = [sys.executable, "-m", "gantool", "train", "gan14", *sets(train__epochs=100_000), "--out", "run"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as training:
        waited(Path("run/samples/epoch-0003.png"))
        training.stderr.close()
        assert training.wait(timeout=60) == 141

    saved = checkpoints.load(Path("run/checkpoints/last.pt"))["epoch"]
    assert saved >= 2
    assert command("train", "run", "--resume", "--set", f"train.epochs={saved + 1}")[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_under_the_output_is_an_error_in_a_line_and_the_run_is_kept(inside):
    words = [sys.executable, "-m", "gantool", "train", "gan14", *sets(), "--out", "run"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 7
        assert done.stderr.splitlines()[-1].startswith("error: the output cannot be written (No space left on device)")
        assert len(Run(Path("run")).entries()) == 2
        assert subprocess.run([*words[:-1], "other"], stdout=full, stderr=full, check=False).returncode == 7
        assert not Path("other").exists(), "nothing had begun"


@posix
def test_a_signal_that_the_process_was_started_to_ignore_is_ignored(inside):
    options = sets(train__epochs=100_000, train__evaluate_every=1000)
    words = [sys.executable, "-m", "gantool", "train", "gan14", *options, "--out", "run"]

    def start_as_nohup_does():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=start_as_nohup_does
    ) as training:
        waited(Path("run/samples/epoch-0002.png"))
        training.send_signal(signal.SIGHUP)
        training.send_signal(signal.SIGINT)
        reached = len(Run(Path("run")).entries())
        waited(Path(f"run/samples/epoch-{reached + 5:04d}.png"))
        training.send_signal(signal.SIGTERM)
        assert training.wait(timeout=60) == 143


@posix
def test_a_closed_standard_output_is_no_error():
    script = f"{shlex.quote(sys.executable)} -m gantool shapes gan14 --json >&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("encoding", "terminal"), [("ascii", "xterm"), ("cp949", "dumb")])
def test_a_console_with_few_letters_is_no_error(encoding, terminal, tmp_path):
    folder = tmp_path / "달걀🥚"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "1.png")
    variables = {"PYTHONIOENCODING": encoding, "TERM": terminal, "NO_COLOR": "1", "PYTHONUTF8": "0"}

    arguments = ("data", "show", folder, "-o", tmp_path / "sheet.png")
    done = process(*arguments, env=os.environ | variables, errors="replace")  # cp949 is no UTF-8

    assert done.returncode == 0, done.stderr
    assert "decoding" in done.stderr
    assert "? at 64x64" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.endswith("1 image in 1 class\n")


def test_an_error_goes_to_standard_error_with_its_code():
    done = process("data", "fetch", "nothing")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: data.source: unknown source 'nothing'; known: ")
    assert "\x1b" not in done.stderr


def test_escape_sequences_in_names_reach_no_terminal(command, inside):
    code, out, err = command("data", "show", "\x1b]0;owned\x07\x1b[2J/x\u202egnp.exe")
    assert code == 3
    assert "\x1b" not in out + err
    assert r"\x1b]0;owned\x07\x1b[2J/x\u202egnp.exe" in err
