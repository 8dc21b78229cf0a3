"""``fer-bench predict RUN IMAGE...``: faces of one's own, by the trained network of a finished run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fer_bench.base.quantities import plural
from fer_bench.cli.options import (
    check_device,
    check_new,
    device_option,
    fit_option,
    home_option,
    number_option,
    plugins_option,
    replace_option,
)
from fer_bench.errors import FerBenchError, SpecError, unknown
from fer_bench.printable import csv_cell, printable, printable_data

if TYPE_CHECKING:
    import pandas as pd

    from fer_bench.record.home import Home
    from fer_bench.record.ledger import RunRecord

FORMATS = {"table": "", "csv": ".csv", "json": ".json", "parquet": ".parquet"}
SHOWN = 50  # rows of the table on the terminal


@click.command()
@click.argument("run")
@click.argument("images", nargs=-1, metavar="[IMAGE|FOLDER]...")
@click.option("--test", is_flag=True, help="Show the run's stored predictions of its test images, by file name.")
@number_option("--top", int, 1, 100, "Classes per image in the table.", default=3)
@click.option("--out", metavar="FILE", help="Write all probabilities to FILE (.csv, .json or .parquet).")
@replace_option
@click.option("--format", "form", metavar="NAME", help="table, csv, json or parquet  [default: by FILE, or table]")
@fit_option
@number_option("--batch-size", int, 1, 512, "Images read and predicted together.", default=256)
@device_option
@click.option("--quiet", is_flag=True, help="Do not show live progress.")
@plugins_option
@home_option
def predict(run: str, images: tuple[str, ...], **options: Any) -> None:
    """Predict the expression of faces: every IMAGE, and every image in every FOLDER.

    RUN is a finished run: its id, the beginning of it, or its method if only one run has it (`fer-bench list runs`).
    Cut each image to its face first, as those of the run's data are: nothing looks for faces. It is then brought to
    the size and the colours of the run's data. Any format that Pillow reads will do; of several frames or pages the
    first is read. An image that can't be read is named and skipped.
    """
    form = _form(options["form"], options["out"])
    check_new(options["out"], force=options["force"])
    check_device(options["device"])
    if bool(images) == options["test"]:
        both = "give images, or --test for the run's own test images" + (", not both" if images else "")
        raise SpecError(both, next=f"fer-bench predict {run} --test")
    from fer_bench.record.home import Home
    from fer_bench.record.lookup import find_run

    place = Home.find(options["home"])
    record = find_run(place.ledger, run)
    frame = _stored(record, place) if options["test"] else _predicted(record, images, place, options)
    if form == "table":
        _print(frame, record, options["top"])
    else:
        _write(frame, form, options["out"])


def _form(given: str | None, out: str | None) -> str:
    """The format of the output, by its name or the ending of the file.

    Raises
    ------
    UnknownNameError, SpecError
        There is no such format, or it does not fit.
    """
    if given is not None and given not in FORMATS:
        raise unknown("format", given, FORMATS, where="--format")
    if out is None:
        if given == "parquet":
            raise SpecError("parquet is not text, so it needs a file", hint="--out FILE.parquet")
        return given or "table"
    ending = Path(out).suffix.lower()
    form = given or next((name for name, known in FORMATS.items() if known and known == ending), None)
    if form is None or form == "table":
        raise SpecError(f"can't tell the format of '{out}'", where="--out", hint="--format csv, json or parquet")
    return form


def _predicted(record: RunRecord, images: tuple[str, ...], place: Home, options: dict[str, Any]) -> pd.DataFrame:
    """The predictions of images; what to know about them goes to the error stream."""
    from fer_bench.cli.progress import Steps
    from fer_bench.contract.plugins import plugins
    from fer_bench.inference.faces import faces_in
    from fer_bench.inference.predict import predicted
    from fer_bench.inference.trained import load_trained

    faces = faces_in(images)
    trained = load_trained(record, place, plugins(options["plugin_dirs"]), device=options["device"], how=options["fit"])
    for note in trained.notes:
        warn(note)
    try:
        if options["quiet"]:
            return predicted(trained, faces, options["batch_size"])
        with Steps("predict") as steps:
            many = plural(len(faces.faces), "image")
            return predicted(trained, faces, options["batch_size"], lambda done: steps(many, done / len(faces.faces)))
    finally:
        for name, reason in faces.skipped if len(faces.skipped) < len(faces.faces) else ():
            warn(f"skipped {name}: {reason}")
        for remark in faces.left_out:
            warn(remark)


def _stored(record: RunRecord, place: Home) -> pd.DataFrame:
    """The test predictions that the run stored; neither the network nor an image is read."""
    import warnings

    from fer_bench.record.lookup import require_finished
    from fer_bench.reports.facts.tidy import predictions

    require_finished(record, place.ledger)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = predictions(record.id, place.root)
    for note in caught:
        warn(str(note.message))
    return frame


def warn(text: str) -> None:
    """A remark on the error stream."""
    click.secho(printable(f"warning: {text}"), fg="yellow", err=True)


# -- output ----------------------------------------------------------------------------------------------------------


def _print(frame: pd.DataFrame, record: RunRecord, top: int) -> None:
    """The table on the terminal: at most SHOWN images, each with its most probable classes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stored = "true" in frame
    title = f"{record.label}, run {record.id}: {plural(len(frame), 'test image' if stored else 'image')}"
    if stored:
        title += f", {100 * frame['correct'].mean():.1f} % right"
    table = Table()
    for name in ("image", *(["true"] if stored else []), "predicted", "probability", *(["then"] if top > 1 else [])):
        table.add_column(name, justify="right" if name == "probability" else "left", overflow="fold")
    for row in _rows(frame.head(SHOWN), top):
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    console.print(Text(printable(title)), soft_wrap=True)
    console.print(table)
    if len(frame) > SHOWN:
        console.print(f"and {len(frame) - SHOWN:,} more; all of them: --out FILE.csv", markup=False)


