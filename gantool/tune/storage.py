"""The database of a study: a file in SQLite, or any that SQLAlchemy knows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna
from sqlalchemy import QueuePool, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gantool.errors import CheckpointError, RecipeError, ResourceError

DATABASE = "study.db"
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
LOCK_TIMEOUT = 20.0  # seconds to wait for another process that writes to a study's file
UNWRITABLE = ("disk is full", "disk I/O", "readonly", "unable to open")  # in messages of SQLite


Access = Literal["read", "write", "new"]
_MODES = {"read": "ro", "write": "rw", "new": "rwc"}  # of SQLite


def open_storage(folder: Path, address: str | None, access: Access) -> optuna.storages.RDBStorage:
    """Return the storage at an address, or without one that of the file in a study's directory.

    No file and no table is made unless the study is `new`, and nothing is written to a file that is only read.

    Raises:
        CheckpointError: the file does not exist.
        RecipeError: the address cannot be read, or its driver is not installed.
    """
    file = _file_of(address) if address else folder / DATABASE
    if file is not None and access != "new" and not file.is_file():
        raise CheckpointError(f"{file}: is missing; restore a copy, or search anew with --fresh")
    if file is not None and (access == "read" or not address):
        # A search that was killed may have left a journal, which SQLite has to roll back before it can read.
        mode = "rw" if Path(f"{file}-journal").exists() else _MODES[access]

        def connect() -> sqlite3.Connection:
            address = f"{file.absolute().as_uri()}?mode={mode}"
            return sqlite3.connect(address, uri=True, timeout=LOCK_TIMEOUT, check_same_thread=False)

        options = {"creator": connect, "poolclass": QueuePool}
        return optuna.storages.RDBStorage("sqlite://", options, skip_table_creation=access != "new")
    assert address is not None
    try:
        return optuna.storages.RDBStorage(address, skip_table_creation=access != "new")
    except ImportError as error:
        missing = str(getattr(error.__cause__ or error, "name", None) or "its driver")
        package = PACKAGES.get(missing, missing)
        raise RecipeError(
            f"tune.storage: {_without_password(address)} needs {missing}; pip install '{package}'"
        ) from None
    except (ValueError, ArgumentError) as error:
        raise RecipeError(f"tune.storage: {_without_password(str(error))}") from None


def _file_of(address: str) -> Path | None:
    """Return the file of an address that names one, or None."""
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        return None
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)) if is_file and not url.query else None


@contextmanager
def database_errors(folder: Path, address: str | None) -> Iterator[None]:
    """Raise an error of one line if the database of a study fails in the block.

    Raises:
        CheckpointError: the file is damaged.
        ResourceError: the database cannot be reached or written.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        problem = str(error.__cause__ or error)
        if any(words in problem for words in UNWRITABLE):
            raise ResourceError(
                f"{folder}: the study cannot be written ({problem.splitlines()[0]}); make room, or check the folder's "
                "permissions; then run the same command"
            ) from None
        file = _file_of(address) if address else folder / DATABASE
        if file is None:
            raise ResourceError(
                f"tune.storage: {_without_password(problem)}; check the address, and that its server runs"
            ) from None
        raise CheckpointError(
            f"{file}: not a study, or damaged; it is left unchanged: restore a copy, or search in a new directory"
        ) from None


def _without_password(text: str) -> str:
    """Return the first line, with only the kind and the server of an address."""
    line = (text.splitlines() or [""])[0]
    line = re.sub(r"(\w+://)\S*@", r"\1", line)
    return re.sub(r"(\w+://[^\s?]*)\?\S*", r"\1", line)
