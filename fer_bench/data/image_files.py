"""Image files of any size and mode to pixels of one shape: the way in which stores are prepared and faces predicted.

What becomes of a picture (it is turned upright, laid on black, brought to 8 bits) is described in
:mod:`fer_bench.data.pictures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_bench.data.pictures import (
    Source,
    UnreadableImage,
    check_mode,
    depth_of,
    has_alpha,
    has_colour,
    has_frames,
    is_deep,
    opened,
    orientation,
    peak,
    plain,
)
from fer_bench.errors import unknown

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[int, int, int, int]
STRETCH = "stretch"
IMAGE_TREATMENTS = {  # what is done to a picture, for people
    "turned": "turned upright (EXIF orientation)",
    "as stored": "not turned upright in spite of EXIF, because face boxes count stored pixels",
    "alpha": "with an alpha channel laid on black",
    "frames": "with several frames, of which the first is read",
    "16-bit": "of 16 bits a pixel brought to 8",
}


@dataclass(frozen=True)
class ImageHeader:
    """What an image file is, told by its header.

    Attributes
    ----------
    width, height : int
        Of the upright picture, or of its box.
    mode : str
    colour : bool
    treated : tuple of str
        Keys of :data:`IMAGE_TREATMENTS`.
    peak : int
        The largest value of a 16-bit image; 0 for others.
    """

    width: int
    height: int
    mode: str
    colour: bool
    treated: tuple[str, ...] = ()
    peak: int = 0

    @property
    def bits(self) -> int:
        """Bits that the values of a 16-bit image fill, judged by the largest; 8 for others."""
        return depth_of(self.peak)


@dataclass(frozen=True)
class ImageFit:
    """Shape that every image gets: 1 or 3 channels, height and width, and how another size is fitted into it."""

    channels: int
    height: int
    width: int
    how: str = STRETCH  # a key of FITS
    bits: int = 16  # that the values of 16-bit images fill

    def __post_init__(self) -> None:
        if self.how not in FITS:
            raise unknown("way to make images square", self.how, FITS, where="fit")


def image_header(file: Source, box: Box | None = None) -> ImageHeader:
    """Size and mode of an image from its header alone (of a 16-bit one from its pixels); the size is that of its box.

    Parameters
    ----------
    file : Path, bytes or PIL image
        The file, its content, or the picture itself.
    box : tuple of int, optional
        Left, top, right, bottom of the face.

    Raises
    ------
    UnreadableImage
        It is no image, of a mode that is neither 8 nor 16 bits a channel, or its box lies outside.
    """
    with opened(file) as image:
        check_mode(image)
        width, height = image.size
        mode, colour = image.mode, has_colour(image)
        way = orientation(image)
        if way > 4 and image.format != "TIFF" and box is None:  # Pillow has exchanged the sides of a TIFF already
            width, height = height, width
        largest = peak(image) if is_deep(image) else 0
        done = {
            "turned": way > 1 and box is None,
            "as stored": way > 1 and box is not None,
            "alpha": has_alpha(image),
            "16-bit": is_deep(image),
            "frames": has_frames(image),
        }
    if box is not None:
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise UnreadableImage(f"the face box {box} lies outside the image of {width}x{height}")
        width, height = right - left, bottom - top
    return ImageHeader(width, height, mode, colour, tuple(key for key in IMAGE_TREATMENTS if done[key]), largest)


def decode_image(file: Source, fit: ImageFit, box: Box | None = None) -> np.ndarray:
    """The pixels of an image, uint8 [C, H, W]; with a box, those of the face.

    Raises
    ------
    UnreadableImage
        It is no image, damaged, or of a mode that is neither 8 nor 16 bits a channel.
    """
    from PIL import Image

    with opened(file) as image:
        check_mode(image)
        image = plain(image, bits=fit.bits, turn=box is None)
        image = image.convert("RGB" if fit.channels == 3 else "L")
        if box is not None:
            image = image.crop(box)
        if image.size != (fit.width, fit.height):
            image = FITS[fit.how](image, (fit.width, fit.height), Image.Resampling.LANCZOS)
        pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _stretch(image: Image.Image, size: tuple[int, int], method: Any) -> Image.Image:
    return image.resize(size, method)


def _pad(image: Image.Image, size: tuple[int, int], method: Any) -> Image.Image:
    from PIL import Image as images

    scale = min(size[0] / image.width, size[1] / image.height)
    # at least one pixel: ImageOps.pad fails where a thin strip would get none
    width, height = (max(1, round(side * scale)) for side in image.size)
    canvas = images.new(image.mode, size)
    canvas.paste(image.resize((width, height), method), ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas


def _crop(image: Image.Image, size: tuple[int, int], method: Any) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.fit(image, size, method)


FITS: Mapping[str, Any] = {STRETCH: _stretch, "pad": _pad, "crop": _crop}
"""Ways to make an image square: change its proportions, put it on black, or take its middle."""
