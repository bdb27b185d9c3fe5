"""The decoding rule, for every format, mode, orientation and size; and the reasons of unreadable files."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gantool.data import decode as decoding
from gantool.data.decode import Unreadable, convert, decode, halves, native, unused
from PIL import Image

from processes import posix

pytestmark = pytest.mark.usefixtures("inside")
RED, GREEN = (255, 0, 0), (0, 255, 0)


def stored(image: Image.Image, form: str, **options) -> Path:
    path = Path(f"{form}.image")
    image.save(path, form, **options)
    return path


def pixels(file, channels: int = 3, height: int = 1, width: int = 1) -> list:
    """Decode and return [height][width][channels], or [height][width] for grey."""
    array = decode(file, channels=channels, height=height, width=width)
    assert array.dtype == np.uint8
    assert array.shape == (channels, height, width)
    assert array.flags.c_contiguous
    return (array[0] if channels == 1 else array.transpose(1, 2, 0)).tolist()


def reason(file) -> str:
    with pytest.raises(Unreadable) as caught:
        decode(file, channels=3, height=4, width=4)
    return caught.value.reason


def png(width: int, height: int, depth: int, kind: int, rows: bytes, extra: bytes = b"") -> Path:
    """Write a PNG that Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path = Path("by hand.png")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# What the values become


def tiff(file: Path, bands: int, extra: tuple[int, ...]) -> Path:
    """Write a TIFF of 2x2 pixels with bands besides its three colours; `extra` says what those are."""
    values = bytes(range(4 * bands))
    bits, kinds = struct.pack(f"<{bands}H", *[8] * bands), struct.pack(f"<{len(extra)}H", *extra)
    start = 8 + len(bits) + len(values)
    tags = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, bands, 8), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, bands)]
    tags += [(278, 3, 1, 2), (279, 4, 1, len(values)), (284, 3, 1, 1), (273, 4, 1, 8 + len(bits))]
    tags.sort()
    if extra:
        place = start if len(extra) > 2 else int.from_bytes(kinds, "little")
        tags.append((338, 3, len(extra), place))
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    file.write_bytes(b"II*\0" + struct.pack("<I", start + len(kinds)) + bits + values + kinds + table)
    return file


def test_further_pages_frames_and_bands_are_not_used_and_named(tmp_path):
    first, *others = (Image.new("L", (4, 4), 40 * index) for index in range(6))
    found = {}
    for ending in ("tif", "gif", "png"):
        first.save(tmp_path / f"a.{ending}", save_all=True, append_images=others)
        found[ending] = unused(tmp_path / f"a.{ending}")
    assert found == {"tif": "5 further pages", "gif": "5 further frames", "png": "5 further frames"}
    first.save(tmp_path / "one.tif")
    assert unused(tmp_path / "one.tif") == ""

    assert unused(tiff(tmp_path / "infrared.tif", 4, (0,))) == "1 further band"
    assert pixels(tmp_path / "infrared.tif", 3, 2, 2)[0][0] == [0, 1, 2]
    assert unused(tiff(tmp_path / "alpha.tif", 4, (2,))) == ""
    assert reason(tiff(tmp_path / "unknown.tif", 4, ())) == "4 bands, and nothing says that the fourth is transparency"


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_is_untouched_and_repeated_for_colour(form):
    grey = Image.fromarray(np.array([[0, 1, 128, 255]], np.uint8))
    file = stored(grey, form)
    assert pixels(file, 1, 1, 4) == [[0, 1, 128, 255]]
    assert pixels(file, 3, 1, 4) == [[[value] * 3 for value in (0, 1, 128, 255)]]
    colour = stored(Image.new("RGB", (1, 1), (200, 100, 50)), "PNG")
    assert pixels(colour, 1) == [[round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_put_over_white(form):
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 128))
    image.putpixel((1, 0), (9, 9, 9, 0))
    image.putpixel((2, 0), (9, 8, 7, 255))
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    assert pixels(stored(image, form, **options), 3, 1, 3) == [[[255, 127, 127], [255] * 3, [9, 8, 7]]]


