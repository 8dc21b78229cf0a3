"""Options shared by several commands, so that they are spelled and explained the same way."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fer_bench.base.memory import IMAGES
from fer_bench.contract.params import in_words, within
from fer_bench.errors import SpecError, UnknownNameError, abbreviated

if TYPE_CHECKING:
    from fer_bench.contract.cards import DatasetCard
    from fer_bench.contract.plugins import Plugins
    from fer_bench.launch.ray_cluster import Cluster, Share
    from fer_bench.runs.machine import Machine


class Number(click.ParamType):
    """A number given as an option, within a valid range (ends included)."""

    name = "number"

    def __init__(self, kind: type, low: float, high: float):
        self.kind, self.low, self.high = kind, low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; raises SpecError with the range for anything else."""
        given = f"{param.opts[0] if param else ''} {abbreviated(value)}".strip()
        accepted = f"accepted: {in_words(self.low, self.high)}"
        try:
            number = self.kind(value if len(str(value)) < 40 else "")
        except ValueError:
            kind = "a whole number" if self.kind is int else "a number"
            raise SpecError(f"{given} is not {kind}", hint=accepted) from None
        if not within(number, self.low, self.high):
            raise SpecError(f"{given} is out of range", hint=accepted)
        return number


def number_option(
    option: str, kind: type, low: float, high: float, help: str, *, default: Any = None, metavar: str = "N"
) -> Callable:
    """An option that takes a number within a range; the help states the range and the default."""
    ends = f"{in_words(low, high)}" + ("" if default is None else f"; default: {default}")
    return click.option(
        option, type=Number(kind, low, high), default=default, metavar=metavar, help=f"{help}  [{ends}]"
    )


