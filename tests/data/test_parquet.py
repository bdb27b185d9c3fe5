"""Images in parquet files, as Hugging Face's datasets have them."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gantool.data.prepare import prepare
from gantool.data.sources.parquet import Parquet
from gantool.recipe.blocks import Data
from PIL import Image

from refusals import refusal

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
LABELS = [index % 3 for index in range(12)]
NAMES = ["cat", "dog", "bird"]


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def table(rows, *, names=NAMES, **columns):
    """A table of rows of PIXELS, with the metadata that Hugging Face's library writes."""
    images = [{"bytes": png(PIXELS[row]), "path": f"{row}.png"} for row in rows]
    columns = {"image": images, "label": [LABELS[row] for row in rows], **columns}
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    features |= {name: {"names": ["x"], "_type": "ClassLabel"} for name in columns if name == "coarse_label"}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if names else None
    return pa.table(columns).replace_schema_metadata(metadata)


@pytest.fixture
def hub(tmp_path):
    """A repository of Hugging Face: a README, and parquet files of two splits in `data`."""
    folder = tmp_path / "pets"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("pets")
    for name, rows in (
        ("train-00000-of-00002", range(5)),
        ("train-00001-of-00002", range(5, 10)),
        ("test-00000-of-00001", (10, 11)),
    ):
        pq.write_table(table(rows), folder / "data" / f"{name}.parquet")
    return folder


def loaded(source, root, **options):
    return prepare(Data(source=str(source), size=8, **options), root / "data")


def test_a_repository_of_parquet_files_is_a_dataset_with_named_classes(hub, tmp_path, logged):
    store = loaded(hub, tmp_path)
    assert np.array_equal(store.images.transpose(0, 2, 3, 1), PIXELS[:10])
    assert (store.spec.classes, store.labels.tolist()) == (tuple(NAMES), LABELS[:10])
    assert logged[0] == "test: another split; data.folder=test uses it"
    assert loaded(hub, tmp_path, folder="test").spec.classes == ("dog", "bird")
    assert len(loaded(hub / "data" / "train-00001-of-00002.parquet", tmp_path)) == 5
    assert loaded(hub, tmp_path, limit=3, classes=["bird", "cat"]).part == "3 of 7"


def test_other_columns_are_read_by_their_types_and_named_if_they_are_not_used(tmp_path):
    file = tmp_path / "a.parquet"
    columns = {"img": [png(pixels) for pixels in PIXELS], "fine_label": ["x", "y"] * 6, "mask": [b""] * 12}
    pq.write_table(pa.table(columns), file)
    source = Parquet(file, [file])
    assert (source.classes, source.problems) == (("x", "y"), [("mask", "another column of images")])
    pq.write_table(table(range(12), coarse_label=[0] * 12), file)
    assert Parquet(file, [file]).problems == [("coarse_label", "another column of classes")]
    pq.write_table(pa.table({"image": columns["img"]}), file)
    assert loaded(file, tmp_path).spec.classes == ("a",)


def test_rows_that_are_no_images_are_skipped_with_their_place(tmp_path):
    file = tmp_path / "a.parquet"
    rows = table(range(12)).to_pydict()
    rows["image"][3], rows["image"][4] = {"bytes": None, "path": "3.png"}, {"bytes": b"text", "path": None}
    pq.write_table(pa.table(rows), file)
    store = loaded(file, tmp_path)
    assert store.skipped == [
        ["a.parquet: row 3", "no bytes, only a path"],
        ["a.parquet: row 4", "not an image"],
    ]
    assert store.spec.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "label": [1]},
            "no column of images in it (text string, label int64); a column has to hold files as bytes; save "
            "each image as a PNG, in a folder for each class"),
        ({"image": [b"x", b"y"], "label": [1, None]}, "row 1 has no label; give each row one, or leave it out"),
        ({"image": pa.array([], pa.binary())}, "no row in a.parquet; choose another file"),
        ({"image": [b"x"], "label": [[1, 2]]}, "column label holds [1, 2], no class; rename the column"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_are_refused(tmp_path, columns, message):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), file)
    assert refusal(Parquet, file, [file]) == f"{file}: {message}"


def test_an_unknown_split_and_several_without_train_are_refused(hub):
    files = sorted((hub / "data").iterdir())
    advice = "choose one with data.folder"
    assert refusal(Parquet, hub, files, "tset") == f"{hub}: unknown split 'tset'; did you mean 'test'?; {advice}"
    others = [file.rename(file.with_name(f"{name}.parquet")) for file, name in zip(files[:2], "ab", strict=True)]
    assert refusal(Parquet, hub, others) == f"{hub}: unknown split 'train'; known: a, b; {advice}"


def test_a_damaged_file_is_refused(tmp_path):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 and nothing more")
    message = refusal(Parquet, file, [file])
    assert message.startswith(f"{file}: cannot be read as parquet (")
    assert message.endswith("); copy or make it again")


def test_a_column_whose_name_is_not_text_is_refused(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(range(12)), file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"label", b"labe\xff"))
    assert refusal(Parquet, file, [file]).startswith(f"{file}: cannot be read as parquet ('utf-8' codec can't decode")


def test_without_pyarrow_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    file = tmp_path / "a.parquet"
    file.touch()
    assert refusal(Parquet, file, [file]) == f"{file}: needs pyarrow; install it with: pip install 'gantool[parquet]'"


def test_a_changed_file_is_decoded_anew(tmp_path):
    file = tmp_path / "a.parquet"
    keys = set()
    for rows in (range(12), range(1, 12)):
        pq.write_table(table(rows), file)
        keys.add(loaded(file, tmp_path).key)
    assert len(keys) == 2
