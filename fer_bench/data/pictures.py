"""One picture as people keep it, brought to what a viewer shows: upright, opaque, 8 bits a channel, a single frame."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

GREY = ("L", "1", "LA", "La")
COLOUR = ("RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "P", "PA")
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras give, in files of 16
ORIENTATION = 0x0112  # the tag in EXIF
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
TAIL = 2**17  # bytes at the end of a PNG in which EXIF may stand; EXIF itself holds 64 kB at most

# Pillow warns of damaged EXIF, which is passed over here; the filter holds for the threads that decode.
warnings.filterwarnings("ignore", message="Corrupt EXIF data|Truncated File Read", category=UserWarning)

Source: TypeAlias = "Path | bytes | Image.Image"
"""A file, its content, or a picture that is in memory already."""


class UnreadableImage(Exception):
    """An image that can't be decoded; its text is the reason."""


@contextmanager
def opened(file: Source) -> Iterator[Image.Image]:
    """Open an image file or its content; whatever is wrong with it becomes :class:`UnreadableImage`."""
    from PIL import Image

    if isinstance(file, Image.Image):
        yield file.copy()
        return
    try:
        with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).split(str(file) if isinstance(file, Path) else "<_io.BytesIO")[0].strip(" ':")
        raise UnreadableImage(f"unreadable image: {reason or type(error).__name__}") from error


def check_mode(image: Image.Image) -> None:
    """Raise :class:`UnreadableImage` where the pixels are neither 8 nor 16 bits a channel, or of unknown colours."""
    if image.mode not in GREY + COLOUR and not is_deep(image):
        raise UnreadableImage(f"neither an 8-bit nor a 16-bit image: mode {image.mode}")


def is_deep(image: Image.Image) -> bool:
    """Whether it is grey with 16 bits a pixel. (Pillow itself brings 16-bit colours to 8 bits.)"""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def has_colour(image: Image.Image) -> bool:
    """Whether the file can hold colours; a palette of greys (JAFFE has such files) counts as grey."""
    if image.mode == "P" and image.palette is not None:
        palette = np.asarray(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in GREY and not is_deep(image)


def has_alpha(image: Image.Image) -> bool:
    """Whether the file can hold see-through pixels: by a channel, a palette or a key colour."""
    return image.mode in ALPHA or "transparency" in image.info


def has_frames(image: Image.Image) -> bool:
    """Whether the file holds further pictures. Phones keep previews in JPEG files (MPO): these do not count.

    It looks for the second frame, so nothing else may be asked of the image afterwards.
    """
    try:
        return bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except Exception:  # damage behind the first picture, which alone is read
        return False


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 (upright) to 8; 1 too where there is none or it can't be read."""
    from PIL import Image as images

    try:
        # A PNG that tells none before its pixels would be decoded to look behind them.
        skip = image.format == "PNG" and "exif" not in image.info and not _tells_late(image)
        exif = images.Image.getexif(image) if skip else image.getexif()
        value = exif.get(ORIENTATION, 1)
    except Exception:  # damaged EXIF can raise nearly anything; viewers ignore it
        return 1
    return value if value in TURNS else 1


def _tells_late(image: Image.Image) -> bool:
    """Whether EXIF may stand behind the pixels of an opened PNG."""
    file = getattr(image, "fp", None)
    if file is None:
        return False
    place = file.tell()
    file.seek(max(0, file.seek(0, 2) - TAIL))
    late = b"eXIf" in file.read()
    file.seek(place)
    return late


def peak(image: Image.Image) -> int:
    """The largest value of a 16-bit image."""
    return int(np.asarray(image).max())


def depth_of(largest: int) -> int:
    """Bits that values up to `largest` were taken with: cameras of 12 bits fill a sixteenth of a 16-bit file."""
    return next(bits for bits in DEPTHS if largest < 2**bits or bits == DEPTHS[-1])


def plain(image: Image.Image, *, bits: int = 16, turn: bool = True) -> Image.Image:
    """The first frame as a viewer shows it, in a mode without alpha or palette; clear parts are black, as padding is.

    Parameters
    ----------
    bits : int
        Bits that the values of a 16-bit image fill; the highest eight of them are kept.
    turn : bool
        Turn it upright after its EXIF orientation.
    """
    from PIL import Image as images

    image.load()
    way = orientation(image) if turn else 1
    if is_deep(image):
        image = _shallow(image, bits)
    elif has_alpha(image):
        image = _on_black(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    return image.transpose(getattr(images.Transpose, TURNS[way])) if way in TURNS else image


def _shallow(image: Image.Image, bits: int) -> Image.Image:
    from PIL import Image as images

    values = np.asarray(image).astype(np.int64)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        values = np.where(values == clear, 0, values)
    return images.fromarray((np.clip(values, 0, 2**bits - 1) >> (bits - 8)).astype(np.uint8))


def _on_black(image: Image.Image) -> Image.Image:
    from PIL import Image as images

    if image.mode == "1":
        image = image.convert("L")
    image = image.convert("LA" if image.mode in GREY else "RGBA")
    colours = image.convert(image.mode[:-1])
    return images.composite(colours, images.new(colours.mode, image.size), image.getchannel("A"))
