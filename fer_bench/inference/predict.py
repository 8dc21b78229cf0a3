"""Class and probabilities of new images, by the trained network of a finished run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_bench.contract.plugins import plugins as find_plugins
from fer_bench.errors import SpecError
from fer_bench.inference.faces import Faces, Given, faces_in
from fer_bench.inference.trained import BATCH, MOST, Trained, load_trained
from fer_bench.printable import printable
from fer_bench.record.home import Home
from fer_bench.record.lookup import find_run
from fer_bench.stats.probabilities import softmax

if TYPE_CHECKING:
    import pandas as pd


def predict(
    run: str,
    images: Given | Iterable[Given],
    home: str | Path | None = None,
    *,
    device: str = "auto",
    batch_size: int = BATCH,
    fit: str | None = None,
    plugins: Sequence[str | Path] = (),
) -> pd.DataFrame:
    """Predict faces with the network of a finished run: one row per image.

    Images are brought to the shape of the run's data by the code that prepares stores. They should be cut to the face
    as those of the data are; no face is looked for.

    Parameters
    ----------
    run : str
        Its id, the beginning of it, or its method as ``fer-bench list runs`` shows it, if only one run has it.
    images : path, picture or sequence of these
        A file; a folder, of which every image at any depth is taken in order of path; a PIL image; or uint8 pixels
        [H, W] or [H, W, 3].
    home : path, optional
        The folder that holds ``ledger/``; ``$FER_BENCH_HOME``, or the current folder, if left out.
    device : str
        "auto", "cpu", "cuda", "cuda:1", ...
    batch_size : int
        Images that are read and predicted together, 1 to 512.
    fit : {"stretch", "pad", "crop"}, optional
        How an image that is not square is made square; by default as the run's data were.
    plugins : sequence of path
        Folders with plug-ins of your own.

    Returns
    -------
    DataFrame
        `image` (string: its path, or "image 0" for the first one in memory), `predicted` (category, in the order of
        the classes), and one probability per class, `p_<class>` (float64, softmax of the logits). Images that can't be
        read are left out with a warning; ``frame.attrs["skipped"]`` holds the name of each and the reason, and
        ``frame.attrs["remarks"]`` what else to know.

    Raises
    ------
    UnknownNameError, SpecError
        There is no such run, or several are meant.
    LedgerError, DataError
        The run is unfinished or has no weights; a path does not exist, or not one image can be read.
    """
    place = Home.find(home)
    faces = faces_in(images)
    record = find_run(place.ledger, run)
    trained = load_trained(record, place, find_plugins(plugins), device=device, how=fit)
    frame = predicted(trained, faces, batch_size)
    remarks = [*trained.notes, *(f"skipped {name}: {reason}" for name, reason in faces.skipped)]
    remarks += faces.left_out if faces.drawn else []
    frame.attrs["skipped"], frame.attrs["remarks"] = list(faces.skipped), remarks
    if remarks:
        warnings.warn(printable("\n".join(["remarks on these predictions:", *remarks[:8]])), stacklevel=2)
    return frame


def predicted(
    trained: Trained, faces: Faces, batch_size: int = BATCH, told: Callable[[int], object] = lambda done: None
) -> pd.DataFrame:
    """The table of :func:`predict`, without its remarks; `told` is given how many images have been read."""
    if not 1 <= batch_size <= MOST:
        raise SpecError(f"batch_size {batch_size} is out of range", hint=f"1 to {MOST}")
    names: list[str] = []
    logits: list[np.ndarray] = []
    for some, images in faces.batches(trained.fit, batch_size, told):
        names += [face.name for face in some]
        logits.append(trained.logits(images))
    return table(trained.classes, {"image": names}, np.concatenate(logits))


def table(classes: Sequence[str], first: dict[str, list[str]], logits: np.ndarray) -> pd.DataFrame:
    """The columns `first`, then `predicted` and the probabilities of logits [n, K]."""
    import pandas as pd

    names = pd.Index(list(classes))
    share = softmax(logits.astype(np.float64))
    frame = pd.DataFrame({name: pd.array(values, dtype="string") for name, values in first.items()})
    frame["predicted"] = pd.Categorical.from_codes(logits.argmax(1).tolist(), names)
    return frame.assign(**{f"p_{name}": share[:, k] for k, name in enumerate(names)})
