"""``fer-bench new``: a plug-in to start from, with its tests."""

from __future__ import annotations

import keyword
import os
import re
import shlex
import sys
from collections.abc import Collection
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import click

from fer_bench.base.files import write_text
from fer_bench.base.next_command import complete
from fer_bench.cli.columns import table
from fer_bench.cli.group import Group
from fer_bench.cli.method_card import RECIPE, drawn_dataset, plain_method
from fer_bench.contract.plugins import FOLDERS, NO_PLUGINS, Plugin, Plugins, plugins
from fer_bench.errors import SpecError, abbreviated, unknown

TEMPLATES = {
    "loss": "another loss",
    "weights": "class weights on the loss",
    "sampler": "another choice of the images that an epoch visits",
    "mixing": "a change of each batch, with mixed labels",
    "two-stage": "a representation first, then another classifier",
    "estimator": "a classical estimator on the features",
}
STAND_INS = {
    "method": ("new_method", "NewMethod", "New method"),
    "dataset": ("new_dataset", "NewDataset", "New data set"),
}
WORDS = {"method": "method", "dataset": "data set"}
LONGEST = 60  # so that no line of the files gets too long

into_option = click.option(
    "--into", metavar="DIR", default=".", help="Folder of plug-ins; it is made if it is missing  [default: .]"
)
force_option = click.option("--force", is_flag=True, help="Replace files that are there already.")


@click.group(cls=Group)
def new() -> None:
    """Write a plug-in to start from: a file that works as it is, and its tests."""


@new.command()
@click.argument("name")
@click.option("--template", default="loss", metavar="NAME", help=f"One of {', '.join(TEMPLATES)}  [default: loss]")
@into_option
@force_option
def method(name: str, template: str, into: str, force: bool) -> None:
    """Write DIR/NAME.py, a method, and DIR/tests/test_NAME.py, its tests.

    \b
    fer-bench new method tempered --into my_methods
    fer-bench new method rare_first --into my_methods --template sampler
    """
    if template not in TEMPLATES:
        raise unknown("template", template, TEMPLATES, where="--template")
    file, available = _write("method", name, template.replace("-", "_"), Path(into), force)
    others = [plain] if (plain := plain_method(available)) else []
    run = ["fer-bench", "run", name, *others, "--dataset", drawn_dataset(available), "--recipe", RECIPE]
    check = f"fer-bench check {shlex.quote(os.path.abspath(file))}"
    checks = [(check, "does it keep what every method must?")]
    _say_what_next(file, checks, shlex.join(run), "compare it with plain cross-entropy")


@new.command()
@click.argument("name")
@into_option
@force_option
def dataset(name: str, into: str, force: bool) -> None:
    """Write DIR/NAME.py, a data set, and DIR/tests/test_NAME.py, its tests.

    \b
    fer-bench new dataset labfaces --into my_datasets
    """
    file, available = _write("dataset", name, "dataset", Path(into), force)
    check = f"fer-bench check {shlex.quote(os.path.abspath(file))}"
    checks = [(check, "does its card hold together, and are wrong files refused?")]
    _say_what_next(file, checks, f"fer-bench show {name}", "its card, and the layout of the files that it reads")
    prepare = _with(f"fer-bench data prepare {name} --from FACES", file)
    click.echo(f"\n# with such files in the folder FACES\n{check} --from FACES\n{prepare}")
    if plain := plain_method(available):
        click.echo(_with(f"fer-bench run {plain} --dataset {name} --recipe {RECIPE}", file))


