"""Grey faces drawn from action units, many at a time.

Lengths are in pixels of a 48-pixel image, x to the right and y down, from the middle of the head. Every part is the
area between two curves or a stroke along one, with edges one pixel soft. Pixels are computed with ``+ - * /``, square
roots and comparisons only, which IEEE 754 rounds the same everywhere: one seed gives the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from .action_units import COLUMNS

# What stays with a person: name -> (low, high) of a uniform draw.
IDENTITY = {
    "width": (15.0, 18.0),  # half the head
    "height": (19.5, 22.5),
    "jaw": (0.12, 0.38),  # how much the face narrows towards the chin
    "skin": (0.42, 0.82),
    "hair": (0.04, 0.5),
    "hair_line": (-17.5, -12.5),
    "hair_part": (-0.25, 0.25),
    "hair_volume": (0.3, 3.5),
    "hair_curl": (0.1, 0.34),  # strands a pixel
    "fringe": (-1.0, 2.2),
    "hair_long": (-1.5, 1.0),  # long where positive
    "eye_x": (6.7, 8.0),
    "eye_y": (-4.6, -3.0),
    "eye_width": (3.5, 4.5),
    "eye_open": (0.85, 1.15),
    "eye_tilt": (-0.5, 0.3),
    "iris": (0.06, 0.38),
    "brow_gap": (4.4, 5.7),
    "brow_arch": (0.3, 1.2),
    "brow_tilt": (-0.45, 0.45),
    "brow_thick": (0.6, 1.15),
    "brow_dark": (0.45, 0.95),
    "nose_y": (4.2, 5.8),
    "nose_width": (2.3, 3.4),
    "mouth_y": (11.2, 12.8),
    "mouth_width": (5.2, 6.6),
    "mouth_rest": (-0.5, 0.5),  # corners at rest
    "lip": (1.1, 2.0),
    "lip_dark": (0.58, 0.8),
    "age": (0.0, 0.3),  # folds that are there at rest
    "beard": (-1.8, 0.55),
    "glasses": (-6.0, 1.0),  # worn where positive
}
# What changes from picture to picture.
CAPTURE = {
    "roll": (-0.045, 0.045),  # tangents of half the angles: 5, 11 and 4 degrees either way
    "yaw": (-0.1, 0.1),
    "pitch": (-0.035, 0.035),
    "zoom": (1.04, 1.18),
    "shift_x": (-1.2, 1.2),
    "shift_y": (-1.0, 1.0),
    "gaze": (-0.8, 0.8),
    "asymmetry": (-0.18, 0.18),
    "light_x": (-0.55, 0.55),
    "light_y": (-0.5, 0.15),
    "background": (0.05, 0.95),
    "slope": (-0.25, 0.25),
    "contrast": (0.7, 1.15),
    "bias": (0.6, 1.5),
    "blur": (-0.15, 0.2),
    "noise": (-0.01, 0.035),
    "cover": (-14.0, 1.0),  # something hides a part where positive
    "cover_x": (-14.0, 14.0),
    "cover_y": (-8.0, 20.0),
    "cover_size": (3.5, 7.0),
    "cover_grey": (0.1, 0.7),
}

_ROWS = 64  # images at a time: the working arrays stay in the processor's cache


def draw_values(table: Mapping[str, tuple], n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Uniform draws for `n` rows; row i does not depend on `n`."""
    draws = rng.random((n, len(table)))
    return {name: low + (high - low) * draws[:, k] for k, (name, (low, high)) in enumerate(table.items())}


def draw_faces(
    units: np.ndarray,
    identity: Mapping[str, np.ndarray],
    capture: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    size: int = 48,
) -> np.ndarray:
    """Draw one face a row.

    Parameters
    ----------
    units : int [n, units]
        Intensities from 0 to 100, columns as ``action_units.UNITS``.
    identity, capture : mapping of float [n]
        A value for every name in :data:`IDENTITY` and :data:`CAPTURE`.
    rng : Generator
        For the sensor noise.
    size : int
        Side of the images in pixels.

    Returns
    -------
    uint8 [n, 1, size, size]
    """
    out = np.empty((len(units), 1, size, size), np.uint8)
    for start in range(0, len(units), _ROWS):
        rows = slice(start, start + _ROWS)
        given = {**dict(zip(COLUMNS, units.T / 100, strict=True)), **identity, **capture}
        p = SimpleNamespace(**{k: np.asarray(v[rows], np.float32)[:, None, None] for k, v in given.items()})
        out[rows, 0] = _photograph(_paint_face(p, size), p, rng)
    return out


