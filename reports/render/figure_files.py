"""Figures as SVG and PNG files, with the same bytes for the same numbers.

This module imports nothing else of the reports, so that a process that only draws figures starts quickly.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from fer_bench.base.files import write_bytes

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "fer-bench",
    "svg.fonttype": "path",
    "text.parse_math": False,  # a class may be called "$"
    "path.simplify": True,
}
DPI = 160


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``<name>.svg`` and ``<name>.png``, without dates or version strings.

    The canvases print directly, since ``savefig`` would draw each twice.
    """
    with matplotlib.rc_context(STYLE):
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)  # once, not for every format
        figure.set_layout_engine("none")
        svg, png = io.BytesIO(), io.BytesIO()
        figure.dpi = DPI  # for the bitmaps inside an SVG as well
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
        figure.dpi = DPI  # print_svg leaves it at 72
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    write_bytes(folder / f"{name}.svg", svg.getvalue())
    write_bytes(folder / f"{name}.png", png.getvalue())
