"""Other Python processes, for tests of several at once and of killed ones, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import gantool
import pytest

posix = pytest.mark.skipif(os.name == "nt", reason="needs signals, limits, links or modes of POSIX")


def visible(folder):
    """Return the names of what is visible in a folder; the hidden files that the system locks stay."""
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def child(script, *arguments):
    """Run a script in another process, whose standard input and output are pipes of text."""
    environment = os.environ | {"PYTHONPATH": str(Path(gantool.__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def process(*arguments, **options):
    """Run the command line in another process."""
    command = [sys.executable, "-m", "gantool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=120, **options)


def waited(path):
    """Wait until a process has made a file."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