# --- brushes ---------------------------------------------------------------------------------------------------------


def _edge(depth: np.ndarray, size: int) -> np.ndarray:
    """Coverage of a pixel whose middle lies `depth` inside (positive) or outside an edge."""
    return np.clip(depth * np.float32(size / 48) + np.float32(0.5), 0, 1)


def _blob(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A soft spot: 1 in the middle, 0 from distance 1 on."""
    inside = np.maximum(1 - (x * x + y * y), 0)
    return inside * inside


def _mix(canvas: np.ndarray, alpha: np.ndarray, grey: np.ndarray | np.floating | float) -> None:
    """Lay `grey` over the canvas with opacity `alpha`."""
    canvas += alpha * (grey - canvas)


def _shade(canvas: np.ndarray, alpha: np.ndarray) -> None:
    """Darken the canvas by the share `alpha`."""
    canvas *= 1 - alpha


def _turn(tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of twice the angle with this tangent, without trigonometric functions."""
    square = tangent * tangent
    return (1 - square) / (1 + square), 2 * tangent / (1 + square)


# --- the face --------------------------------------------------------------------------------------------------------


def _paint_face(p: SimpleNamespace, size: int) -> np.ndarray:
    """Reflected light of every pixel, float32 [n, size, size], about 0 to 1."""
    axis = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(48 / size)) - 24
    x, y = axis[None, None, :] - p.shift_x, axis[None, :, None] - p.shift_y
    cosine, sine = _turn(p.roll)
    u, v = (x * cosine + y * sine) / p.zoom, (y * cosine - x * sine) / p.zoom
    canvas, inside, light = _head(p, u, v, axis, size)
    # Features sit on a cylinder that turns: the inverse of x -> x cos + depth sin.
    cosine, sine = _turn(p.yaw)
    reach = p.width * np.float32(1.1)
    fu = u * cosine - np.sqrt(np.maximum(reach * reach - u * u, 0)) * sine
    cosine, sine = _turn(p.pitch)
    fv = v * cosine - np.sqrt(np.maximum(600 - v * v, 0)) * sine
    for paint, rows, columns in (
        (_nose, (12, 36), (10, 38)),
        (_side, (6, 37), (18, 48)),
        (_mirrored_side, (6, 37), (0, 30)),
        (_mouth, (24, 48), (4, 44)),
    ):
        window = np.s_[:, _scaled(rows, size), _scaled(columns, size)]
        part = canvas[window].copy()
        paint(p, part, fu[window].copy(), fv[window].copy(), inside[window].copy(), size)
        canvas[window] = part
    canvas *= light
    few = np.flatnonzero(p.cover > 0)
    away = np.sqrt((x[few] - p.cover_x[few]) ** 2 + (y[few] - p.cover_y[few]) ** 2 / 2)
    hidden = _edge(p.cover_size[few] - away, size)
    canvas[few] += hidden * (p.cover_grey[few] - canvas[few])
    return canvas


