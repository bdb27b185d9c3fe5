"""Other Python processes, for tests of several at once and of killed ones, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
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
