"""``fer-bench explain RUN [IMAGE...] --out DIR``: what a finished run's network looks at and draws on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fer_bench.base.quantities import plural
from fer_bench.cli.options import (
    check_device,
    device_option,
    fit_option,
    home_option,
    number_option,
    plugins_option,
)
from fer_bench.cli.predict import warn

if TYPE_CHECKING:
    from fer_bench.inference.explain import Explanation, Told
    from fer_bench.inference.trained import Trained
    from fer_bench.record.home import Home


@click.command()
@click.argument("run")
@click.argument("images", nargs=-1, metavar="[IMAGE|FOLDER]...")
@click.option("--out", metavar="DIR", required=True, help="Folder to write; it will hold images of faces.")
@number_option("--per-class", int, 1, 50, "Test images per class: half of them right, half wrong.", default=4)
@number_option("--classes", int, 1, 100, "How many classes, from the rarest on.", default=3)
@fit_option
@device_option
@click.option("--quiet", is_flag=True, help="Do not show live progress.")
@click.option("--force", is_flag=True, help="Write into DIR beside files that explain did not write; they stay.")
@plugins_option
@home_option
def explain(run: str, images: tuple[str, ...], **options: Any) -> None:
    """Draw where the network of RUN looks: Grad-CAM, the method's own attention, and what each face draws on.

    Writes README.md, index.html, pictures and CSV files into DIR, a folder of their own. Images of your own are read as
    by `fer-bench predict`. Where the parts of their faces lie is not known, so the shares of their maps are those of
    thirds of the image. Without any, it shows test images of the rarest classes, right and wrong ones. They are read
    after the run was scored, for pictures alone; its scores and its count of openings stay. Don't choose methods by
    what you see there.
    """
    from fer_bench.cli.follow_up import follow_up
    from fer_bench.record.home import Home
    from fer_bench.record.lookup import find_run
    from fer_bench.reports.render.page_folder import EXPLAIN, Target, check

    check_device(options["device"])
    place = Home.find(options["home"])
    record = find_run(place.ledger, run)
    paths = [str(Path(image).expanduser().absolute()) for image in images]
    again = follow_up("explain", explain, record.id, *paths, leave=["quiet", "force", "device"])
    out = Path(options["out"]).expanduser()
    target = Target(out=out, kept=EXPLAIN, alone=True, force=options["force"], again=again)
    check(target, ["README.md", "index.html"])
    from fer_bench.contract.plugins import plugins
    from fer_bench.inference.page import write_page
    from fer_bench.inference.trained import load_trained

    available = plugins(options["plugin_dirs"])
    trained = load_trained(record, place, available, device=options["device"], how=options["fit"])
    for note in trained.notes:
        warn(note)
    found = _explained(trained, images, place, options)
    for note in found.notes:
        warn(note)
    write_page(trained, found, target, again)
    shown = plural(len(found.faces), "test image" if found.faces[0].row is not None else "image")
    click.echo(f"{shown} of {record.label}, run {record.id}: {out / 'README.md'}, {out / 'index.html'}")


def _explained(trained: Trained, images: tuple[str, ...], place: Home, options: dict[str, Any]) -> Explanation:
    """The explanation, with a bar on a terminal."""
    from fer_bench.cli.progress import Steps
    from fer_bench.contract.plugins import plugins
    from fer_bench.inference.explain import explain_files, explain_test
    from fer_bench.inference.faces import faces_in

    available = plugins(options["plugin_dirs"])

    def work(told: Told) -> Explanation:
        if not images:
            return explain_test(trained, place, available, options["per_class"], options["classes"], told)
        faces = faces_in(images)
        found = explain_files(trained, faces, place, told)
        for name, reason in faces.skipped:
            warn(f"skipped {name}: {reason}")
        for remark in faces.left_out:
            warn(remark)
        return found

    if options["quiet"]:
        return work(lambda what, done: None)
    with Steps("explain") as steps:
        return work(steps)