def test_transparent_colours_of_a_palette_become_white():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    wanted = [[[10, 20, 30], [255] * 3, [70, 80, 90]]]
    for form in ("PNG", "GIF"):
        assert pixels(stored(image, form, transparency=1), 3, 1, 3) == wanted
    several = stored(image, "PNG", transparency=bytes([255, 0, 255]))
    assert pixels(several, 3, 1, 3) == wanted


@pytest.mark.parametrize(("mode", "second", "grey"), [("1", 0, [255, 0]), ("LA", (0, 51), [255, 204])])
def test_one_bit_and_grey_with_alpha_are_read(mode, second, grey):
    image = Image.new(mode, (2, 1), 1 if mode == "1" else (0, 0))
    image.putpixel((1, 0), second)
    assert pixels(stored(image, "PNG"), 1, 1, 2) == [grey]
    assert pixels(stored(image, "PNG"), 3, 1, 2) == [[[value] * 3 for value in grey]]


def test_the_transparent_value_of_a_png_without_alpha_becomes_white():
    key = chunk(b"tRNS", struct.pack(">H", 0))
    assert pixels(png(2, 1, 8, 0, b"\0\0\x07", key), 1, 1, 2) == [[255, 7]]
    assert pixels(png(2, 1, 1, 0, b"\0\x40", key), 1, 1, 2) == [[255, 255]]
    assert pixels(png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0, 257), key), 1, 1, 2) == [[255, 1]]
    key = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    assert pixels(png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", key), 3, 1, 2) == [[[255] * 3, [4, 5, 6]]]


@pytest.mark.parametrize("mode", ["YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La", "PA"])
def test_every_other_mode_of_pillow_becomes_colour_and_grey(mode):
    assert convert(Image.new(mode, (3, 2)), channels=3, height=2, width=3).shape == (3, 2, 3)
    assert convert(Image.new(mode, (3, 2)), channels=1, height=2, width=3).shape == (1, 2, 3)


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i4"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    image = Image.fromarray(np.array([[0, 128, 129, 40000, 65535]], kind))
    grey = [[0, 0, 1, 156, 255]]
    assert image.mode in ("I;16", "I;16B", "I")
    assert convert(image, channels=1, height=1, width=5)[0].tolist() == grey
    for form in ("PNG", "TIFF") if kind == "<u2" else ():
        assert pixels(stored(image, form), 1, 1, 5) == grey
        assert pixels(stored(image, form), 3, 1, 5)[0][3] == [156, 156, 156]


def test_floats_from_0_to_1_are_scaled():
    file = stored(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF")
    assert pixels(file, 1, 1, 3) == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("kind", "value", "fault"),
    [
        *((np.float32, value, "floating-point values outside 0 to 1") for value in (-0.1, 1.1, float("nan"))),
        *((np.int32, value, "32-bit values outside 0 to 65535") for value in (-1, 65536)),
    ],
)
def test_values_without_a_known_white_are_refused(kind, value, fault):
    assert reason(stored(Image.fromarray(np.array([[0, value]], kind)), "TIFF")) == fault


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (2, 2), color) for color in (RED, GREEN)]
    for form in ("GIF", "PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        file = stored(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert pixels(file, 3, 2, 2)[1][1] == list(RED)


# Orientation


# Where the first stored pixel ends: 0 above left, 1 above right, 2 below left, 3 below right.
@pytest.mark.parametrize(("orientation", "corner"), [(1, 0), (2, 1), (3, 3), (4, 2), (5, 0), (6, 1), (7, 3), (8, 2)])
def test_every_orientation_is_turned_upright(orientation, corner):
    image = Image.new("L", (3, 2))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    height, width = (2, 3) if orientation < 5 else (3, 2)
    found = np.array(pixels(stored(image, "PNG", exif=exif), 1, height, width))
    assert [found[0, 0], found[0, -1], found[-1, 0], found[-1, -1]].index(255) == corner


def test_a_broken_exif_block_is_ignored_and_odd_tags_do_not_hide_the_orientation():
    image = Image.fromarray(np.array([[1, 2]], np.uint8))
    assert pixels(stored(image, "PNG", exif=b"Exif\0\0nonsense"), 1, 1, 2) == [[1, 2]]
    tags = struct.pack("<HHIHH", 0x0112, 3, 1, 3, 0) + struct.pack("<HHII", 0xA005, 2, 1, 7)  # text as an offset
    odd = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    assert pixels(stored(image, "PNG", exif=odd), 1, 1, 2) == [[2, 1]]


# Size


def test_the_wanted_size_is_untouched_byte_for_byte():
    array = np.random.default_rng(0).integers(0, 256, (28, 20, 3), dtype=np.uint8)
    found = decode(stored(Image.fromarray(array), "PNG"), channels=3, height=28, width=20)
    assert np.array_equal(found, array.transpose(2, 0, 1))


def test_another_aspect_ratio_is_cropped_around_the_centre():
    image = Image.new("RGB", (30, 10), RED)
    image.paste(GREEN, (10, 0, 20, 10))
    assert pixels(stored(image, "PNG"), 3, 5, 5) == [[list(GREEN)] * 5] * 5
    assert pixels(stored(image.transpose(Image.Transpose.ROTATE_90), "PNG"), 3, 5, 5) == [[list(GREEN)] * 5] * 5


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (2_000_000, 1), (3, 7)])
@pytest.mark.parametrize("wanted", [(1, 1), (64, 64), (1, 64)])
def test_strange_sizes_are_resized(size, wanted):
    found = convert(Image.new("L", size, 77), channels=1, height=wanted[0], width=wanted[1])
    assert np.unique(found).tolist() == [77]