def rendered(kind: str, template: str, name: str) -> tuple[str, str]:
    """The text of a plug-in's file and of its tests.

    Parameters
    ----------
    kind : {"method", "dataset"}
    template : str
        Which file of ``templates/``, without ``.py``.
    name : str
        What the plug-in is called.
    """
    folder = Path(__file__).parent / "templates"
    texts = [(folder / f"{template}{end}.py").read_text(encoding="utf-8") for end in ("", "_test")]
    small, class_name, title = STAND_INS[kind]
    own = "".join(part.capitalize() for part in name.split("_"))
    if own in set(re.findall(r"\w+", texts[0])):
        own += class_name.removeprefix("New")  # `stage` must not hide the Stage that the file imports
    new_words = {small: name, class_name: own, title: name.replace("_", " ").strip().capitalize()}
    pattern = re.compile("|".join(map(re.escape, new_words)))
    first, second = (pattern.sub(lambda m: new_words[m[0]], text) for text in texts)
    return first, second


def _write(kind: str, name: str, template: str, into: Path, force: bool) -> tuple[Path, Plugins]:
    """Write both files; returns the plug-in's, and the plug-ins that there are beside it."""
    file, tests = into / f"{name}.py", into / "tests" / f"test_{name}.py"
    available = plugins([into] if into.is_dir() else [])
    _check(kind, name, {*_taken(available, file)})
    if there := [path for path in (file, tests) if path.exists() and not force]:
        again = f"{_typed()} --force"
        raise SpecError(f"there is a file {there[0]} already", hint="--force replaces it", next=again)
    for path, text in zip((file, tests), rendered(kind, template, name), strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        except OSError as error:
            raise SpecError(
                f"the file can't be written: {error.strerror}", where=str(path), hint="--into DIR"
            ) from error
    table([(str(file), f"the {WORDS[kind]}: its card and its class"), (str(tests), "its tests")])
    return file, available


def _taken(available: Plugins, file: Path) -> dict[str, str]:
    """Names that mean something else already, with where."""
    found: list[Plugin] = [*available.methods.values(), *available.datasets.values()]
    taken = {p.card.name: str(p.path) for p in found if p.path.resolve() != file.resolve()}
    return dict.fromkeys(available.variants(), "a variant's name") | taken


def _check(kind: str, name: str, taken: Collection[str]) -> None:
    """Raise SpecError for a name that a plug-in can't have, with the nearest one that it can."""
    why = _fault(name, taken)
    if not why:
        return
    near = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()[: LONGEST - 3] or kind
    while _fault(near, taken):
        near = f"my_{near}"
    again = shlex.join([near if word == name else word for word in shlex.split(_typed())])
    what = f"'{abbreviated(name)}' can't be the name of a new {WORDS[kind]}: {why}"
    raise SpecError(what, hint=f"'{near}' can", next=again)


def _fault(name: str, taken: Collection[str]) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return "it must consist of lower-case letters, digits and _, beginning with a letter"
    if len(name) > LONGEST:
        return f"it has {len(name)} characters, and {LONGEST} are the most"
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return "it is a word of Python"
    if name in (*FOLDERS, *NO_PLUGINS):
        return "it is that of a folder or file which is no plug-in"
    if name in sys.stdlib_module_names or _installed(name):
        return f"Python has a module of that name, and `import {name}` beside the file would find the file"
    return "another plug-in has it" if name in taken else ""


def _installed(name: str) -> bool:
    """Whether a library of this name is installed; a file in the current folder is not one."""
    found = PathFinder.find_spec(name, [path for path in sys.path if path and Path(path).resolve() != Path.cwd()])
    return found is not None and found.origin is not None


def _say_what_next(file: Path, checks: list[tuple[str, str]], last: str, why: str) -> None:
    """Print the commands to type next; they work as they are printed, in any folder."""
    tests = os.path.abspath(file.parent / "tests" / f"test_{file.stem}.py")
    install = [] if find_spec("pytest") else [("pip install pytest", "what its tests need")]
    steps = [*checks, *install, (f"pytest {shlex.quote(tests)}", "its tests"), (_with(last, file), why)]
    for command, comment in steps:
        click.echo(f"\n# {comment}\n{command}")


def _with(command: str, file: Path) -> str:
    return complete(command, plugins=[file.parent]) or command


def _typed() -> str:
    """The command line of this call."""
    return shlex.join(["fer-bench", *click.get_current_context().meta["fer_bench.typed"]])