def _scaled(span: tuple[int, int], size: int) -> slice:
    return slice(span[0] * size // 48, -(-span[1] * size // 48))


def _head(p: SimpleNamespace, u: np.ndarray, v: np.ndarray, axis: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Background, hair, neck, ears and the bare face; returns canvas, coverage of skin, and the light."""
    canvas = p.background + p.slope * (axis[None, None, :] / 24) + np.zeros_like(u)
    across, drop = u * u, np.maximum(v, 0)
    wide, high = p.width + p.hair_volume, p.height + p.hair_volume / 2
    crown = 1 - np.sqrt(across / (wide * wide) + (v + 1.5) ** 2 / (high * high))
    long_hair = np.minimum(wide - np.abs(u), np.minimum(v + 2, 4 + 20 * p.hair_long - v))
    back = _edge(np.maximum(crown * wide, np.where(p.hair_long > 0, long_hair, -9)), size)
    _mix(canvas, back, p.hair)
    neck = np.minimum(p.width * np.float32(0.55) - np.abs(u), v - 12)
    _mix(canvas, _edge(neck, size), p.skin * np.float32(0.72))
    ear_u, ear_v = np.abs(u) - p.width + np.float32(0.2), v + np.float32(0.5)
    _mix(canvas, _edge(2 * (1 - np.sqrt(ear_u * ear_u / 4 + ear_v * ear_v / 14)), size), p.skin * np.float32(0.82))

    length = p.height + np.float32(1.8) * p.au26 * (v > 0)
    low = drop / length
    half = p.width * (1 - p.jaw * low * low)
    radius = across / (half * half) + v * v / (length * length)
    inside = _edge((1 - np.sqrt(radius)) * half, size)
    strand = p.hair_curl * (u + np.float32(0.3) * np.abs(v))
    strand = np.abs(strand - np.floor(strand) - np.float32(0.5))
    line = p.hair_line + across * np.float32(0.028) + p.hair_part * u + p.fringe * strand
    below = inside * _edge((v - line) * np.float32(0.9), size)
    _shade(canvas, back * (np.float32(0.5) * strand - np.float32(0.1)))
    _mix(canvas, below, p.skin)

    front = np.sqrt(np.maximum(1 - radius, 0))
    light = 1 + inside * (np.float32(0.32) * front - np.float32(0.2) + p.light_x * u / p.width * np.float32(0.6))
    light += inside * (p.light_y * v / p.height * np.float32(0.6))
    return canvas, below, light


def _mirrored_side(p: SimpleNamespace, canvas: np.ndarray, u: np.ndarray, v: np.ndarray, *rest: Any) -> None:
    """The left half: the right one with x, gaze and asymmetry reversed."""
    mirrored = SimpleNamespace(**{**vars(p), "asymmetry": -p.asymmetry, "gaze": -p.gaze})
    _side(mirrored, canvas, -u, v, *rest)


def _side(p: SimpleNamespace, canvas: np.ndarray, u: np.ndarray, v: np.ndarray, inside: np.ndarray, size: int) -> None:
    """Cheek, eye, brow and glasses on the side of positive `u`."""
    more = 1 + p.asymmetry
    cheek = np.minimum(p.au06 * more + np.float32(0.5) * p.au12, 1)
    cheek_y = 6 - np.float32(1.6) * cheek
    canvas *= 1 + inside * cheek * np.float32(0.12) * _blob((u - 9) / 5, (v - cheek_y) / 4)
    _shade(canvas, inside * cheek * np.float32(0.22) * _blob((u - 9) / 5, (v - cheek_y - 4) / 2))
    _eye(p, canvas, u, v, more, size)
    _brow(p, canvas, u, v, more, inside, size)
    few = np.flatnonzero(p.glasses > 0)
    canvas[few] *= 1 - np.float32(0.85) * inside[few] * _glasses(u[few], v[few], p.eye_x[few], p.eye_y[few], size)


def _glasses(u: np.ndarray, v: np.ndarray, eye_x: np.ndarray, eye_y: np.ndarray, size: int) -> np.ndarray:
    """Coverage of rim, bridge and arm."""
    eye_u, eye_v = u - eye_x, v - eye_y - np.float32(0.4)
    rim = np.abs(np.sqrt(eye_u * eye_u * np.float32(0.75) + eye_v * eye_v) - np.float32(4.7))
    bridge = np.maximum(np.abs(eye_v + 1), eye_u + 5)
    arm = np.maximum(np.abs(eye_v + np.float32(1.5)), np.float32(5.4) - eye_u)
    return _edge(np.float32(0.45) - np.minimum(np.minimum(rim, bridge), arm), size)


def _eye(p: SimpleNamespace, canvas: np.ndarray, u: np.ndarray, v: np.ndarray, more: np.ndarray, size: int) -> None:
    """Lids, white, iris; AU5 lifts the upper lid, AU7 narrows both, AU6 pushes the lower one up (crow's feet, bag)."""
    t = (u - p.eye_x) / p.eye_width
    arc = 1 - t * t
    middle = p.eye_y + p.eye_tilt * t
    wide, tight, push = p.au05 * more, p.au07 * more, p.au06 * more
    above = np.float32(1.75) * p.eye_open + np.float32(1.6) * wide - np.float32(0.75) * tight
    above = np.maximum(above - np.float32(0.35) * push - np.float32(0.3) * p.au09 - np.float32(0.25) * p.au04, 0.25)
    below = np.float32(1.3) * p.eye_open + np.float32(0.35) * wide - np.float32(0.75) * tight
    below = np.maximum(below - np.float32(1.15) * push - np.float32(0.4) * p.au09, -0.1)
    upper, lower = middle - above * arc, middle + below * arc
    _shade(canvas, np.float32(0.2) * _blob(t / np.float32(1.7), (v - p.eye_y) / 6))  # the socket
    opening = _edge(np.minimum(v - upper, lower - v), size)
    _mix(canvas, opening, np.float32(0.55) + np.float32(0.4) * p.skin)
    iris_u, iris_v = u - p.eye_x - p.gaze, v - p.eye_y + np.float32(0.25)
    away = np.sqrt(iris_u * iris_u + iris_v * iris_v)
    _mix(canvas, opening * _edge(np.float32(1.95) - away, size), p.iris)
    _mix(canvas, opening * _edge(np.float32(0.9) - away, size), np.float32(0.03))
    steep = 1 / np.sqrt(1 + (2 * t * above / p.eye_width) ** 2)
    ends = _edge((np.float32(1.12) - np.abs(t)) * p.eye_width, size)
    _mix(canvas, ends * _edge(np.float32(0.45) - np.abs(v - upper) * steep, size), np.float32(0.08))
    _shade(canvas, ends * (np.float32(0.25) + np.float32(0.25) * tight) * _edge(0.4 - np.abs(v - lower), size))
    crease = np.abs(v - upper + np.float32(1.5) - np.float32(0.4) * wide)
    _shade(canvas, ends * np.float32(0.28) * _edge(np.float32(0.3) - crease, size))
    bag = np.abs(v - lower - np.float32(1.4) + np.float32(0.5) * arc)
    fold = p.age + np.float32(0.45) * push + np.float32(0.3) * tight
    _shade(canvas, ends * np.float32(0.8) * fold * _edge(np.float32(0.4) - bag, size))
    out = u - p.eye_x - p.eye_width - np.float32(0.5)
    feet = np.abs(np.abs(v - p.eye_y - np.float32(0.2)) - np.float32(0.45) * out - np.float32(0.2))
    spread = _edge(np.minimum(out, 3 - out), size) * _edge(np.float32(0.35) - feet, size)
    _shade(canvas, np.float32(0.55) * np.minimum(push, 1) * spread)


def _brow(
    p: SimpleNamespace,
    canvas: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    more: np.ndarray,
    inside: np.ndarray,
    size: int,
) -> None:
    """AU1 lifts the inner end, AU2 the outer, AU4 lowers and draws together, with furrows where the skin folds."""
    inner = np.float32(3.4) - np.float32(1.3) * p.au04 + np.float32(0.2) * p.au01
    outer = p.eye_x + p.eye_width + np.float32(1.2)
    t = (u - (inner + outer) / 2) * (2 / (outer - inner))
    near, far = (1 - t) / 2, (1 + t) / 2
    lift = np.float32(3.2) * p.au01 * more
    sink = np.float32(2.6) * p.au04 * (1 - np.float32(0.75) * p.au01) + np.float32(1.1) * p.au09
    base = p.eye_y - p.brow_gap + np.float32(0.5) * p.au04 + np.float32(0.4) * p.au06
    curve = base - p.brow_arch * (1 - t * t) + p.brow_tilt * t
    curve = curve + near * (sink - lift) + far * (np.float32(0.4) * p.au04 - np.float32(3.2) * p.au02 * more)
    reach = _edge((1 - np.abs(t)) * (outer - inner) / 2, size)
    body = _edge(p.brow_thick * (1 - np.float32(0.3) * t) - np.abs(v - curve), size)
    raised = np.minimum(p.au01 + p.au02, 1)
    for up in (3.0, 5.0):  # forehead lines
        line = _edge(np.float32(0.4) - np.abs(v - curve + np.float32(up)), size)
        _shade(canvas, np.float32(0.3) * raised * reach * inside * line)
    _mix(canvas, reach * body * p.brow_dark, np.minimum(p.hair, np.float32(0.35)))
    furrow = _edge(np.float32(0.45) - np.abs(u - np.float32(1.2)), size) * _edge(
        np.float32(2.4) - np.abs(v - base - 1), size
    )
    _shade(canvas, np.float32(0.55) * p.au04 * furrow)


def _nose(p: SimpleNamespace, canvas: np.ndarray, u: np.ndarray, v: np.ndarray, inside: np.ndarray, size: int) -> None:
    """Bridge, tip and nostrils; AU9 lifts them and wrinkles the root, AU38 widens the nostrils."""
    across = np.abs(u)
    tip = p.nose_y - np.float32(1.3) * p.au09 - np.float32(0.5) * p.au10
    wide = p.nose_width + np.float32(0.4) * p.au10 + np.float32(0.4) * p.au09 + np.float32(0.2) * p.au12
    down = np.clip((v - p.eye_y) / (tip - p.eye_y), 0, 1)
    flank = np.maximum(1 - np.abs(across - 1 - (wide - 1) * down * down) / np.float32(1.4), 0)
    span = _edge(np.minimum(v - p.eye_y + 1, tip - v), size)
    _shade(canvas, span * flank * (np.float32(0.16) - np.float32(0.2) * p.light_x * np.sign(u)))
    canvas *= 1 + np.float32(0.14) * _blob(u / np.float32(1.3), (v - tip + 3) / 6)
    base = np.abs(v - tip - np.float32(0.9) + np.float32(0.16) * u * u)
    _shade(canvas, np.float32(0.3) * _edge(np.float32(0.5) - base, size) * _edge(wide - across, size))
    flare = 1 + np.float32(0.65) * p.au38
    hole_u = (across - wide * np.float32(0.55) * (1 + np.float32(0.3) * p.au38)) / (np.float32(1.3) * flare)
    _shade(canvas, np.float32(0.75) * _blob(hole_u, (v - tip) / (np.float32(0.9) * flare)))
    wing = np.abs(across - wide - np.float32(0.2) + np.float32(0.25) * (v - tip + 1) ** 2)
    _shade(canvas, np.float32(0.35) * _edge(np.float32(0.4) - wing, size) * _edge(2 - np.abs(v - tip + 1), size))
    for k in range(3):  # wrinkles across the root and down the sides
        line = np.abs(v - p.eye_y - np.float32(0.2 + 1.9 * k) + np.float32(0.3) * across)
        stroke = _edge(np.float32(0.45) - line, size) * _edge(np.float32(2.6) + k / 2 - across, size)
        _shade(canvas, np.float32(0.55) * p.au09 * stroke)


def _mouth(p: SimpleNamespace, canvas: np.ndarray, u: np.ndarray, v: np.ndarray, inside: np.ndarray, size: int) -> None:
    """Folds, lips, teeth, tongue and chin from AU10, 12, 14, 15, 16, 17, 19, 20, 23, 24, 25 and 26."""
    side = 1 + p.asymmetry * np.sign(u)
    smile, across = p.au12 * side, np.abs(u)
    parted = np.minimum(np.maximum(p.au25, np.float32(0.8) * p.au26), 1)
    press = np.maximum(p.au23, p.au24) * (1 - parted)
    half = p.mouth_width + np.float32(2.0) * p.au12 + np.float32(2.2) * p.au20 - np.float32(1.4) * p.au23 * (1 - parted)
    half = half - np.float32(0.9) * p.au26 * (1 - p.au12) - np.float32(0.5) * p.au17
    height = p.mouth_y + np.float32(0.5) * p.au26 - np.float32(0.7) * p.au17 - np.float32(0.3) * p.au10
    _beard(p, canvas, u, v, inside, height, size)
    _folds(p, canvas, across, v, smile, half, height, size)
    t = u / half
    square = np.minimum(t * t, np.float32(1.6))
    arc = 1 - square
    corner = p.mouth_rest - np.float32(3.4) * smile + np.float32(0.5) * p.au20
    line = height + corner * (square - np.float32(0.4)) + np.float32(3.0) * p.au15 * side * (square - 0.25) * square
    line = line - np.float32(0.8) * p.au17 * arc
    full = arc * (1 + np.float32(0.6) * square)
    up = np.float32(0.9) * parted + np.float32(0.3) * p.au26 + np.float32(1.3) * p.au10
    down = np.float32(0.8) * parted + np.float32(4.6) * p.au26 + np.float32(1.5) * p.au16
    top, bottom = line - up * full, line + down * full
    thin = (1 - np.float32(0.75) * press) * (1 - np.float32(0.25) * p.au12 - np.float32(0.25) * p.au20)
    upper_lip = p.lip * np.float32(0.7) * thin * (1 - np.float32(0.3) * p.au10)
    lower_lip = p.lip * thin * (1 + np.float32(0.3) * p.au17)
    lips = np.minimum(v - top + upper_lip * arc, bottom + lower_lip * arc - v)
    _shade(canvas, np.float32(0.25) * _blob(u / 5, (v - bottom - lower_lip - 1) / np.float32(1.6)))
    within = _edge((np.float32(1.05) - np.abs(t)) * half, size)
    _mix(canvas, within * _edge(lips, size), p.skin * p.lip_dark)
    inner = within * _edge(np.minimum(v - top, bottom - v), size) * np.minimum((up + down) * 2, 1)
    _mix(canvas, inner, np.float32(0.06))
    bared = np.minimum(p.au12 + p.au10 + np.float32(0.6) * p.au20 + np.float32(0.25) * p.au26, 1)
    _mix(canvas, inner * bared * _edge(top + np.float32(1.7) - v, size), np.float32(0.88))
    bared = np.minimum(p.au16 + np.float32(0.4) * p.au20, 1)
    _mix(canvas, inner * bared * _edge(v - bottom + np.float32(1.2), size), np.float32(0.8))
    seam = within * _edge(np.float32(0.42) - np.abs(v - line), size)
    _mix(canvas, seam * (1 - np.minimum((up + down), 1)) * np.float32(0.85), p.skin * np.float32(0.22))
    pull = np.minimum(p.au12 + p.au15 + np.float32(0.5) * p.au20 + np.float32(0.5) * p.au24, 1)
    end = line - np.float32(0.2)
    _shade(canvas, np.float32(0.5) * pull * _blob((across - half - np.float32(0.4)) / np.float32(1.4), (v - end) / 2))
    _dimples(p, canvas, across - half, v - line, size)
    _tongue(p, canvas, u, v - line, size)
    boss = height + np.float32(4.6) + np.float32(0.06) * u * u
    ridge = _edge(np.float32(0.6) - np.abs(v - boss), size) * _edge(4 - across, size)
    _shade(canvas, np.float32(0.4) * p.au17 * ridge)
    bulge = p.au17 * np.float32(0.2) * _blob(u / 5, (v - boss - 2) / 3)
    canvas *= 1 + bulge + press * np.float32(0.18) * _blob(u / 6, (v - height - 3) / 2)


def _dimples(p: SimpleNamespace, canvas: np.ndarray, out: np.ndarray, down: np.ndarray, size: int) -> None:
    """AU14 draws a pit and an upright crease beside each corner of the mouth; `out` and `down` are 0 in the corner."""
    few = np.flatnonzero(p.au14 > 0)
    out, down, depth = out[few], down[few], p.au14[few]
    pit = _blob((out - np.float32(1.9)) / np.float32(1.6), down / np.float32(2.4))
    crease = _edge(np.float32(0.4) - np.abs(out - np.float32(2.4) + down * down / 12), size)
    crease = crease * _edge(np.float32(3.0) - np.abs(down), size)
    canvas[few] *= 1 - np.minimum(np.float32(0.38) * depth * (pit + crease), np.float32(0.8))


def _tongue(p: SimpleNamespace, canvas: np.ndarray, u: np.ndarray, down: np.ndarray, size: int) -> None:
    """AU19 shows the tongue over the lower lip, with its furrow; `down` is from the line between the lips."""
    few = np.flatnonzero(p.au19 > 0)
    u, down, shown = u[few], down[few], p.au19[few]
    length, half = np.float32(2.0) + np.float32(5.0) * shown, np.float32(2.0) + np.float32(1.6) * shown
    around = np.sqrt((u / half) ** 2 + (np.maximum(down, 0) / length) ** 2)
    body = _edge((1 - around) * half, size) * _edge(down + np.float32(0.5), size)
    part = canvas[few]
    _mix(part, body, np.float32(0.8) * p.skin[few] + np.float32(0.25))
    rim = _edge(np.float32(0.45) - np.abs(1 - around) * half, size) * _edge(down, size)
    _shade(part, np.float32(0.6) * rim)
    _shade(part, np.float32(0.45) * body * _edge(np.float32(0.35) - np.abs(u), size))
    canvas[few] = part


def _beard(
    p: SimpleNamespace,
    canvas: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    inside: np.ndarray,
    height: np.ndarray,
    size: int,
) -> None:
    """Stubble to full beard on jaw and upper lip."""
    jaw = np.clip((v - height + 3 + u * u * np.float32(-0.05) + 2) / 4, 0, 1)
    _mix(canvas, inside * np.maximum(p.beard, 0) * jaw, np.minimum(p.hair, np.float32(0.4)))


def _folds(
    p: SimpleNamespace,
    canvas: np.ndarray,
    across: np.ndarray,
    v: np.ndarray,
    smile: np.ndarray,
    half: np.ndarray,
    height: np.ndarray,
    size: int,
) -> None:
    """The folds from the wings of the nose to the mouth's corners: AU9, AU10 and AU12 deepen them."""
    start = p.nose_y - np.float32(1.2) * p.au09 - np.float32(0.6) * p.au10 - np.float32(0.8)
    stop = height + np.float32(1.0) - np.float32(1.5) * p.au12
    s = np.clip((v - start) / (stop - start), 0, 1)
    bulge = (np.float32(1.5) + np.float32(1.5) * p.au12 + np.float32(1.2) * p.au10) * 2 * s * (1 - s)
    path = p.nose_width + 1 + (half + np.float32(0.6) - p.nose_width) * s + bulge
    depth = p.age + np.float32(0.6) * smile + np.float32(0.35) * p.au10 + np.float32(0.25) * p.au09
    stroke = _edge(np.float32(0.55) - np.abs(across - path) * np.float32(0.8), size)
    stroke = stroke * _edge(np.minimum(v - start, stop - v), size)
    _shade(canvas, np.float32(0.5) * np.minimum(depth, 1) * stroke)


# --- the camera ------------------------------------------------------------------------------------------------------


def _photograph(canvas: np.ndarray, p: SimpleNamespace, rng: np.random.Generator) -> np.ndarray:
    """Exposure, contrast, blur, sensor noise and rounding: uint8 [n, size, size]."""
    grey = np.clip(canvas, 0, 1)
    grey = grey / (grey + p.bias * (1 - grey))  # Schlick's bias: a gamma curve of one division
    grey = (grey - np.float32(0.5)) * p.contrast + np.float32(0.5)
    weight = np.maximum(p.blur, 0)
    if weight.any():
        for _ in range(2):
            grey = _blurred(_blurred(grey, weight, 1), weight, 2)
    raw = np.frombuffer(rng.bytes(grey.size * 4), np.uint8).reshape(*grey.shape, 4)
    bell = raw[..., 0].astype(np.int16) + raw[..., 1] + raw[..., 2] + raw[..., 3] - 510  # four dice: sigma 147.8
    grey += np.maximum(p.noise, 0) * (bell.astype(np.float32) / np.float32(147.8))
    return np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)


def _blurred(grey: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
    """Each pixel gives the share `weight` to either neighbour along `axis`."""
    first, last = (np.take(grey, [k], axis) for k in (0, -1))
    padded = np.concatenate([first, grey, last], axis)
    size = grey.shape[axis]
    before, after = (np.s_[:, k : k + size] if axis == 1 else np.s_[:, :, k : k + size] for k in (0, 2))
    return grey * (1 - 2 * weight) + weight * (padded[before] + padded[after])
