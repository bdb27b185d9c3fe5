"""Folders of images whose classes are in labels.csv."""

from __future__ import annotations

import pytest
from gantool.data.prepare import prepare
from gantool.data.sources.labelled import LabelledFolder
from gantool.recipe.blocks import Data
from PIL import Image

from refusals import refusal

GOOD = "file,class\n1.png,cat\n2.png,dog\nmore/3.png,cat\n"


@pytest.fixture
def pets(tmp_path):
    """A function that writes a table beside three images, one of them in a folder."""
    for index, name in enumerate(("1.png", "2.png", "more/3.png")):
        file = tmp_path / "all" / "pets" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 100 + index).save(file)

    def write(text, name="labels.csv", encoding="utf-8"):
        file = tmp_path / "all" / "pets" / name
        file.write_bytes(text.encode(encoding))
        return file

    return write


def found(folder):
    return {name: [file.name for file in files] for name, files in folder.files.items()}


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "class,note,FileName\r\ncat,,1.png\r\ndog,x,./2.png\r\ncat,,more\\3.png\r\n",
        "file;class\n1.png;cat\n2.png;dog\nmore/3.png;cat\n",
        "\ufefffile,label\n\n1.png,cat\n2.png,dog\n3.png,cat\n",
    ],
)
def test_classes_come_from_the_table(pets, text):
    folder = LabelledFolder(pets(text))
    assert (found(folder), folder.problems) == ({"cat": ["1.png", "3.png"], "dog": ["2.png"]}, [])


def test_a_folder_with_a_table_is_a_dataset_and_so_are_its_wrapping_folder_and_the_table(pets, tmp_path):
    table = pets(GOOD)
    stores = [
        prepare(Data(source=str(path), size=4), tmp_path / "data") for path in (table.parent, tmp_path / "all", table)
    ]
    assert [store.spec.classes for store in stores] == [("cat", "dog")] * 3
    assert stores[0].labels.tolist() == [0, 0, 1]
    assert prepare(Data(source=str(table.parent), size=4, folder="more"), tmp_path / "data").spec.classes == ("more",)


def test_a_changed_table_is_decoded_anew(pets, tmp_path):
    keys = [
        prepare(Data(source=str(pets(text).parent), size=4), tmp_path / "data").key
        for text in (GOOD, GOOD.replace("2.png,dog", "2.png,cat"), GOOD.replace("dog", "wolf"))
    ]
    assert len(set(keys)) == 3


def test_lines_without_a_file_and_images_without_a_line_are_counted_and_named(pets):
    folder = LabelledFolder(pets("file,class\n1.png,cat\n7.png,dog\n8.png,dog\n"))
    assert folder.problems == [
        ("7.png and 1 more", "in labels.csv, but no such file"),
        ("2.png and 1 more", "no line in labels.csv"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\n1.png,cat\n1.png,dog\n", ": line 3: 1.png was named in line 2 too; remove one of the lines"),
        ("file,class\nmore/3.png,cat\n3.png,cat\n",
            ": line 3: 3.png was named in line 2 too; remove one of the lines"),
        ("file,class\n", ": no row below its head; add one"),
        ("file,class\n1.png,\n", ": line 2: no class; write one, or remove the line"),
        ("name,file,label\nx,,cat\n", ": line 2: no file; write one, or remove the line"),
        ("file,class\n1.png\n", ": line 2: expected 2 values, got 1; give each column of the head one"),
        ("", ": empty; its first line names the columns: file,class"),
        ("id,class\n1,cat\n",
            ": has the columns id, class, but needs one column 'file'; rename one, or, to use subfolders as "
            "classes, rename the file"),
        ("file,path,class\n1,1,cat\n",
            ": has the columns file, path, class, but needs one column 'file'; rename one, or, to use subfolders "
            "as classes, rename the file"),
        ("file,class\n8.png,cat\n9.png,cat\n",
            ": none of its files exists (8.png and 1 more); give paths from the table's folder"),
        ("file,class\n../pets/1.png,cat\n",
            ": none of its files exists (../pets/1.png); give paths from the table's folder"),
    ],
)  # fmt: skip
def test_a_table_with_a_fault_is_refused_with_its_line(pets, text, message):
    table = pets(text)
    assert refusal(LabelledFolder, table) == f"{table}{message}"


def test_a_name_that_two_files_have_needs_its_path(pets):
    table = pets("file,class\n3.png,cat\n1.png,dog\n")
    Image.new("L", (4, 4)).save(table.parent / "more" / "1.png")
    Image.new("L", (4, 4)).save(table.parent / "3.png")
    folder = LabelledFolder(table)
    assert found(folder) == {"cat": ["3.png"], "dog": ["1.png"]}
    assert [file.parent.name for file in (*folder.files["cat"], *folder.files["dog"])] == ["pets", "pets"]
    assert folder.problems == [("2.png and 2 more", "no line in labels.csv")]


def test_a_table_that_is_not_utf_8_is_refused(pets):
    table = pets("file,class\n1.png,k\xe4se\n", encoding="latin-1")
    assert refusal(LabelledFolder, table) == f"{table}: byte 18 is not UTF-8; save it as UTF-8"
