"""A run of two epochs for all tests of commands."""

from __future__ import annotations

import pytest

from commands import code, sets


@pytest.fixture(autouse=True)
def data(data_dir, monkeypatch):
    monkeypatch.setenv("GANTOOL_DATA", str(data_dir))


@pytest.fixture(scope="session")
def trained(tmp_path_factory, data_dir):
    """A run of two epochs, which no test changes."""
    path = tmp_path_factory.mktemp("runs") / "gan14-001"
    assert code("train", "gan14", *sets(train__keep_every=2), "--out", path, "--data-dir", data_dir) == 0
    return path
