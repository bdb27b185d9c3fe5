"""README, docs/ and the heads of recipes: what they say can be run, read and found."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import gantool
import pytest
import typer
import yaml
from gantool import terminal
from gantool.cli import app
from gantool.cli.generating import read_seeds
from gantool.data.sources.catalog import SOURCES
from gantool.errors import GantoolError, unknown
from gantool.inference import scoring
from gantool.models import KINDS
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Data
from gantool.recipe.schema import check
from gantool.training import diagnoses
from gantool.training.engine import change, open_recipe

import make_docs

ROOT = Path(gantool.__file__).parents[1]
if not (ROOT / "docs").is_dir():
    pytest.skip("an installed package has no docs", allow_module_level=True)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
HEADS = {f"recipes/{path.name}": path.read_text(encoding="utf-8") for path in recipes.shipped().values()}
each_page = pytest.mark.parametrize("page", TEXTS)

TYPER = typer.main.get_command(app)
PLACEHOLDERS = {"RECIPE": "gan14", "CODE": "diverged", "N": "1"}  # where a text leaves something to its reader
PLACES = re.compile(r"(runs/|/shared/)[\w/-]+|RUN|STUDY|NEW")  # a directory that a reader has
OTHERS = {"cd", "git", "nox", "pip", "python", "ray"}  # commands besides gantool


class Line(NamedTuple):
    """A command line of a text: the number of its line, its words, and whether it stands in a sentence."""

    number: int
    text: str
    inline: bool = False


class Block(NamedTuple):
    """A fenced block: its language, the number of its first line, and its text."""

    language: str
    number: int
    text: str


def blocks(text):
    """Return the fenced blocks of a page."""
    for found in re.finditer(r"^```([\w-]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield Block(found[1], text.count("\n", 0, found.start(2)) + 1, found[2])


def prose(text):
    """Return a page with its fenced blocks emptied; lines keep their numbers."""
    return re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)


def joined(block):
    """Return the lines of a block with their numbers, those that end in a backslash joined with the next."""
    start, parts = block.number, []
    for number, line in enumerate(block.text.splitlines(), block.number):
        start = start if parts else number
        parts.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield start, " ".join(parts)
            parts = []


def commands(text):
    """Return the command lines of a page: those of its blocks, and those that stand in a sentence."""
    for block in blocks(text):
        lines = list(joined(block))
        prompted = any(line.startswith("$ ") for _, line in lines)
        if block.language == "sh" or prompted or (not block.language and "gantool " in block.text):
            for number, line in lines:
                if not prompted or line.startswith("$ "):
                    yield Line(number, line.removeprefix("$ "))
    plain = prose(text)
    for found in re.finditer(r"`(?:pip|nox|python|gantool)\s[^`]+`", plain):
        yield Line(plain.count("\n", 0, found.start()) + 1, " ".join(found[0].strip("`").split()), inline=True)


def head_commands(text):
    """Return the command lines in the comments that a recipe begins with. Two spaces or more end a command."""
    names = "|".join(TYPER.commands)
    for number, line in enumerate(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()), 1):
        for found in re.finditer(rf"(?:(?<=^# {{3}})gantool |\bgantool (?={names})).*", line):
            yield Line(number, re.split(r"\s{2,}", found[0].strip())[0])


def simple(line):
    """Return the words of each simple command of a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words = []
    for word in lexer:
        if set(word) <= set(";&|"):
            yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


def wrong(line):
    """Return what is wrong with a command line, or give None."""
    try:
        for words in simple(line.text):
            parts = [word for word in words if not re.match(r"[A-Z_]+=", word)]  # without variables of the environment
            if parts and parts[0] == "ray" and "--" in parts:  # ray job submit -- COMMAND
                parts = parts[parts.index("--") + 1 :]
            if parts:
                run_by_name(parts, inline=line.inline)
    except (AssertionError, ValueError, GantoolError) as error:
        return str(error).partition("\n")[0]
    except Exception as error:
        # Typer brings its own copy of click, or uses the one that is installed.
        if line.inline and type(error).__name__ in {"MissingParameter", "NoArgsIsHelpError"}:
            return None
        if hasattr(error, "format_message"):
            return error.format_message()
        raise
    return None


