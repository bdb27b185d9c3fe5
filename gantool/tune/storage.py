"""The database of a study: a file in SQLite, or any that SQLAlchemy knows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from sqlalchemy import QueuePool
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from gantool.errors import CheckpointError, RecipeError, ResourceError

DATABASE = "study.db"
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
LOCK_TIMEOUT = 20.0  # seconds to wait for another process that writes to a study's file
UNWRITABLE = ("disk is full", "disk I/O", "readonly", "unable to open")  # in messages of SQLite


def open_storage(folder: Path, address: str | None) -> optuna.storages.RDBStorage:
    """Return the storage at an address, or without one that of the file in a study's directory.

    Raises:
        RecipeError: the address cannot be read, or its driver is not installed.
    """
    if not address:

        def connect() -> sqlite3.Connection:  # by its path: `?`, `%` and `#` have a meaning in an address
            return sqlite3.connect(str(folder / DATABASE), timeout=LOCK_TIMEOUT, check_same_thread=False)

        return optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": QueuePool})
    try:
        return optuna.storages.RDBStorage(address)
    except ImportError as error:
        missing = str(getattr(error.__cause__ or error, "name", None) or "its driver")
        package = PACKAGES.get(missing, missing)
        raise RecipeError(
            f"tune.storage: {_without_password(address)} needs {missing}; pip install '{package}'"
        ) from None
    except (ValueError, ArgumentError) as error:
        raise RecipeError(f"tune.storage: {_without_password(str(error))}") from None


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
        if address:
            raise ResourceError(
                f"tune.storage: {_without_password(problem)}; check the address, and that its server runs"
            ) from None
        raise CheckpointError(
            f"{folder / DATABASE}: not a study, or damaged; it is left unchanged: restore a copy, or search in a new "
            "directory"
        ) from None


def _without_password(text: str) -> str:
    """Return the first line, with only the kind and the server of an address."""
    line = (text.splitlines() or [""])[0]
    line = re.sub(r"(\w+://)\S*@", r"\1", line)
    return re.sub(r"(\w+://[^\s?]*)\?\S*", r"\1", line)
