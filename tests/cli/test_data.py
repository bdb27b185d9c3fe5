"""`gantool shapes` and `gantool data`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from gantool import runs
from gantool.cli.generating import read_seeds
from gantool.errors import GantoolError
from PIL import Image


def test_shapes_are_a_table_or_json(command):
    result, out, _ = command("shapes", "dcgan28")
    assert result == 0
    assert "2,308,609 parameters in generator" in out
    assert "(7 - 1)*2 - 2*1 + 4 = 14" in out

    result, out, err = command("shapes", "dcgan28", "--json")
    rows = json.loads(out)
    assert (result, err) == (0, "")
    assert set(rows[0]) == {"network", "layer", "kind", "input", "output", "parameters", "formula"}
    assert {row["network"] for row in rows} == {"generator", "discriminator"}
    assert sum(row["parameters"] for row in rows if row["network"] == "generator") == 2_308_609


def test_shapes_that_do_not_fit_are_told(command):
    result, _, err = command("shapes", "dcgan28", "--set", "data.size=27")

    assert result == 2
    assert re.fullmatch(r"error: generator: makes images of 1x28x28, but the data's are 1x27x27; .*\n", err)


def test_sources_are_listed(command, data_dir):
    result, out, _ = command("data", "list")

    assert result == 0
    for name in ("eggs", "digits", "mnist", "fashion_mnist", "kmnist", "cifar10"):
        assert re.search(rf"^{name} ", out, re.MULTILINE)
    assert re.search(r"^digits +here ", out, re.MULTILINE)
    assert out.splitlines()[-1] == f"data directory: {data_dir}"


def test_a_contact_sheet_is_drawn(command, inside):
    options = ["--set", "size=8", "--set", 'data.classes=["3", "7"]']
    result, out, _ = command("data", "show", "digits", *options)

    assert (result, out) == (0, "sheet.png: 362 images in 2 classes\n")
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
    result, _, err = command("data", "show", "digits", *options)
    assert (result, err) == (2, "error: sheet.png: already exists; name another file, or add --overwrite\n")
    assert command("data", "show", "digits", *options, "--overwrite")[0] == 0


def test_a_check_prints_counts_and_an_example_of_each_finding_or_json(command, inside):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        Path("pets", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3).save(Path("pets", name))
    Path("pets", "b", "1.png").write_bytes(b"no image")
    result, out, err = command("data", "check", "pets")
    lines = [" ".join(line.split()) for line in out.splitlines()]

    assert (result, err) == (0, "")
    assert {"a 2", "b 0 no image", "sizes: 8x8 (2)", "modes: PNG L (2)", "nearly constant 0"} <= set(lines)
    assert any(line.startswith("exact duplicates 1 a") for line in lines)
    assert any(line.endswith("1.png: not an image") for line in lines)
    shown = json.loads(command("data", "check", "pets", "--json")[1])
    assert (shown["source"], shown["classes"], len(shown["duplicates"])) == ("pets", {"a": 2, "b": 0}, 1)
    assert json.loads(command("data", "check", "pets", "--set", "classes=[a]", "--json")[1])["unreadable"] == []
    assert not list(inside.glob("*.png"))


def test_a_part_is_shown_with_the_whole(command, inside):
    assert command("data", "show", "digits", "--set", "size=8", "--set", "limit=50")[1] == (
        "sheet.png: 50 of 1,797 images in 10 classes\n"
    )
    out = command("data", "show", "income", "--set", "limit=40")[1]
    assert out.splitlines()[-1] == "32 rows to learn from, 8 held out (40 of 4,000 rows)"
    shown = json.loads(command("data", "show", "income", "--set", "limit=40", "--json")[1])
    assert (shown["part"], shown["examples"]) == ("40 of 4,000", 40)


@pytest.mark.parametrize(
    ("arguments", "result", "message"),
    [
        (["show", "digits", "--set", "size=x"], 2, '--set data.size: expected a whole number or a list, got "x"'),
        (["show", "digits", "--set", "data.size=0"], 2, "--set data.size: expected at least 1 or a list, got 0"),
        (["show", "digits", "--set", "sise=5"], 2, "--set data.sise: unknown key 'sise'; did you mean 'size'?"),
        (["show", "digits", "--set", "data.classes=[3]"], 2, "--set data.classes.0: expected text, got 3; in quotes"),
        (
            ["show", "digist"],
            3,
            "data.source: unknown source 'digist'; did you mean 'digits'?; no folder or file here has this name",
        ),
        (["check", "income"], 3, "income: is a table, but this command looks at images; see: gantool data show"),
        (["check", "digits", "--set", "size=x"], 2, '--set data.size: expected a whole number or a list, got "x"'),
        (["show", "gan41.yaml"], 2, "gan41.yaml: no such recipe file"),
        (
            ["fetch", "mnits"],
            3,
            "data.source: unknown source 'mnits'; did you mean 'mnist'?; no folder or file here has this name",
        ),
        (
            ["fetch", "digits", "--name", "x"],
            3,
            "--name x: only images from an address get a name; leave it out",
        ),
        (
            ["fetch", "https://example.org/a.zip", "--name", "a b"],
            3,
            "--name a b: expected a new name of letters, digits, ",
        ),
    ],
)
def test_data_that_cannot_be_are_told(command, inside, arguments, result, message):
    found, out, err = command("data", *arguments)

    assert (found, out) == (result, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


READY = "digits is downloaded; use it with: --set data.source=digits\n"


def test_a_source_that_is_here_is_fetched_at_once(command):
    assert command("data", "fetch", "digits")[:2] == (0, READY)


def test_the_data_of_a_recipe_are_fetched_and_shown(command, inside):
    Path("mine.yaml").write_text(
        "model: mlp\nloss: hinge\ndata: {source: digits, size: 8}\ntrain: {epochs: 1}\n", encoding="utf-8"
    )

    assert command("data", "fetch", "mine.yaml")[:2] == (0, READY)
    assert command("data", "show", "mine.yaml")[:2] == (0, "sheet.png: 1,797 images in 10 classes\n")


def test_the_pairs_of_a_recipe_are_drawn_each_target_beside_its_source(command, inside):
    for index in range(3):
        for side, colour in (("A", (200, 10 * index, 0)), ("B", (0, 10 * index, 200))):
            Path("mine", side).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), colour).save(Path("mine", side, f"{index}.png"))
    recipe = "model: {name: pix2pix, levels: 3, norm: instance, dropout: 0.5}\nloss: hinge\n"
    Path("mine.yaml").write_text(recipe + "data: {source: ./mine, size: 8}\ntrain: {epochs: 1}\n", encoding="utf-8")

    assert command("data", "show", "mine.yaml")[:2] == (0, "sheet.png: 3 of 3 pairs\n")
    pixels = np.asarray(Image.open("sheet.png").convert("RGB")).astype(int)
    middle = next(row for row in pixels if (row == (200, 0, 0)).all(1).any())
    sides = [("A" if red == 200 else "B") for red, _, blue in middle if 200 in (red, blue)]
    assert [side for place, side in enumerate(sides) if place == 0 or sides[place - 1] != side] == ["A", "B"] * 3
    options = ["--set", "data.classes=[B, A]", "-o", "turned.png"]
    assert command("data", "show", "mine.yaml", *options)[0] == 0
    assert Path("turned.png").read_bytes() != Path("sheet.png").read_bytes()


@pytest.mark.parametrize("what", ["income", "dnn_income"])
def test_rows_of_a_table_are_printed_and_nothing_is_drawn(command, inside, what):
    result, out, err = command("data", "show", what)

    assert (result, err) == (0, "")
    assert out.splitlines()[-1] == "3,200 rows to learn from, 800 held out"
    assert {word for line in out.splitlines() for word in line.split() if word in {"<=50K", ">50K"}} == {
        "<=50K",
        ">50K",
    }
    assert list(inside.iterdir()) == []


def test_seeds_are_read_as_people_write_them():
    assert read_seeds("7") == [7]
    assert read_seeds("0-3") == [0, 1, 2, 3]
    assert read_seeds(" 1, 5,9-11") == [1, 5, 9, 10, 11]
    with pytest.raises(GantoolError, match="too many at once"):
        read_seeds("0-100000")


def test_the_data_directory_is_a_users_cache_by_default(monkeypatch):
    monkeypatch.delenv("GANTOOL_DATA")

    assert runs.data_root(None).name == "gantool"
    assert runs.data_root(Path("here")) == Path("here").absolute()