def run_by_name(words, *, inline):
    """Check one simple command without running it."""
    name, *rest = words
    if name == "gantool":
        parse(rest, inline=inline)
    elif name == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = [extra for word in rest for extra in re.findall(r"^(?:\.|gantool)\[([\w,]+)\]", word)]
        for extra in ",".join(extras).split(",") if extras else ():
            assert extra in project["optional-dependencies"], unknown("extra", extra, project["optional-dependencies"])
    elif name == "nox":
        source = (ROOT / "noxfile.py").read_text(encoding="utf-8")
        sessions = set(re.findall(r'nox\.session\(name="([\w-]+)"', source)) | set(
            re.findall(r"^def (\w+)", source, re.M)
        )
        if "-s" in rest:
            session = rest[rest.index("-s") + 1]
            assert session in sessions, unknown("session", session, sessions)
    elif name == "python":
        files = [word for word in rest if word.endswith(".py")]
        assert all((ROOT / file).is_file() for file in files), f"{files}: no such file"
    else:
        assert name in OTHERS, unknown("command", name, OTHERS)


def parse(words, *, inline=False):
    """Parse a command line of gantool as the real parser does, and check what it names. Nothing is run."""
    words = [re.sub(r"=N$", "=1", PLACEHOLDERS.get(word, word)) for word in words]
    path, command = [], TYPER
    while words and hasattr(command, "commands"):
        if words in (["--help"], ["--version"]):
            return
        name = words.pop(0)
        assert name in command.commands, unknown("command", name, command.commands)
        path.append(name)
        command = command.commands[name]
    if hasattr(command, "commands"):
        assert inline, "a group of commands, without one"
        return
    given = command.make_context(" ".join(path), words).params
    check_values(path, {name: value for name, value in given.items() if value is not None})


def check_values(path, given):
    """Check what stands behind the options and arguments of a command: recipes, keys, codes, metrics, seeds."""
    changes = recipes.parse_changes(list(given.get("changes") or ()))
    recipe = given.get("recipe")
    if recipe is not None and not PLACES.fullmatch(recipe):
        open_recipe(str(ROOT / recipe) if recipe.startswith("recipes/") else recipe, changes)
    elif path == ["data", "show"] and given["source"] in recipes.shipped():
        open_recipe(given["source"], changes)
    elif path == ["data", "show"]:
        wanted = {key.removeprefix("data."): value for key, value in changes.items()}
        check(Data, {"source": given["source"], "size": 64, **wanted})
    elif changes and recipe is None:
        change(open_recipe("gan14"), changes)
    if path == ["data", "fetch"] and "what" in given:
        known = {*SOURCES, *recipes.shipped(), "inception", "WHAT"}
        assert given["what"] in known or given["what"].startswith("https://"), unknown("source", given["what"], known)
    if path == ["explain"] and "code" in given:
        diagnoses.explain(given["code"])
    if path == ["score"]:
        scoring.chosen(given.get("metrics"))
    if "seeds" in given:
        read_seeds(given["seeds"])


@pytest.fixture(autouse=True)
def not_quiet(monkeypatch):
    """A line with -q is only parsed here, so nothing ends its effect."""
    monkeypatch.setattr(terminal, "quiet", False)


# What the pages say can be run.


@each_page
def test_every_command_line_is_understood(page):
    assert [
        f"{page}:{line.number}: {line.text}: {told}" for line in commands(TEXTS[page]) if (told := wrong(line))
    ] == []


@pytest.mark.parametrize("page", HEADS)
def test_every_command_line_in_the_head_of_a_recipe_is_understood(page):
    lines = list(head_commands(HEADS[page]))

    assert lines
    assert [f"{page}:{line.number}: {line.text}: {told}" for line in lines if (told := wrong(line))] == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("gantool sample -n 64 -o more.png", "No such option"),
        ("gantool trian gan14", "unknown command 'trian'; did you mean 'train'?"),
        ("gantool train gan15", "unknown recipe 'gan15'; did you mean 'gan14'?"),
        ("gantool train gan14 && gantool tune gan14 --trials none", "Invalid value for '--trials'"),
        ("gantool train gan14 --set train.epoch=3", "--set train.epoch: unknown key"),
        ("gantool score RUN --metrics fd,kde", "--metrics kde: unknown metric"),
        ("gantool explain collapse", "unknown diagnosis"),
        ("gantool data fetch mnits", "unknown source"),
        ("pip install '.[reel]'", "unknown extra"),
        ("nox -s bensh", "unknown session"),
        ("python tests/nothing.py", "no such file"),
        ("ray job submit --address http://HEAD:8265 -- gantool tune gan14 --adress auto", "No such option"),
        ("gatnool train gan14", "unknown command 'gatnool'"),
    ],
)
def test_a_wrong_command_line_is_found(line, told):
    assert told in wrong(Line(1, line))