# What cannot be read


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_truncated_file_is_refused_although_its_header_is_whole(form):
    noise = np.random.default_rng(0).integers(0, 256, (64, 40, 3), dtype=np.uint8)
    path = stored(Image.fromarray(noise), form)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert reason(path) == ("damaged" if form == "WEBP" else "truncated")
    if form not in ("TIFF", "WEBP", "GIF"):  # where sizes stand in front
        assert native(path) == (3, 64, 40)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'
CARDS = (b"SIMPLE  = T", b"BITPIX  = 8", b"NAXIS   = 2", b"NAXIS1  = 1", b"NAXIS2  = 1", b"END")
FITS = b"".join(card.ljust(80) for card in CARDS).ljust(2880) + bytes(2880)


@pytest.mark.parametrize("data", [b"hello, I am text", SVG, FITS, b"\x89PNG\r\n\x1a\n", b"\0"])
def test_other_content_is_refused_whatever_its_name(data):
    Path("image.png").write_bytes(data)
    assert reason(Path("image.png")) == "not an image"
    with pytest.raises(Unreadable, match="not an image"):
        native(Path("image.png"))


def test_the_ending_does_not_decide_and_missing_files_are_named(tmp_path):
    Image.new("L", (1, 1), 9).save("image.txt", "PNG")
    assert pixels(Path("image.txt"), 1) == [[9]]
    Path("empty.png").touch()
    assert reason(Path("empty.png")) == "empty file"
    assert reason(Path("none.png")) == "no such file"
    assert reason(tmp_path) == "not a file"


@posix
def test_a_pipe_and_a_link_to_nothing_are_named_and_do_not_block():
    os.mkfifo("pipe.png")
    Path("link.png").symlink_to("gone.png")
    Path("loop.png").symlink_to("loop.png")
    assert [reason(Path(f"{name}.png")) for name in ("pipe", "link", "loop")] == ["not a file", *["no such file"] * 2]


