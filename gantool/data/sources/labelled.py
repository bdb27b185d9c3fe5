"""A folder of images whose classes are in a table, `labels.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gantool.data.sources.folders import Folder
from gantool.data.sources.layout import MAX_WRAPPED, all_files, counted, entries, may_be_image
from gantool.data.tables import check_width, read_csv
from gantool.errors import DataError
from gantool.terminal import printable

NAME = "labels.csv"
FILES, CLASSES = ("file", "filename", "file_name", "image", "path"), ("class", "label", "category")  # names of columns


class LabelledFolder(Folder):
    """A folder of images, at any depth, and a CSV file that names the class of each.

    The first line of the file names its columns. A file is given by its path from the table, or by its name alone if no
    other has it. Images without a row and rows without an image are problems.

    Args:
        table: the CSV file; images are in its folder.

    Raises:
        DataError: the table cannot be read, lacks a column, or names a file twice; a cell is empty; no image is left.
    """

    layout = "labelled"

    def __init__(self, table: Path) -> None:
        self.path, self.problems = table.parent, []
        files = [file for file in all_files(self.path, self.problems) if file != table]
        by_path = {file.relative_to(self.path).as_posix(): file for file in files}
        by_name: dict[str, list[Path]] = {}
        for file in files:
            by_name.setdefault(file.name, []).append(file)
        classes: dict[str, list[Path]] = {}
        lines: dict[Path, str] = {}
        missing = []
        for where, name, class_name in _rows(table):
            named = by_name.get(name, [])
            found = by_path.get(name) or (named[0] if len(named) == 1 else None)
            if found is None:
                missing.append(printable(name))
                continue
            if found in lines:
                raise DataError(f"{where}: {printable(name)} was named in {lines[found]} too; remove one of the lines")
            lines[found] = where.rpartition(": ")[2]
            classes.setdefault(printable(class_name), []).append(found)
        lone = [
            printable(str(file.relative_to(self.path))) for file in files if file not in lines and may_be_image(file)
        ]
        for names, reason in ((missing, f"in {table.name}, but no such file"), (lone, f"no line in {table.name}")):
            if names:
                self.problems.append((counted(names), reason))
        if not classes:
            raise DataError(
                f"{table}: none of its files exists ({counted(missing)}); give paths from the table's folder"
            )
        self.files = {name: sorted(classes[name]) for name in sorted(classes)}
        self.classes = tuple(self.files)


def find_table(path: Path) -> Path | None:
    """Return the table of a folder, or of a lone folder in it; None if there is none."""
    for _ in range(MAX_WRAPPED):
        folders, files = entries(path)
        for name in files:
            if name.lower() == NAME:
                return path / name
        if files or len(folders) != 1:
            break
        path = path / folders[0]
    return None


def _rows(table: Path) -> list[tuple[str, str, str]]:
    """Return the place of each line for messages, the file and the class. Backslashes of paths become slashes."""
    lines = read_csv(table)
    where, head = next(lines, ("", []))
    if not head:
        raise DataError(f"{table}: empty; its first line names the columns: file,class")
    file, label = (_column(table, head, names) for names in (FILES, CLASSES))
    rows = []
    for where, cells in lines:
        check_width(where, cells, len(head))
        for place in (file, label):
            if not cells[place]:
                raise DataError(f"{where}: no {head[place]}; write one, or remove the line")
        rows.append((where, cells[file].replace("\\", "/").removeprefix("./"), cells[label]))
    if not rows:
        raise DataError(f"{table}: no row below its head; add one")
    return rows


def _column(table: Path, head: Sequence[str], names: Sequence[str]) -> int:
    found = [place for place, name in enumerate(head) if name.lower() in names]
    if len(found) != 1:
        shown = printable(", ".join(head))
        raise DataError(
            f"{table}: has the columns {shown}, but needs one column {names[0]!r}; rename one, or, to use subfolders "
            "as classes, rename the file"
        )
    return found[0]
