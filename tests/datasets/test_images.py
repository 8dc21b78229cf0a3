"""Image files of any mode and size as rows of a store: what is kept, what is fitted, what is refused."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_bench import DataError, Dataset, DatasetCard, Param, Protocol
from fer_bench.datasets._shared import images
from fer_bench.datasets._shared.images import Fit, Row, decode, header, reading

CARD = DatasetCard(
    name="pictures",
    title="Pictures",
    classes=("a", "b"),
    protocols=(Protocol(name="p", train=("x",), val=("y",), test=("z",)),),
    params={
        "size": Param(0, "largest side"),
        "colour": Param("auto", "channels", choices=("auto", "grey", "rgb")),
        "fit": Param("stretch", "how", choices=("stretch", "pad", "crop")),
    },
)
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURS = np.dstack([RAMP, RAMP[::-1], 255 - RAMP])


class Pictures(Dataset):
    """A data set whose rows the test gives itself."""

    card = CARD


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png(array: np.ndarray) -> bytes:
    return encoded(Image.fromarray(array))


def flat(width: int, height: int, value: int = 100) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def row(file: bytes | Path, name: str = "x", **fields) -> Row:
    return Row(file=file, name=name, label=0, split="x", **fields)


def pixels_of(*files: bytes | Path | Row, **params) -> np.ndarray:
    """The images of a reading of these files, uint8 [N, C, H, W]."""
    rows = [f if isinstance(f, Row) else row(f, str(k)) for k, f in enumerate(files)]
    chunks = list(reading(Pictures(params), "files", "somewhere", rows).chunks())
    return np.concatenate([c.images for c in chunks])


def palette(image: np.ndarray, colours: np.ndarray) -> bytes:
    """A palette file: pixel values `image` are places in `colours` [256, 3]."""
    paletted = Image.frombytes("P", image.shape[::-1], image.tobytes())
    paletted.putpalette(colours.astype(np.uint8).tobytes())
    return encoded(paletted)


GREYS = np.repeat(np.arange(256)[:, None], 3, axis=1)
MODES = {
    "grey": (png(RAMP), RAMP[None]),
    "colour": (png(COLOURS), COLOURS.transpose(2, 0, 1)),
    "grey palette": (palette(RAMP, GREYS), RAMP[None]),
    "grey palette upside down": (palette(RAMP, GREYS[::-1]), 255 - RAMP[None]),
    "colour palette": (palette(RAMP, GREYS * (1, 0, 0)), np.stack([RAMP, RAMP * 0, RAMP * 0])),
    "grey, opaque": (png(np.dstack([RAMP, flat(8, 8, 255)])), RAMP[None]),
    "colour, opaque": (png(np.dstack([COLOURS, flat(8, 8, 255)])), COLOURS.transpose(2, 0, 1)),
    "black and white": (encoded(Image.fromarray(RAMP > 99)), (RAMP > 99)[None] * np.uint8(255)),
    "bmp": (encoded(Image.fromarray(COLOURS), "BMP"), COLOURS.transpose(2, 0, 1)),
    "tiff": (encoded(Image.fromarray(RAMP), "TIFF"), RAMP[None]),
    "gif": (encoded(Image.fromarray(RAMP), "GIF"), RAMP[None]),
}


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_every_8_bit_mode_are_kept(mode):
    file, expected = MODES[mode]
    assert np.array_equal(pixels_of(file)[0], expected)


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (Image.fromarray(RAMP.astype(np.int32)), "I"),
        (Image.fromarray(RAMP.astype(np.float32)), "F"),
    ],
)
def test_other_depths_are_refused(image, mode):
    with pytest.raises(DataError, match=rf"not one readable image[\s\S]*an 8-bit nor a 16-bit image: mode {mode}"):
        pixels_of(encoded(image, "TIFF"))


def test_one_colour_file_makes_all_rows_colour():
    grey, colour = pixels_of(png(RAMP), png(COLOURS))
    assert np.array_equal(grey, np.stack([RAMP] * 3))
    assert np.array_equal(colour, COLOURS.transpose(2, 0, 1))


def test_colour_can_be_asked_for_or_left_out():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert np.array_equal(pixels_of(png(RAMP), colour="rgb")[0], np.stack([RAMP] * 3))
    assert pixels_of(png(red), colour="grey").tolist() == np.full((1, 1, 8, 8), 76).tolist()  # 0.299 * 255


def test_equal_squares_keep_their_pixels_and_larger_ones_are_scaled_down():
    assert np.array_equal(pixels_of(png(RAMP), size=8)[0, 0], RAMP)
    assert np.array_equal(pixels_of(png(RAMP), size=200)[0, 0], RAMP)
    assert np.array_equal(pixels_of(png(flat(8, 8)), size=5), np.full((1, 1, 5, 5), 100))


def test_mixed_sizes_are_brought_to_the_largest_side_found():
    images = pixels_of(png(flat(8, 8, 10)), png(flat(4, 4, 20)), png(flat(6, 2, 30)))
    assert images.tolist() == [np.full((1, 8, 8), value).tolist() for value in (10, 20, 30)]


def test_the_largest_side_does_not_exceed_the_size_asked_for():
    assert pixels_of(png(flat(8, 8)), png(flat(4, 4)), size=6).shape == (2, 1, 6, 6)


def test_a_wide_image_is_stretched():
    halves = np.hstack([flat(2, 2, 0), flat(2, 2, 200)])
    assert pixels_of(png(halves))[0, 0].tolist() == [[0, 0, 200, 200]] * 4


def test_a_wide_image_is_padded_with_black():
    assert pixels_of(png(flat(4, 2)), fit="pad")[0, 0].tolist() == [[0] * 4, [100] * 4, [100] * 4, [0] * 4]


def test_a_strip_too_thin_for_its_square_is_padded_to_one_pixel():
    assert pixels_of(png(flat(40, 1)), size=4, fit="pad")[0, 0].tolist() == [[0] * 4, [100] * 4, [0] * 4, [0] * 4]


def test_a_wide_image_is_cut_to_its_middle():
    assert np.array_equal(pixels_of(png(RAMP[2:6]), size=4, fit="crop")[0, 0], RAMP[2:6, 2:6])


def test_what_was_done_to_sizes_is_said_and_surveyed():
    files = [row(png(flat(8, 8)), "0"), row(png(flat(4, 2)), "1"), row(png(COLOURS), "2")]
    read = reading(Pictures(), "files", "somewhere", files)
    assert read.summary == "somewhere; images of 4x2 to 8x8 are brought to 8x8 (stretch)"
    assert read.shape == (3, 3, 8, 8)
    assert read.survey == {"sizes": {"8x8": 2, "4x2": 1}, "modes": {"L": 2, "RGB": 1}}
    assert reading(Pictures(), "files", "somewhere", files[:1]).summary == "somewhere"


def test_a_box_cuts_the_face_out():
    assert np.array_equal(pixels_of(row(png(RAMP), box=(1, 2, 5, 6)))[0, 0], RAMP[2:6, 1:5])


def test_the_size_that_counts_is_the_box_s():
    read = reading(Pictures(), "files", "s", [row(png(RAMP), box=(0, 0, 4, 4)), row(png(RAMP), box=(2, 2, 6, 6))])
    assert read.shape == (2, 1, 4, 4)
    assert read.summary == "s"


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 9, 4), (0, 0, 4, 9), (4, 0, 4, 4), (5, 0, 4, 4), (0, 4, 4, 3)])
def test_a_box_outside_the_image_is_refused(box):
    with pytest.raises(DataError, match=r"face box \(.*\) lies outside the image of 8x8"):
        pixels_of(row(png(RAMP), box=box))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 12),
    height=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    side=st.integers(1, 12),
    how=st.sampled_from(["stretch", "pad", "crop"]),
)
def test_every_image_gets_the_shape_that_was_asked_for(width, height, channels, side, how):
    file = row(png(flat(width, height)))
    assert (header(file).width, header(file).height) == (width, height)
    image = decode(file, Fit(channels, side, side, how))
    assert (image.shape, image.dtype) == ((channels, side, side), np.uint8)
    assert image.min() <= 100 <= image.max()
    assert how == "pad" or (image == 100).all()


def test_rows_keep_their_order_labels_and_columns_over_threads_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "BLOCK_BYTES", 64 * 7)  # blocks of seven images
    rows = []
    for k in range(60):
        side = 60 - k  # the first ones take longest
        (tmp_path / f"{k}.png").write_bytes(png(flat(8, 8, k) if k else flat(side, side, 0)))
        fields = {"label": k % 2, "split": f"s{k % 3}", "subject": f"p{k}", "extra": {"double": 2 * k, "text": str(k)}}
        rows.append(Row(file=tmp_path / f"{k}.png", name=f"n{k}", **fields))
    read = reading(Pictures({"size": 8}), "files", "somewhere", rows)
    chunks = list(read.chunks())
    assert [len(c) for c in chunks] == [7] * 8 + [4]
    assert np.concatenate([c.images for c in chunks])[:, 0, 4, 4].tolist() == list(range(60))
    assert np.concatenate([c.labels for c in chunks]).tolist() == [k % 2 for k in range(60)]
    assert [s for c in chunks for s in c.split] == [f"s{k % 3}" for k in range(60)]
    assert [s for c in chunks for s in c.source] == [f"n{k}" for k in range(60)]
    assert [s for c in chunks for s in c.subject] == [f"p{k}" for k in range(60)]
    assert np.concatenate([c.extra["double"] for c in chunks]).tolist() == list(range(0, 120, 2))
    assert [t for c in chunks for t in c.extra["text"].tolist()] == [str(k) for k in range(60)]


def test_a_box_counts_stored_pixels_so_its_image_is_not_turned():
    tag = Image.Exif()
    tag[0x0112] = 3
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "PNG", exif=tag)
    read = reading(Pictures(), "files", "s", [row(buffer.getvalue(), box=(1, 2, 5, 6))])
    assert np.array_equal(next(read.chunks()).images[0, 0], RAMP[2:6, 1:5])
    assert read.summary == "s; 1 image not turned upright in spite of EXIF, because face boxes count stored pixels"


def test_a_file_of_several_rows_is_one_source_file(tmp_path):
    (tmp_path / "x.png").write_bytes(png(RAMP))
    rows = [row(tmp_path / "x.png", str(k), box=(k, 0, k + 4, 4)) for k in range(3)]
    read = reading(Pictures(), "files", "somewhere", rows, files=[tmp_path / "list.txt"])
    assert read.files == [tmp_path / "list.txt", tmp_path / "x.png"]


BROKEN = {
    "text": b"no image",
    "empty": b"",
    "cut in the pixels": png(RAMP)[:55],
    "cut in the header": png(RAMP)[:20],
    "jpeg cut": encoded(Image.fromarray(COLOURS).resize((200, 200)), "JPEG")[:2000],
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_image_is_named_and_lenient_reading_goes_on_without_it(tmp_path, case):
    (tmp_path / "bad.png").write_bytes(BROKEN[case])
    rows = [row(png(flat(8, 8, 1)), "a"), row(tmp_path / "bad.png", "bad"), row(png(flat(8, 8, 3)), "c")]
    with pytest.raises(DataError, match=r"1 problem [\s\S]*bad\.png: unreadable image: \w+"):
        list(reading(Pictures({"size": 8}), "files", "somewhere", rows).chunks())
    lenient = Pictures({"size": 8}, lenient=True)
    chunks = list(reading(lenient, "files", "somewhere", rows).chunks())
    assert [name for c in chunks for name in c.source] == ["a", "c"]
    assert np.concatenate([c.images for c in chunks])[:, 0, 0, 0].tolist() == [1, 3]
    assert [file for file, _, _ in lenient.faults.rows] == [str(tmp_path / "bad.png")]


def test_a_file_that_is_not_there_is_a_damaged_one(tmp_path):
    rows = [row(png(RAMP)), row(tmp_path / "gone.png")]
    with pytest.raises(DataError, match=r"gone\.png: unreadable image: \[Errno 2\] No such file or directory\n"):
        list(reading(Pictures(), "files", "somewhere", rows).chunks())


def test_an_image_without_a_file_is_named_by_its_row():
    with pytest.raises(DataError, match=r"shard 3, row 9: unreadable image"):
        list(reading(Pictures(), "files", "somewhere", [row(png(RAMP)), row(b"x", "shard 3, row 9")]).chunks())


def test_faults_of_the_loader_and_of_the_images_are_told_together():
    rows = [row(png(RAMP)), row(b"x", "broken")]
    with pytest.raises(DataError, match="2 problems") as error:
        list(reading(Pictures(), "files", "somewhere", rows, faults=[("list.txt, row 3", "unknown label: 9")]).chunks())
    assert "list.txt, row 3: unknown label: 9" in str(error.value)
    assert "broken: unreadable image" in str(error.value)


@pytest.mark.parametrize(
    ("rows", "told"), [([], "no image files"), ([row(b"x", "broken")], "broken: unreadable image")]
)
def test_a_source_without_any_readable_image_is_refused_at_once(rows, told):
    with pytest.raises(DataError, match=rf"pictures: not one readable image\n  where: somewhere\n +{told}"):
        reading(Pictures(), "files", "somewhere", rows)


def test_images_are_decoded_a_bounded_number_ahead_and_in_order():
    begun = []
    found = images.mapped(lambda k: begun.append(k) or k, iter(range(50)), ahead=5)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    assert set(begun) <= set(range(8)), "at most five beyond the third"
    found.close()
    assert max(begun) < 9
    assert list(images.mapped(str, range(20), ahead=5)) == [str(k) for k in range(20)]


def test_images_that_nobody_asks_for_any_more_are_let_go_without_waiting(monkeypatch):
    # the garbage collector may do it where its thread holds the lock that the end of another thread needs
    gate = threading.Event()
    found = images.mapped(lambda k: k or gate.wait(60), iter([1, *[0] * 50]), ahead=5)
    assert next(found) == 1
    monkeypatch.setattr(threading.Thread, "join", lambda *args, **kwargs: pytest.fail("waits"))
    found.close()
    monkeypatch.undo()
    gate.set()


def test_an_error_comes_where_its_image_would_have():
    found = images.mapped(lambda k: 6 // k, iter([3, 2, 0, 1]), ahead=2)
    assert [next(found), next(found)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)
