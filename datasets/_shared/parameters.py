"""Parameters that several data sets share.

A card takes all of them and changes what differs::

    params={**IMAGE_PARAMS, "size": replace(SIZE, default=48)}
"""

from __future__ import annotations

from dataclasses import replace

from fer_bench import Param

SIZE = Param(224, "largest side in pixels; larger images are scaled down", low=8, high=2048)
ANY_SIZE = replace(SIZE, default=0, help=f"{SIZE.help}; 0 keeps the largest side in the source", special=(0,))
COLOUR = Param(
    "auto", "colour channels to keep; auto keeps colour where the files have it", choices=("auto", "grey", "rgb")
)
FIT = Param("stretch", "how an image that is not square is made square", choices=("stretch", "pad", "crop"))
CLASS_ORDER = Param("", "classes in the order of their numbers, separated by commas, if the source uses another order")

IMAGE_PARAMS = {"size": SIZE, "colour": COLOUR, "fit": FIT}  # of a set whose images have a known size
ANY_IMAGE_PARAMS = {**IMAGE_PARAMS, "size": ANY_SIZE}  # of a form of files that holds images of any size
