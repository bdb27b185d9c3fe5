"""The rooms of the package: who may import whom, as docs/design.md says it in one sentence."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import gantool
import pytest

ROOT = Path(gantool.__file__).parent
SENTENCE = (
    "single files, then recipe, then data and models, then metrics, training, inference, tune, report, cli; "
    "import only from what stands before"
)
SINGLE_FILES, *STEPS = re.split(", then |, ", SENTENCE.partition(";")[0])
LEVELS = {room: level for level, step in enumerate(STEPS, 1) for room in step.split(" and ")}  # of single files: 0
ENTRIES = {"", "__main__"}  # the Python interface and `python -m gantool`, which open everything else
HEAVY = {"torch", "numpy", "PIL", "ray", "optuna", "pydantic", "plotly", "jinja2", "requests"}
ONLY = {
    "ray": {"tune"},
    "optuna": {"tune", "report"},
    "plotly": {"report"},
    "jinja2": {"report"},
    "typer": {"cli"},
    "rich": {"terminal", "progress", "tune"},
    "filelock": {"files"},
    "requests": {"data"},
    "safetensors": {"checkpoints"},
}


def module(file):
    """Name a file by what stands below gantool, such as `tune.study`."""
    return ".".join(part for part in file.relative_to(ROOT).with_suffix("").parts if part != "__init__")


def room(name):
    """Name the room of a module: its folder, or the single file that it is."""
    return name.partition(".")[0]


def level(name):
    return LEVELS.get(room(name), 0)


def imports(tree, *, for_types):
    """Return every module and name that is imported, with its line; in `if TYPE_CHECKING` blocks only `for_types`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (((alias.name, ""), node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            for alias in node.names:
                inner = ROOT.joinpath(*f"{node.module}.{alias.name}".split(".")[1:])
                is_module = node.module.startswith("gantool") and (inner.with_suffix(".py").exists() or inner.is_dir())
                yield (f"{node.module}.{alias.name}", "") if is_module else (node.module, alias.name), node.lineno
        else:
            yield from imports(node, for_types=for_types)


FILES = sorted(file for file in ROOT.rglob("*.py") if "recipes" not in file.parts)


@functools.cache
def found(*, for_types=False):
    """Return file, line, module and name of every import."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
    return [
        (file, line, name, what)
        for file, tree in trees.items()
        for (name, what), line in imports(tree, for_types=for_types)
    ]


def ours(*, for_types=False):
    """Return file, line, importing module, imported module and name of the imports within gantool."""
    for file, line, name, what in found(for_types=for_types):
        if room(name) == "gantool":
            yield file, line, module(file), name.removeprefix("gantool").removeprefix("."), what


def place(file, line):
    return f"{file.relative_to(ROOT).as_posix()}:{line}"


def test_the_sentence_names_every_folder_and_stands_in_design():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(LEVELS)
    assert SINGLE_FILES == "single files"
    assert LEVELS["recipe"] < LEVELS["data"] == LEVELS["models"] < LEVELS["metrics"] < LEVELS["cli"]
    if not (ROOT.parent / "docs").is_dir():
        pytest.skip("an installed package has no docs")
    assert SENTENCE in " ".join((ROOT.parent / "docs/design.md").read_text(encoding="utf-8").split()).lower()


def test_imports_name_only_what_stands_before():
    wrong = [
        f"{place(file, line)} imports {target}"
        for file, line, own, target, _ in ours()
        if own not in ENTRIES and room(own) != room(target) and max(level(own), level(target)) > 0
        if level(target) >= level(own)
    ]

    assert wrong == []


def test_no_module_imports_itself_by_way_of_others():
    known = {module(file): set() for file in FILES}
    for _, _, own, target, _ in ours():
        known[own].add(target)
    for _, _, own, target, _ in ours(for_types=True):
        if level(own) == level(target):  # they are to be read one after the other, too
            known[own].add(target)

    def reached(start):
        seen, left = set(), [start]
        while left:
            new = known.get(left.pop(), set()) - seen
            seen |= new
            left += new
        return seen

    assert [name for name in sorted(known.keys() - ENTRIES) if name in reached(name)] == []


def test_a_name_with_an_underscore_stays_in_its_room():
    wrong = [
        f"{place(file, line)} imports {what} of {target}"
        for file, line, own, target, what in ours(for_types=True)
        if what.startswith("_") and not what.startswith("__") and room(own) != room(target)
    ]

    assert wrong == []


def test_some_libraries_have_one_room_only():
    wrong = [
        f"{place(file, line)} imports {name}"
        for file, line, name, _ in found()
        if room(module(file)) not in ONLY.get(room(name), {room(module(file))})
    ]

    assert wrong == []


def test_no_module_reads_a_clock_that_can_be_set_back():
    allowed = {"files.py", "listing.py"}  # the ages of files, whose times are of the same clock
    clocks = re.compile(r"\btime\.(time|time_ns|localtime|gmtime|ctime)\b|\.(now|utcnow|today)\(")
    lines = [
        (file, number, line) for file in FILES for number, line in enumerate(file.read_text("utf-8").split("\n"), 1)
    ]

    assert [
        place(file, number) for file, number, line in lines if clocks.search(line) and file.name not in allowed
    ] == []


def test_the_package_itself_imports_nothing_heavy():
    for file in (ROOT / "__init__.py", ROOT / "errors.py", *(ROOT / "cli").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {(node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name for node in top}
        assert {room(name) for name in names}.isdisjoint(HEAVY), file


# Who changes files: `files`, and these for the reason given.
WRITES = {
    "write_text", "write_bytes", "mkdir", "mkdtemp", "touch", "unlink", "rmdir", "rmtree", "symlink_to", "hardlink_to",
    "copytree", "copyfile", "copy2", "copyfileobj", "extract", "extractall", "tofile", "savez", "makedirs", "truncate",
    "TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile", "memmap", "fsync", "to_csv", "savefig", "write_image",
}  # fmt: skip
OF_MODULE = {"os": {"replace", "rename", "remove", "link", "open", "write"}, "np": {"save"}, "shutil": {"move", "copy"}}
SAVERS = {"images", "checkpoints"}  # rooms whose `save` writes by `files`
ALLOWED = {
    ("checkpoints", "open"): "the temporary file of atomic_write",
    ("checkpoints", "save"): "into memory",
    ("cli", "os.open"): "where output goes whose reader has gone",
    ("data.archive", "copyfileobj"): "into a file of files.new_file",
    ("data.sources.base", "copyfileobj"): "into a file of files.new_file",
    ("data.store", "memmap"): "only read",
    ("images", "save"): "into memory",
    ("inference.animation", "TemporaryDirectory"): "ffmpeg writes its film",
    ("inference.animation", "TemporaryFile"): "ffmpeg writes its messages",
    ("tune.cluster.connect", "mkdtemp"): "Ray writes its own files",
}


def writing(tree):
    """Return line and name of each call that may change a file: by a function, or by `open` in a mode that writes."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        if name == "open" and owner != "os":
            modes = [word.value for word in (*node.args, *(each.value for each in node.keywords)) if is_text(word)]
            if any(set(mode) <= set("rwabtx+") and set(mode) & set("wax+") for mode in modes):
                yield node.lineno, "open"
        elif name in WRITES or name in OF_MODULE.get(owner, ()):
            yield node.lineno, called if owner == "os" else name
        elif (owner.endswith("file") and name in {"replace", "rename"}) or (name == "save" and owner not in SAVERS):
            yield node.lineno, name


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value)


def test_only_files_changes_files():
    used, wrong = set(), []
    for file in FILES:
        own = module(file)
        for line, name in writing(ast.parse(file.read_text(encoding="utf-8"))):
            used.add((own, name))
            if own != "files" and (own, name) not in ALLOWED:
                wrong.append(f"{place(file, line)} calls {name}")

    assert wrong == []
    assert set(ALLOWED) <= used, "an exception that nothing needs"


@pytest.mark.parametrize(
    "line",
    [
        'open("a", "w")', 'path.open("ab")', 'path.open(mode="r+")', 'gzip.open(a, "xb")', "path.write_text(a)",
        "os.replace(a, b)", "np.save(a, b)", "shutil.rmtree(a)", "path.mkdir()", "file.replace(last)", "a.unlink()",
        "image.save(b)",
    ],
)  # fmt: skip
def test_a_call_that_changes_files_is_seen(line):
    assert list(writing(ast.parse(line)))
    assert not list(writing(ast.parse('open("a.csv"), path.open("rb"), text.replace("w", "a"), images.open(x)')))
