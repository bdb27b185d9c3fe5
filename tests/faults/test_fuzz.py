"""Inputs that were changed at random end in success or in one clear line. `nox -s fuzz` gives thousands of them."""

from __future__ import annotations

import pytest

import fuzz

INPUTS = {"recipes": 60, "images": 30, "archives": 60, "runs": 8, "checkpoints": 8, "studies": 8}


@pytest.mark.parametrize("kind", sorted(fuzz.TARGETS))
def test_changed_inputs_neither_crash_nor_hang_nor_change_their_meaning(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = fuzz.TARGETS[kind](tmp_path)
    found = list(fuzz.fuzz(target, range(1000, 1000 + INPUTS[kind]), tmp_path))
    assert not [one for one in found if one[-1]]
    assert len({code for *_, code, _ in found}) >= (1 if kind == "images" else 2), "some are refused, and some are not"