def test_command_lines_are_found_in_blocks_and_in_sentences():
    text = (
        "Use `gantool train\ngan14`.\n```sh\n# first\ngantool train \\\n  gan14\n```\n"
        "```console\n$ gantool shapes gan14\nlayer\n```\n"
    )

    found = [line for line in commands(text) if list(simple(line.text))]

    assert [(line.number, " ".join(line.text.split())) for line in found] == [
        (5, "gantool train gan14"),
        (9, "gantool shapes gan14"),
        (1, "gantool train gan14"),
    ]


def test_readme_has_the_two_lines_and_is_short():
    readme = TEXTS["README.md"]

    assert "\npip install . && gantool tune recipes/cgan_egg.yaml\n" in readme
    assert "\npip install nox && nox\n" in readme
    assert len(readme.encode()) <= 9000


@each_page
def test_no_comment_stands_behind_a_command(page):
    lines = [line for block in blocks(TEXTS[page]) if block.language == "sh" for line in block.text.splitlines()]

    assert [line for line in lines if re.search(r"\S.*\s# ", line)] == []


@each_page
def test_every_recipe_in_a_page_is_one(page):
    for block in blocks(TEXTS[page]):
        if block.language == "yaml":
            part = yaml.safe_load(block.text)
            assert part
            if "model" in part:
                recipes.parse(block.text, page, KINDS)
            else:  # a part of a recipe
                base = recipes.shipped()["dcgan28"].read_text(encoding="utf-8")
                document = yaml.safe_load(base) | part
                recipes.parse(yaml.safe_dump(document), page, KINDS)


@each_page
def test_every_python_example_compiles(page):
    for block in blocks(TEXTS[page]):
        if block.language == "python":
            compile(block.text, page, "exec")


# What they say is complete.


def test_every_recipe_is_in_the_table_of_readme():
    rows = [line for line in TEXTS["README.md"].splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}

    assert set(recipes.shipped()) <= named


def test_every_command_is_in_readme_or_docs():
    groups = {name: getattr(command, "commands", None) for name, command in TYPER.commands.items()}
    names = [f"{name} {one}" for name, inner in groups.items() for one in inner or ()]
    names += [name for name, inner in groups.items() if inner is None]
    everything = "\n".join(TEXTS.values())

    assert [name for name in names if f"gantool {name}" not in everything] == []


def test_every_page_is_linked_from_readme():
    linked = set(re.findall(r"\]\((docs/[\w.-]+\.md)", TEXTS["README.md"]))

    assert {page for page in TEXTS if page != "README.md"} <= linked


@each_page
def test_generated_parts_are_up_to_date(page):
    assert make_docs.generated(TEXTS[page]) == TEXTS[page], "run: PYTHONPATH=. python tests/tools/make_docs.py"


def test_every_generated_part_stands_in_one_page():
    assert sorted(re.findall(r"<!-- generated: ([\w-]+) -->", "".join(TEXTS.values()))) == sorted(make_docs.GENERATED)


# What they point to is there.


@functools.cache
def names_of_tests(file):
    """Return the names of the tests in a file, which is not run."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8")) if (ROOT / file).is_file() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@each_page
def test_every_test_that_a_page_names_exists(page):
    named = re.findall(r"(tests/[\w./-]+)::(\w+)", TEXTS[page])

    assert [f"{file}::{name}" for file, name in named if name not in names_of_tests(file)] == []
    assert page != "docs/reliability.md" or len(named) > 100


def test_every_row_of_the_page_about_reliability_has_a_test_or_a_reason():
    cases = TEXTS["docs/reliability.md"].partition("## Runs and checkpoints")[2]
    rows = [line.strip("| ").split(" | ") for line in cases.splitlines() if line.startswith("| ")]

    assert {len(row) for row in rows} == {3}
    assert [row for row in rows if not re.search(r"::test_|^none: |^test, or ", row[2])] == []


def anchors(text):
    """Return the anchors of a page's headings, as GitHub makes them."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


@each_page
def test_every_link_leads_to_a_file_and_a_heading(page):
    folder, broken = (ROOT / page).parent, []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[page])):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve() if name else ROOT / page
        text = path.read_text(encoding="utf-8") if path.suffix == ".md" and path.is_file() else ""
        if not path.is_file() or (anchor and anchor not in anchors(text)):
            broken.append(target)

    assert broken == []