def _rows(frame: pd.DataFrame, top: int) -> Iterator[list[str]]:
    """The cells of each image."""
    classes = [name[2:] for name in frame.columns if name.startswith("p_")]
    for record in frame.to_dict("records"):
        shares = sorted(((record[f"p_{name}"], name) for name in classes), key=lambda of: -of[0])[: max(top, 1)]
        named = record["image"] if "image" in record else record["source"]
        cells = [str(named) if isinstance(named, str) else f"row {record['row']}"]
        cells += [str(record["true"])] if "true" in record else []
        mark = "" if record.get("correct", True) else " ✗"
        cells += [f"{record['predicted']}{mark}", f"{100 * shares[0][0]:.1f} %"]
        yield cells + ([", ".join(f"{name} {100 * share:.1f}" for share, name in shares[1:])] if top > 1 else [])


def _write(frame: pd.DataFrame, form: str, out: str | None) -> None:
    """Write a table with all probabilities, to a file or to the output."""
    from fer_bench.base.files import write_text, write_with

    try:
        if form == "parquet" and out is not None:
            write_with(out, lambda file: frame.to_parquet(file, index=False))
        else:
            text = _csv(frame) if form == "csv" else _json(frame)
            write_text(out, text) if out is not None else click.echo(text, nl=False)
    except OSError as error:
        raise FerBenchError(f"the file can't be written: {error.strerror}", where=str(out)) from error
    if out is not None:
        click.echo(f"{plural(len(frame), 'prediction')} written to {out}")


def _json(frame: pd.DataFrame) -> str:
    """A list with an object for each image."""
    import json

    plain = frame.astype(dict.fromkeys(frame.select_dtypes("category").columns, object))
    records = [{k: None if v is None or v != v else v for k, v in r.items()} for r in plain.to_dict("records")]
    return json.dumps(printable_data(records), indent=1, ensure_ascii=False) + "\n"


def _csv(frame: pd.DataFrame) -> str:
    """CSV in which a spreadsheet takes no name for a formula."""
    safe = frame.rename(columns=csv_cell)
    for name in frame.select_dtypes(exclude=["number", "bool"]).columns:
        safe[csv_cell(name)] = [csv_cell(str(v)) if isinstance(v, str) else "" for v in frame[name].astype(object)]
    return safe.to_csv(index=False, lineterminator="\n")
