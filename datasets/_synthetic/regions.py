"""Where the parts of a drawn face lie on average: the boxes in which its features are painted and move."""

from __future__ import annotations

import numpy as np

from .faces import CAPTURE, IDENTITY

SIDE = 48  # pixels in which the tables of a face count


def draw_regions(height: int, width: int) -> dict[str, np.ndarray]:
    """Disjoint parts of an image, bool [height, width], of the average person seen from the front.

    A brow reaches from where AU1 and AU2 lift it to where it meets the eye, an eye from there to the cheek; the nose
    lies between the eyes and below them; the mouth reaches from the upper lip to the chin that AU26 drops.
    """
    person, zoom = {name: sum(ends) / 2 for name, ends in IDENTITY.items()}, sum(CAPTURE["zoom"]) / 2
    u, v = (((np.arange(n) + 0.5) * SIDE / n - SIDE / 2) / zoom for n in (width, height))
    across, down = np.abs(u)[None, :], v[:, None]
    eye, brow = person["eye_y"], person["eye_y"] - person["brow_gap"]
    lid = (eye + brow) / 2  # half-way between brow and eye
    cheek = eye + (eye - lid)
    lip = (person["nose_y"] + person["mouth_y"]) / 2
    outer, inner = person["eye_x"] + person["eye_width"] + 1.2, person["eye_x"] - person["eye_width"]
    wings = person["nose_width"] + 1.6
    brows = (down >= brow - person["brow_arch"] - 3.2) & (down < lid) & (across <= outer)
    eyes = (down >= lid) & (down < cheek) & (across <= outer) & (across > inner)
    nose = (down >= lid) & (down < lip) & (across <= np.where(down < cheek, inner, wings))
    mouth = (down >= lip) & (down <= person["mouth_y"] + 5.6) & (across <= person["mouth_width"] + 2.2)
    return {"brows": brows, "eyes": eyes, "nose": nose, "mouth": mouth}