@pytest.mark.parametrize("side", [8_001, 12_000, 60_000])
def test_too_many_pixels_are_refused_by_the_header(side):
    path = png(side, side, 8, 2, b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(path) == "over 64 megapixels"
        with pytest.raises(Unreadable, match="over 64 megapixels"):
            native(path)


def test_a_webp_is_refused_earlier(monkeypatch):
    monkeypatch.setattr(decoding, "LARGEST_WEBP", 12)
    assert reason(stored(Image.new("RGB", (4, 4)), "WEBP")) == "over 0 megapixels"
    assert pixels(stored(Image.new("L", (1, 1), 9), "PNG"), 1) == [[9]]
    assert decoding.LARGEST_WEBP == 12 < decoding.LARGEST


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(monkeypatch):
    y, x = np.mgrid[:160, :240]
    wave = (128 + 60 * np.sin(x / 17) + 60 * np.cos(y / 13)).astype(np.uint8)
    for mode in ("L", "RGB", "CMYK"):
        path = stored(Image.fromarray(wave).convert(mode), "JPEG", quality=95)
        whole = decode(path, channels=1, height=16, width=20).astype(int)
        sizes = []
        monkeypatch.setattr(decoding, "REDUCED", 160 * 240 - 1)

        def spy(image, sizes=sizes, **shape):
            sizes.append(image.size)
            return convert(image, **shape)

        monkeypatch.setattr(decoding, "convert", spy)
        assert np.abs(decode(path, channels=1, height=16, width=20) - whole).max() <= 4
        decode(path, channels=1, height=60, width=20)
        assert sizes == [(60, 40), (240, 160)]
        monkeypatch.undo()


@pytest.mark.skipif(os.name == "nt", reason="on Windows libtiff is a hidden part of Pillow")
def test_libtiff_writes_nothing_to_standard_error(capfd):
    path = stored(Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)), "TIFF", compression="tiff_lzw")
    damaged = bytearray(path.read_bytes())
    damaged[10:40] = b"\xff" * 30
    path.write_bytes(damaged)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(reason, path).result() == "damaged"
    assert capfd.readouterr().err == ""


def test_random_damage_raises_nothing_else():
    random = np.random.default_rng(0)
    reasons = set()
    image = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "BMP", "WEBP", "GIF"):
        path = stored(image, form)
        whole = path.read_bytes()
        for _ in range(100):
            data = bytearray(whole)
            for place in random.integers(0, min(len(data), 300), 3):
                data[place] = random.integers(256)
            path.write_bytes(data)
            try:
                assert decode(path, channels=1, height=8, width=8).shape == (1, 8, 8)
            except Unreadable as problem:
                reasons.add(problem.reason)
    assert reasons <= {"not an image", "damaged", "truncated", "over 64 megapixels", "empty file"}
    assert "damaged" in reasons


# native


GREY_FILES = [("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("F", "TIFF"), ("L", "JPEG")]
COLOUR_FILES = [("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("L", "WEBP")]


@pytest.mark.parametrize(
    ("mode", "form", "channels"), [(*file, 1) for file in GREY_FILES] + [(*file, 3) for file in COLOUR_FILES]
)
def test_channels_and_size_are_known_from_the_header(mode, form, channels):
    assert native(stored(Image.new(mode, (5, 3)), form)) == (channels, 3, 5)


# Two images in one file


@pytest.mark.parametrize(
    ("row", "orientation", "found"),
    [
        ([1, 2, 3, 4], 1, [[[1, 2]], [[3, 4]]]),
        ([1, 2, 3, 4, 5], 1, [[[1, 2]], [[4, 5]]]),  # the middle column belongs to neither half
        ([1, 2], 3, [[[2]], [[1]]]),  # the halves of the upright image
    ],
)
def test_halves_are_the_left_and_the_right_part(row, orientation, found):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = stored(Image.fromarray(np.array([row], np.uint8)), "PNG", exif=exif)
    assert [half.tolist() for half in halves(path)] == found
    colour = stored(Image.new("RGB", (6, 2)), "PNG")
    assert [half.shape for half in halves(colour)] == [(2, 3, 3)] * 2


def test_a_file_without_halves_is_refused():
    with pytest.raises(Unreadable, match=r"^one pixel wide$"):
        halves(stored(Image.new("L", (1, 5)), "PNG"))
