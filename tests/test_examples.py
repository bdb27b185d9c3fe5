"""The examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import gantool
import pytest

HOME = Path(gantool.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("gantool", *file.relative_to(HOME).with_suffix("").parts))
    for file in HOME.rglob("*.py")
    if ">>>" in file.read_text(encoding="utf-8") and file.name != "__init__.py"
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_an_example_gives_what_its_docstring_says(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