def _remember(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Remember the given value, so that commands suggested by errors can repeat it."""
    context.meta[f"fer_bench.{option.name}"] = value
    return value


def home_option(command: Callable) -> Callable:
    """``--home DIR``."""
    text = "Folder that contains data/, ledger/ and results/  [default: $FER_BENCH_HOME or the current folder]"
    return click.option("--home", metavar="DIR", callback=_remember, help=text)(command)


def format_option(command: Callable) -> Callable:
    """``--format LIST``."""
    text = "Formats to write, separated by commas; existing files in other formats are kept."
    return click.option(
        "--format", "formats", default="md,html,tex,csv", show_default=True, metavar="LIST", help=text
    )(command)  # fmt: skip


def force_option(command: Callable) -> Callable:
    """``--force``."""
    text = "Also replace files in DIR that fer-bench did not write."
    return click.option("--force", is_flag=True, help=text)(command)


def replace_option(command: Callable) -> Callable:
    """``--force``, of a command that writes one file."""
    return click.option("--force", is_flag=True, help="Replace the file if it exists.")(command)


def check_new(file: str | None, *, force: bool, option: str = "--out") -> None:
    """Raise SpecError where the file to be written exists, unless it may be replaced."""
    if file is None or force or not os.path.lexists(file):
        return
    context = click.get_current_context()
    words, depth = context.meta["fer_bench.typed"], len(context.command_path.split()) - 1
    raise SpecError(
        "there is such a file already",
        where=file,
        hint=f"nothing was written; choose another file with {option}, or replace this one with --force",
        next=shlex.join(["fer-bench", *words[:depth], "--force", *words[depth:]]),
    )


def plugins_option(command: Callable) -> Callable:
    """``--plugins DIR``, repeatable."""
    text = "Folder with your own plug-ins; repeatable."
    return click.option(
        "--plugins", "plugin_dirs", metavar="DIR", multiple=True, callback=_remember, help=text
    )(command)  # fmt: skip


def device_option(command: Callable) -> Callable:
    """``--device NAME``."""
    text = "auto, cpu, cuda, cuda:1, ..."
    return click.option("--device", default="auto", metavar="NAME", show_default=True, help=text)(command)


def fit_option(command: Callable) -> Callable:
    """``--fit HOW``."""
    text = "How an image that is not square is made square: stretch, pad or crop  [default: as the run's data were]"
    return click.option("--fit", metavar="HOW", help=text)(command)


def tracking_option(command: Callable) -> Callable:
    """``--tracking-uri URI``."""
    text = "sqlite:///FILE or a server  [default: $MLFLOW_TRACKING_URI, or mlflow.db in the home folder]"
    return click.option("--tracking-uri", metavar="URI", help=text)(command)


_TRAINING = (
    click.option("--dataset", required=True, metavar="NAME", help="Data set; see `fer-bench list datasets`."),
    click.option("--dataset-set", multiple=True, metavar="NAME=VALUE", help="Parameter of the data set; repeatable."),
    click.option("--protocol", metavar="NAME", help="Split and selection protocol  [default: the data set's first]"),
    click.option("--imbalance", multiple=True, default=["natural"], metavar="PROFILE", show_default=True,
                 help="Thin the training fold: exp:RATIO, step:RATIO[:FRACTION], balanced:N; `run` accepts several."),
    number_option("--total", int, 1, 10**9, "Thin the training fold to N images in total."),
    click.option("--class-order", metavar="A,B,...", help="Classes from head to tail  [default: by frequency]"),
    click.option("--recipe", default="auto", metavar="NAME", show_default=True,
                 help="brief, demo, quick or full; auto: full with a GPU, quick without one."),
    click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE",
                 help="Recipe field, such as lr=0.05; repeatable; see `fer-bench list recipes`."),
    click.option("--epochs", metavar="N", help="Short for --set epochs=N."),
    click.option("--batch-size", metavar="N", help="Short for --set batch_size=N."),
    click.option("--precision", metavar="P", help="bf16, fp32 or auto (bf16 if fast)  [default: the recipe's]"),
    click.option("--backbone", metavar="NAME", help="Any timm model  [default: the recipe's]"),
    click.option("--pretrained/--no-pretrained", default=False, help="Start from timm's pretrained weights."),
    click.option("--select", metavar="METRIC",
                 help="Validation metric that selects the epoch: mean_recall, accuracy or macro_f1; or `last`"
                      "  [default: the protocol's, or mean_recall]"),
    device_option,
    click.option("--compile/--no-compile", "compile_", default=None, help="Use torch.compile  [default: on a GPU]"),
    click.option("--deterministic", is_flag=True, help="Use deterministic kernels only; slower."),
    number_option("--threads", int, 0, 256, "CPU threads; 0: let torch choose.", default=0),
    click.option("--images", type=click.Choice(IMAGES), default="auto", show_default=True,
                 help="Where the images are: in the device's memory, or streamed from disk; auto streams what would"
                      " take over half of the free memory. Results are bitwise the same."),
    tracking_option,
    click.option("--no-track", is_flag=True, help="Do not mirror to MLflow; `fer-bench track sync` does it later."),
    click.option("--quiet", is_flag=True, help="Do not show live progress."),
)  # fmt: skip


def training_options(command: Callable) -> Callable:
    """All options that describe how runs are trained, shared by `run` and `tune`."""
    for add in reversed(_TRAINING):
        command = add(command)
    return command


_STUDY = (
    number_option("--seeds", int, 1, 1000, "Seeds per method: 0 to N-1.", default=3),
    number_option("--subsets", int, 1, 100, "Draws of the training set that --imbalance thins: 0 to N-1.", default=1),
    number_option("--jobs", int, 1, 1000, "Runs at once. On this machine they share its cores (--threads 0), and its"
                  " GPUs or those that are named (--device cuda:0,cuda:1); default: 1, on a cluster what it has room"
                  " for."),
    click.option("--executor", default="local", metavar="WHERE", show_default=True,
                 help="local: runs are carried out on this machine; ray: on the nodes of a Ray cluster."),
    click.option("--ray-address", metavar="ADDRESS",
                 help="HOST:PORT, auto (the cluster of this machine) or local (start one)  [default: $RAY_ADDRESS, or"
                      " auto]"),
    number_option("--cpus-per-run", int, 1, 256, "Cores that each run takes of a Ray node, and its CPU threads;"
                  " default: 1."),
    number_option("--gpus-per-run", float, 0, 1, "GPU, or part of one, that each run takes of a Ray node; default: 1"
                  " if a node has one."),
    click.option("--no-wait", is_flag=True, help="Leave runs that other processes are training to those, and the report"
                 " to the one that ends last."),
    click.option("--folds", metavar="LIST", help="Folds of the protocol, such as 0,1 or 0-4  [default: all]"),
    click.option("--reference", metavar="METHOD", help="Method against which gains are measured"
                 "  [default: a baseline]"),
    click.option("--no-second-reference", is_flag=True,
                 help="Leave out the second reference: the reference's own logits, adjusted on validation"
                      " (no training)."),
    click.option("--tuned", is_flag=True, help="Use each method's best configuration from `fer-bench tune`."),
    click.option("--name", metavar="NAME", help="Name of the study  [default: derived from data set and methods]"),
    click.option("--replace", is_flag=True, help="Let --name replace another study of this name; its runs are kept."),
    plugins_option,
    home_option,
)  # fmt: skip


def study_options(command: Callable) -> Callable:
    """All options of a command that trains a study: those of training, and how many runs it has."""
    for add in reversed(_STUDY):
        command = add(command)
    return training_options(command)


def profiles_of(options: dict[str, Any]) -> list[str]:
    """The canonical texts of all requested imbalance profiles, without duplicates.

    Raises
    ------
    SpecError
        A profile is malformed.
    """
    from fer_bench.data.imbalance import with_options

    texts = (with_options(text, options["total"], options["class_order"]) for text in options["imbalance"])
    return list(dict.fromkeys(texts))


def template_of(options: dict[str, Any], plugins: Plugins, *, detect: bool = True) -> tuple[dict[str, Any], str]:
    """The fields that all runs of a study share, from the command's options, and the name of the recipe.

    Of several imbalance profiles, it contains the first. `detect` says whether to detect the hardware, which takes
    seconds the first time; without it, everything is checked as on a machine without a GPU.

    Raises
    ------
    UnknownNameError, SpecError
        A name does not exist, or a value is invalid.
    """
    from fer_bench.contract.backbone_names import check_backbone
    from fer_bench.data.own_data import dataset_card
    from fer_bench.record.home import Home
    from fer_bench.runs.spec import Selection
    from fer_bench.training.recipe import Recipe, preset

    card = dataset_card(plugins, options["dataset"], Home.find(options["home"]), typed=sys.argv[1:])
    by_hardware = options["recipe"] == "auto"
    name, chosen = preset(
        options["recipe"], has_gpu=detect and by_hardware and machine_of(options).has_gpu(options["device"])
    )
    given = _recipe_fields(options)
    if given.get("precision") == "auto":
        given["precision"] = fast_precision(options) if detect else "fp32"
    backbone = options["backbone"] or chosen.backbone
    check_backbone(backbone)
    protocol = card.protocol(options["protocol"])
    select = options["select"] or protocol.select or Selection.metric
    return {
        "dataset": card.name,
        "dataset_params": dataset_params(options, card),
        "protocol": protocol.name,
        "profile": profiles_of(options)[0],
        "backbone": backbone,
        "pretrained": options["pretrained"],
        "selection": Selection(rule="last") if select == "last" else Selection(metric=select),
        "recipe": Recipe.build(chosen.recipe, given),
    }, name


def _recipe_fields(options: dict[str, Any]) -> dict[str, Any]:
    """The recipe fields given by ``--set`` and its short forms."""
    from fer_bench.training.recipe import parse_assignments

    given: dict[str, Any] = parse_assignments(options["assignments"], "--set")
    for short in ("epochs", "batch_size", "precision"):
        if options[short] is None:
            continue
        if short in given:
            flag = f"--{short.replace('_', '-')}"
            raise SpecError(f"'{short}' is given twice", where=f"{flag} {options[short]}, --set {short}={given[short]}")
        given[short] = options[short]
    return given


def check_device(device: str, *, several: bool = False) -> None:
    """Raise UnknownNameError if this is not a device name; whether the machine has it is checked later.

    `several`: GPUs may be listed, separated by commas.
    """
    names = r"auto|cpu|mps|cuda(:\d{1,3})?" + (r"|cuda:\d{1,3}(,cuda:\d{1,3})+" if several else "")
    if not re.fullmatch(names, device):
        raise UnknownNameError(
            f"unknown device '{abbreviated(device)}'", where="--device", hint="auto, cpu, cuda, cuda:1"
        )


def dataset_params(options: dict[str, Any], card: DatasetCard) -> dict[str, Any]:
    """The data set's parameters: those given, else those of its store in the home, else the defaults.

    A built-in set always uses the defaults unless parameters are given.
    """
    from fer_bench.data.store import Store
    from fer_bench.errors import StoreError
    from fer_bench.record.home import Home
    from fer_bench.training.recipe import parse_assignments

    given = parse_assignments(options["dataset_set"], "--dataset-set")
    if not given and not card.built_in:
        with contextlib.suppress(StoreError):
            prepared = Store.open(Home.find(options["home"]).store(card.name), verify=False).manifest["params"]
            if set(prepared) == set(card.params):
                return prepared
    return card.resolve(given)


def machine_of(options: dict[str, Any]) -> Machine:
    """What the runs of a command compute on: this machine, or a node of its cluster."""
    from fer_bench.runs.machine import this_machine

    return cluster_of(options).machine(share_of(options)) if options.get("executor") == "ray" else this_machine()


def cluster_of(options: dict[str, Any]) -> Cluster:
    """The Ray cluster that a command names; raises ClusterError if it can't be reached."""
    from fer_bench.launch.ray_cluster import connect

    return connect(options["ray_address"])


def share_of(options: dict[str, Any]) -> Share:
    """What each run takes of a node; raises ClusterError if no node has as much."""
    from fer_bench.launch.ray_cluster import Share

    cluster, gpus = cluster_of(options), options["gpus_per_run"]
    if options["device"] == "cpu":
        gpus = 0.0
    elif gpus is None:
        gpus = float(cluster.has_gpus)
    share = Share(options["cpus_per_run"] or 1, gpus)
    cluster.require(share)
    return share


def fast_precision(options: dict[str, Any]) -> str:
    """bf16 if the hardware supports it natively, otherwise fp32."""
    return machine_of(options).fast_precision(options["device"])


def runtime_of(options: dict[str, Any]) -> Any:
    """The runtime settings from the command's options."""
    from fer_bench.training.job import Runtime

    return Runtime(
        device=options["device"],
        compile=options["compile_"],
        deterministic=options["deterministic"],
        threads=options["threads"],
        images=options["images"],
    )
