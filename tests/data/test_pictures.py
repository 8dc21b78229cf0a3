"""Pictures as phones, editors and cameras keep them: turned, see-through, of 16 bits, in several frames."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.data.pictures import UnreadableImage as Unreadable
from fer_bench.data.pictures import depth_of, opened, plain
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets._shared.folders import IMAGES
from fer_bench.datasets._shared.images import Row, header
from fer_bench.datasets.folder import Folder
from fer_bench.record.home import Home

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5  # wider than high, and no two pixels alike
COLOURS = np.dstack([RAMP, RAMP[::-1], 255 - RAMP])
ALPHA = np.flip(RAMP, 1)
# What EXIF's number says must be undone, on the upright picture: how the file stores it.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, *range(2, a.ndim)),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a.transpose(1, 0, *range(2, a.ndim)), 2),
    8: lambda a: np.rot90(a, -1),
}


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def tagged(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def pixels_of(file: bytes, **options) -> np.ndarray:
    """Grey [H, W] or colour [H, W, 3]."""
    with opened(file) as image:
        image = plain(image, **options)
        return np.asarray(image if image.mode == "L" else image.convert("RGB" if image.mode != "1" else "L"))


def treated(file: bytes) -> tuple[str, ...]:
    return header(Row(file=file, name="x", label=0, split="x")).treated


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize(
    ("kind", "upright", "options"),
    [("PNG", COLOURS, {}), ("PNG", RAMP, {}), ("WEBP", COLOURS, {"lossless": True}), ("TIFF", COLOURS, {})],
)
def test_an_image_is_turned_as_its_exif_tells(number, kind, upright, options):
    file = encoded(np.ascontiguousarray(STORED[number](upright)), kind, exif=tagged(number), **options)
    assert np.array_equal(pixels_of(file), upright)
    found = header(Row(file=file, name="x", label=0, split="x"))
    assert (found.width, found.height) == (8, 6)
    assert found.treated == (("turned",) if number > 1 else ())


def test_a_photo_is_turned_as_a_viewer_shows_it():
    upright = np.zeros((48, 48), np.uint8)
    upright[:12] = 255
    file = encoded(np.ascontiguousarray(STORED[6](upright)), "JPEG", exif=tagged(6), quality=95)
    assert abs(pixels_of(file).astype(int) - upright).max() <= 1
    assert treated(file) == ("turned",)


def test_exif_behind_the_pixels_of_a_png_counts_too():
    file = encoded(np.ascontiguousarray(STORED[8](RAMP)))
    exif = tagged(8).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    file = file[:-12] + chunk + file[-12:]  # before IEND
    assert np.array_equal(pixels_of(file), RAMP)
    assert treated(file) == ("turned",)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\xff\xff", b"Exif\0\0" + bytes(range(256)), b"x"]
)
def test_damaged_exif_is_passed_over(exif):
    file = encoded(COLOURS, "JPEG", exif=exif, quality=95)
    plain_file = encoded(COLOURS, "JPEG", quality=95)
    assert np.array_equal(pixels_of(file), pixels_of(plain_file))
    assert treated(file) == ()


def on_black(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha / 255
    return np.rint(colours * (share[..., None] if colours.ndim == 3 else share)).astype(np.uint8)


def palette(clear: bytes | int) -> bytes:
    image = Image.frombytes("P", (8, 6), np.arange(48, dtype=np.uint8).tobytes())
    image.putpalette(COLOURS.reshape(-1, 3).tobytes())
    return encoded(image, transparency=clear)


FIRST_CLEAR = np.where(np.arange(48).reshape(6, 8) == 0, 0, 255)
SEE_THROUGH = {
    "grey with alpha": (encoded(np.dstack([RAMP, ALPHA])), on_black(RAMP, ALPHA)),
    "colour with alpha": (encoded(np.dstack([COLOURS, ALPHA])), on_black(COLOURS, ALPHA)),
    "webp with alpha": (
        encoded(np.dstack([COLOURS, ALPHA]), "WEBP", lossless=True, exact=True),
        on_black(COLOURS, ALPHA),
    ),
    "tiff with alpha": (encoded(np.dstack([COLOURS, ALPHA]), "TIFF"), on_black(COLOURS, ALPHA)),
    "palette with alpha": (palette(ALPHA.tobytes()), on_black(COLOURS, ALPHA)),
    "palette, one clear": (palette(0), on_black(COLOURS, FIRST_CLEAR)),
    "grey, one clear": (encoded(RAMP + np.uint8(9), transparency=9), on_black(RAMP + 9, FIRST_CLEAR)),
    "colour, one clear": (encoded(COLOURS, transparency=tuple(COLOURS[0, 0].tolist())), on_black(COLOURS, FIRST_CLEAR)),
    "one bit, white clear": (encoded(Image.fromarray(RAMP > 99), transparency=1), RAMP * np.uint8(0)),
    "16 bits, one clear": (
        encoded((RAMP.astype(np.uint16) + 9) * 257, transparency=9 * 257),
        on_black(RAMP + 9, FIRST_CLEAR),
    ),
}


@pytest.mark.parametrize("case", SEE_THROUGH)
def test_what_can_be_seen_through_lies_on_black(case):
    file, expected = SEE_THROUGH[case]
    assert np.array_equal(pixels_of(file), expected)
    assert set(treated(file)) == {"alpha", "16-bit"} if "16" in case else {"alpha"}


def test_alpha_is_turned_with_its_image():
    stored = np.ascontiguousarray(STORED[5](np.dstack([COLOURS, ALPHA])))
    file = encoded(stored, exif=tagged(5))
    assert np.array_equal(pixels_of(file), on_black(COLOURS, ALPHA))
    assert treated(file) == ("turned", "alpha")


def colour16(values: np.ndarray) -> bytes:
    """A PNG with 16 bits a channel, by hand: Pillow does not write them."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


