"""The rooms of the house: imports only point to a lower level."""

from __future__ import annotations

import ast
from pathlib import Path

import gantool

ROOT = Path(gantool.__file__).parent
LEVELS = [
    {"errors", "batches"},
    {"schema", "strict_yaml", "locks", "data.transport"},
    {"runs", "devices", "data.fetch", "data.decode", "health", "augment", "schedule"},
    {"recipe", "checkpoints", "data.unpack"}
    | {"losses", "images", "data.eggs", "data.picture", "data.store", "metrics.distances", "metrics.pictures"}
    | {"metrics.features", "models.blocks"},
    {"animation", "models.base", "data.folders", "data.translations", "data.stream", "data.tables"}
    | {"metrics.learned", "metrics.inception", "metrics.answers"},
    {"data.sources", "data.sheet", "models.cgan", "models.dcgan", "models.dcgan_tf", "models.mlp", "metrics.evaluate"}
    | {"models", "trainer", "shapes", "data.pairs"}
    | {"models.cdcgan", "models.wgan_gp", "models.pix2pix", "models.cyclegan"}
    | {"models.cnn", "models.dense", "models.lstm", "metrics.exam"},
    {"data.prepare", "assessment"},
    {"training"},
    {"engine"},
    {"sampling"},
    {"scoring", "inputs"},
    {"show"},
    {"tune"},
    {"cli"},
]
OUTSIDE = {"", "__main__", "data", "metrics"}  # the package itself, and folders whose `__init__` holds nothing
WHOLE = {"tune", "cli"}  # folders that are one room, whatever their files are called
ONLY = {"ray": {"tune"}, "optuna": {"tune"}, "typer": {"cli"}, "rich": {"show", "tune"}, "filelock": {"locks"}}


def room(file):
    """Name the room that a file is."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] in WHOLE else ".".join(part for part in parts if part != "__init__")


def level(name):
    (found,) = [index for index, rooms in enumerate(LEVELS) if name in rooms]
    return found


def imports(tree):
    """Give every module that is imported, anywhere but in an `if TYPE_CHECKING` block, with its line."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            for alias in node.names:
                inner = ROOT.joinpath(*f"{node.module}.{alias.name}".split(".")[1:])
                is_module = node.module.startswith("gantool") and (inner.with_suffix(".py").exists() or inner.is_dir())
                yield (f"{node.module}.{alias.name}" if is_module else node.module), node.lineno
        else:
            yield from imports(node)


FILES = sorted(file for file in ROOT.rglob("*.py") if "recipes" not in file.parts)
IMPORTS = {file: list(imports(ast.parse(file.read_text(encoding="utf-8")))) for file in FILES}


def test_every_room_has_its_level_and_every_level_its_rooms():
    rooms = {room(file) for file in FILES} - OUTSIDE
    planned = set().union(*LEVELS)

    assert rooms - planned == set()
    assert planned - rooms <= {"models.blocks", "tune"}  # rooms that may not be built yet
    assert sum(map(len, LEVELS)) == len(planned)


def test_imports_only_point_down():
    wrong = []
    for file, found in IMPORTS.items():
        own = room(file)
        for name, line in found:
            target = name.removeprefix("gantool").removeprefix(".")
            target = whole if (whole := target.partition(".")[0]) in WHOLE else target
            if not name.startswith("gantool") or own in OUTSIDE or target in OUTSIDE or target == own:
                continue
            inside_of_package = own == "models" and target.startswith("models.")
            if not inside_of_package and level(target) >= level(own):
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports {target}")

    assert wrong == []


def test_some_libraries_have_one_room_only():
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file, found in IMPORTS.items()
        for name, line in found
        if room(file) not in ONLY.get(name.partition(".")[0], {room(file)})
    ]

    assert wrong == []


def test_the_package_itself_imports_nothing_heavy():
    for file in (ROOT / "__init__.py", ROOT / "errors.py", *(ROOT / "cli").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {(node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
        assert {name.partition(".")[0] for name in names} & {
            "torch",
            "numpy",
            "PIL",
            "ray",
            "optuna",
            "pydantic",
        } == set()
