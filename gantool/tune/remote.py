"""A search on a cluster that is only reached through Ray's client: it runs over there, and is watched from here."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from gantool import errors, models, terminal
from gantool.errors import GantoolError, NetworkError
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Recipe
from gantool.tune import results
from gantool.tune.board import Board
from gantool.tune.cluster import connect
from gantool.tune.search import SearchBackend, search

POLL = 0.5  # seconds between two looks at what there is to tell


class Outcome(NamedTuple):
    """What a search over there came to.

    Args:
        study: its directory, on the cluster.
        winner_sentence: which trial is the best, in words; empty where none has finished.
    """

    study: str
    winner_sentence: str


class Relay(Board):
    """A board over there: keeps what there is to tell, for whoever asks."""

    def __init__(self, recipe: Recipe, *, as_json: bool) -> None:
        super().__init__(recipe, as_json=as_json)
        self.told: list[tuple[str, Any]] = []

    @property
    def _terminal(self) -> bool:
        return False

    def tell(self, sentence: str) -> None:
        """Keep a sentence."""
        self.told.append(("tell", sentence))

    def _print(self, table: Table) -> None:
        text = io.StringIO()
        Console(file=text, width=terminal.PIPED, highlight=False, emoji=False).print(table)
        self.told.append(("result", "\n".join(line.rstrip() for line in text.getvalue().splitlines())))

    def _send(self, event: dict[str, Any]) -> None:
        self.told.append(("event", event))


class Driver:
    """The search over there, an actor of Ray's; `run` goes on while the other methods are called.

    Args:
        text: of the recipe.
        name: of the recipe.
        as_json: see `Board`.
    """

    def __init__(self, text: str, name: str, as_json: bool) -> None:
        self.recipe = recipes.parse(text, name, models.KINDS)
        self.board = Relay(self.recipe, as_json=as_json)
        self.stopped: list[int] = []

    def run(self, out: str, data_dir: str, fresh: bool, device: str, verbose: bool) -> tuple[str, str]:
        """Search; gives the study and its winner, or the name and the message of what went wrong."""
        way = SearchBackend("ray", connect.HERE, device, verbose)
        try:
            study = search(
                self.recipe,
                out=Path(out),
                fresh=fresh,
                data_dir=Path(data_dir),
                board=self.board,
                stopped=self.stopped,
                way=way,
            )
        except GantoolError as error:
            return type(error).__name__, str(error)
        return "", results.sentence(study)

    def news(self, since: int) -> list[tuple[str, Any]]:
        """Give what was told after the first `since`."""
        return self.board.told[since:]

    def stop(self, number: int) -> None:
        """End the search well."""
        self.stopped.append(number)


def search_there(
    recipe: Recipe,
    *,
    out: Path | None,
    fresh: bool,
    data_dir: Path | None,
    as_json: bool,
    stopped: list[int],
    way: SearchBackend,
) -> Outcome:
    """Search on the cluster at `way.address`, and show what happens there as it happens.

    Args:
        recipe: what is searched; its data have to be known over there.
        out: directory of the study, which all machines of the cluster share.
        fresh: see `search`.
        data_dir: of the cluster; in the study's directory without it.
        as_json: see `Board`.
        stopped: the search ends well as soon as this list is not empty.
        way: how it runs.

    Raises:
        GantoolError: what `search` raised over there.
    """
    if out is None or not out.is_absolute():
        raise GantoolError(
            f"--out {out or ''}: with ray:// the study is on the cluster; name a directory that all of its machines "
            "share, such as /shared/studies/eggs"
        )
    connect.reach(way.address)
    with connect.connected(way.address, verbose=way.verbose):
        import ray

        terminal.tell(f"searching on the cluster at {way.address}")
        try:
            kind = ray.remote(Driver).options(num_cpus=0, max_concurrency=4)
            driver: Any = kind.remote(recipes.dump(recipe), recipe.name, as_json)
            there = str(data_dir or out / "data")
            task = driver.run.remote(str(out), there, fresh, way.device, way.verbose)
            told, asked = 0, False
            while True:
                done, _ = ray.wait([task], timeout=POLL)
                told += _pass_on(ray.get(driver.news.remote(told)))
                if stopped and not asked:
                    driver.stop.remote(stopped[0])
                    asked = True
                if done:
                    break
            failure, said = ray.get(task)
        except ray.exceptions.RayError as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise NetworkError(
                f"--address {way.address}: the search over there ended ({said}); the same command goes on"
            ) from None
    if failure:
        raise getattr(errors, failure)(said)
    return Outcome(str(out), said)


def _pass_on(news: list[tuple[str, Any]]) -> int:
    for way, what in news:
        ways: dict[str, Callable[[Any], None]] = {
            "tell": terminal.tell,
            "result": terminal.result,
            "event": terminal.event,
        }
        ways[way](what)
    return len(news)