DEEP = {
    "png": encoded(RAMP.astype(np.uint16) * 257),
    "shifted png": encoded(RAMP.astype(np.uint16) * 256),
    "tiff": encoded(RAMP.astype(np.uint16) * 257, "TIFF"),
    "big-endian tiff": encoded(Image.frombytes("I;16B", (8, 6), (RAMP.astype(">u2") * 257).tobytes()), "TIFF"),
    "pgm": b"P5 8 6 65535\n" + (RAMP.astype(">u2") * 257).tobytes(),
}


@pytest.mark.parametrize("case", DEEP)
def test_sixteen_bits_are_scaled_to_eight(case):
    assert np.array_equal(pixels_of(DEEP[case]), RAMP)
    assert treated(DEEP[case]) == ("16-bit",)


def test_grey_and_colour_of_sixteen_bits_are_scaled_alike():
    values = np.random.default_rng(0).integers(0, 2**16, (6, 8), dtype=np.uint16)
    grey, colour = pixels_of(encoded(values)), pixels_of(colour16(np.dstack([values] * 3)))
    assert np.array_equal(np.dstack([grey] * 3), colour)


def test_cameras_of_fewer_bits_are_read_by_their_own_range(tmp_path):
    for k, split in enumerate(("train", "test")):
        for name in ("calm", "cross"):
            place = tmp_path / "raw" / split / name
            place.mkdir(parents=True)
            Image.fromarray(np.full((8, 8), (1000, 4000)[k], np.uint16)).save(place / "a.png")
    store, said = prepared(tmp_path / "raw", tmp_path)
    assert store.images(np.arange(4))[:, 0, 0, 0].tolist() == [1000 >> 4] * 2 + [4000 >> 4] * 2  # one scale for all
    assert "4 images of 16 bits a pixel brought to 8 (their values end at 4000, so they are taken for 12 bits)" in said


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (16384, 16), (65535, 16)]
)
def test_the_largest_value_tells_the_bits(largest, bits):
    assert depth_of(largest) == bits


def frames(kind: str, **options) -> bytes:
    later = [Image.fromarray(255 - RAMP), Image.fromarray(RAMP // 2)]
    return encoded(RAMP, kind, save_all=True, append_images=later, **options)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_read_and_the_file_counted(kind):
    file = frames(kind, **({"lossless": True} if kind == "WEBP" else {}))
    pixels = pixels_of(file)
    assert np.array_equal(pixels if pixels.ndim == 2 else pixels[..., 0], RAMP)
    assert "frames" in treated(file)


def test_a_phone_s_preview_is_no_frame():
    file = frames("MPO", quality=95)
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.n_frames) == ("MPO", 3)
    assert abs(pixels_of(file).astype(int) - RAMP).max() < 8
    assert treated(file) == ()


def test_damage_behind_the_first_frame_does_no_harm():
    file = frames("GIF")
    assert np.array_equal(pixels_of(file[: len(file) // 2])[..., 0], RAMP)
    assert treated(file[: len(file) // 2]) in ((), ("frames",))


def test_cmyk_becomes_the_colours_that_it_prints():
    inks = np.dstack([RAMP, RAMP[::-1], RAMP // 2, RAMP * 0])
    file = encoded(Image.fromarray(inks, "CMYK"), "TIFF")
    assert np.array_equal(pixels_of(file), 255 - inks[..., :3])


def test_other_pixels_are_refused():
    with pytest.raises(Unreadable, match="mode F"):
        header(Row(file=encoded(RAMP.astype(np.float32), "TIFF"), name="x", label=0, split="x"))


def prepared(source: Path, home: Path) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), Folder(), source, say=said.append)
    return store, "\n".join(said)


KINDS = {".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG"}
KINDS |= dict.fromkeys((".pgm", ".pnm", ".ppm"), "PPM") | dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [*KINDS, *(ending.upper() for ending in KINDS), ".Jpg"])
def test_images_of_every_ending_are_found(tmp_path, ending):
    kind = KINDS[ending.lower()]
    for split in ("train", "test"):
        for k, name in enumerate(("calm", "cross")):
            place = tmp_path / "raw" / split / name
            place.mkdir(parents=True)
            options = {"lossless": True} if kind == "WEBP" else {}
            Image.fromarray(np.full((8, 8), 40 * k, np.uint8)).save(place / f"a{ending}", kind, **options)
    store, _ = prepared(tmp_path / "raw", tmp_path)
    assert store.images(np.arange(4))[:, 0].mean((1, 2)).tolist() == [0, 40, 0, 40]


def test_bitmaps_are_images_and_every_ending_is_tried_here():
    assert set(IMAGES) == {*KINDS, ".pbm"}
    file = b"P4 8 1\n\xaa"  # in a bitmap, ones are black
    assert pixels_of(file).tolist() == [[0, 255] * 4]


def test_what_was_done_is_said_and_stays_in_the_manifest(tmp_path):
    turned = encoded(np.ascontiguousarray(STORED[6](COLOURS)), exif=tagged(6))
    files = [turned, turned, encoded(np.dstack([COLOURS, ALPHA])), encoded(COLOURS)]
    for k, file in enumerate(files):
        place = tmp_path / "raw" / ("train", "test")[k % 2] / ("calm", "cross")[k // 2]
        place.mkdir(parents=True)
        (place / "a.png").write_bytes(file)
    store, said = prepared(tmp_path / "raw", tmp_path)
    assert "; 2 images turned upright (EXIF orientation); 1 image with an alpha channel laid on black" in said
    assert store.manifest["survey"]["treated"] == {"turned": 2, "alpha": 1}
    assert store.manifest["survey"]["sizes"] == {"8x6": 4}
