"""The study that a search continues, or the directory of a new one."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from gantool.errors import GantoolError, ResourceError
from gantool.recipe.blocks import Recipe
from gantool.runs import STUDY, make_directory
from gantool.tune.record import differs
from gantool.tune.study import Study

logger = logging.getLogger(__name__)


def find_study(out: Path | None, recipe: Recipe, *, fresh: bool) -> tuple[Path, bool]:
    """Return the directory of a search, and whether it holds a study that continues.

    Args:
        out: the directory; by default the newest study of this recipe in `runs/`, or a new one.
        recipe: what is searched.
        fresh: start a new study; a study at `out` is moved aside.
    """
    if out is None:
        named = [] if fresh else _studies(recipe)
        same = [path for path in named if _is_of(path, recipe)]
        if same:
            return same[-1], True
        if named:
            with contextlib.suppress(GantoolError):
                key = differs(named[-1], recipe)
                logger.info(f"{named[-1]} differs in {key}: a new study starts (--from takes its best values)")
        return make_directory(None, recipe.name), False
    if (out / STUDY).is_file():
        if not fresh:
            return out, True
        number = 1
        while (aside := out.with_name(f"{out.name}-old-{number}")).exists():
            number += 1
        try:
            out.rename(aside)
        except OSError as error:
            raise ResourceError(f"{out}: cannot be moved to {aside} ({error.strerror}); end what uses it") from None
    return make_directory(out, recipe.name, ""), False


def earlier_study(recipe: Recipe) -> Study | None:
    """Return the newest study of a recipe's name in `runs/`, if it can be read."""
    for path in _studies(recipe)[-1:]:
        with contextlib.suppress(GantoolError):
            return Study(path)
    return None


def _studies(recipe: Recipe) -> list[Path]:
    """Return the studies of a recipe's name in `runs/`, the newest last."""
    found = [path for path in Path("runs").glob(f"{recipe.name}-*") if (path / STUDY).is_file()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _is_of(path: Path, recipe: Recipe) -> bool:
    try:
        return differs(path, recipe) is None
    except GantoolError:  # an unreadable study must not prevent a new one
        return False
