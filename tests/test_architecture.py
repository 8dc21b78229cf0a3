"""The rules of the source code, checked on its syntax trees."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import fer_bench

ROOT = Path(__file__).parents[1]
HARNESS = sorted((ROOT / "fer_bench").rglob("*.py"))
PLUGINS = sorted([*(ROOT / "methods").rglob("*.py"), *(ROOT / "datasets").rglob("*.py")])
CODE = [*HARNESS, *PLUGINS, *sorted((ROOT / "reports").rglob("*.py"))]
BESIDE = [p for folder in ("tests", "benchmarks", "docs", "examples") for p in sorted((ROOT / folder).rglob("*.py"))]


def inside(plugin: Path) -> tuple[str, ...]:
    """The place of a file below ``methods/`` or ``datasets/``."""
    return plugin.relative_to(ROOT).parts[1:]


FORMATS = ("csv", "folder", "parquet")  # data sets named after a form of files, which the harness must be able to say
WORDS = (*FORMATS, "arm")  # an ablation has arms; a method is called so as well
NAMES = [p.stem for p in PLUGINS if len(inside(p)) == 1 and not p.name.startswith("_") and p.stem not in WORDS]


def ids(path):
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def documented(tree: ast.Module):
    """Modules, classes and functions: what may have a docstring."""
    return [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]


def docstrings(tree: ast.Module) -> set[int]:
    first = [n.body[0] for n in documented(tree) if n.body]
    return {id(e.value) for e in first if isinstance(e, ast.Expr) and isinstance(e.value, ast.Constant)}


def words_of(tree: ast.Module):
    """(line, text) of every identifier and every string constant that is not a docstring."""
    about = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in about:
            yield node.lineno, node.value
        for name in ("id", "attr", "arg", "name", "module"):
            if isinstance(getattr(node, name, None), str):
                yield getattr(node, "lineno", 0), getattr(node, name)


@pytest.mark.parametrize("path", HARNESS, ids=ids)
def test_the_harness_names_no_method_and_no_dataset(path):
    pattern = re.compile(rf"\b({'|'.join(NAMES)})\b")
    assert [(line, text) for line, text in words_of(tree_of(path)) if pattern.search(text)] == []


def test_the_walk_would_find_a_name():
    tree = ast.parse('"""rasn in a docstring"""\nif method == "rasn":\n    from fer_bench.methods.rasn import RASN\n')
    assert {line for line, text in words_of(tree) if re.search(r"\brasn\b", text)} == {2, 3}


@pytest.mark.parametrize("path", PLUGINS, ids=ids)
def test_plugins_import_the_public_interface_and_their_siblings_only(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.split(".")[0] == "fer_bench"], f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.split(".")[0] == "fer_bench":
            assert node.module == "fer_bench", f"line {node.lineno}: {node.module} is not public"
            assert {a.name for a in node.names} <= set(fer_bench.__all__), f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert node.level <= len(inside(path)), f"line {node.lineno} leaves the folder"


def test_every_public_name_can_be_imported():
    for name in fer_bench.__all__:
        assert getattr(fer_bench, name) is not None
    assert not hasattr(fer_bench, "no_such_name")


TORCHLESS = (
    "stats.intervals",
    "stats.bootstrap",
    "record.ledger",
    "record.home",
    "record.lookup",
    "record.relabelled",
    "stats.image_means",
    "runs.spec",
    "data.imbalance",
    "data.image_files",
    "data.splits",
    "data.fold_rows",
    "training.recipe",
    "contract.cards",
    "contract.plugins",
    "stats.confusion",
    "stats.sampling",
    "stats.chance",
    "stats.crossed_errors",
    "stats.mcnemar",
    "stats.ranks",
    "stats.power",
    "stats.probabilities",
    "stats.class_groups",
    "stats.metrics",
    "base.names",
    "contract.params",
    "contract.backbone_names",
    "cli.preflight",
    "conformance.check",
    "cli.listing",
    "cli.show",
    "cli.new",
    "cli.claims",
    "cli.report",
    "cli.predict",
    "cli.explain",
    "reports",
    "reports.facts.phrases",
    "reports.render.markdown",
    "reports.sections.figures",
    "reports.sections.registry",
    "reports.pages.terminal",
    "reports.claims.published",
    "reports.claims.comparable",
    "reports.facts.tidy",
    "reports.pages.across",
)


def test_metrics_statistics_ledger_reports_and_listing_import_no_torch():
    modules = TORCHLESS
    program = f"""
import importlib, json, sys
heavy = {{}}
for name in {modules!r}:
    importlib.import_module("fer_bench." + name)
    heavy[name] = [m for m in ("torch", "timm", "mlflow") if m in sys.modules]
print(json.dumps(heavy))
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert json.loads(printed) == {name: [] for name in modules}


@pytest.mark.parametrize("path", HARNESS, ids=ids)
def test_everything_public_has_a_docstring(path):
    tree = tree_of(path)
    hidden = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f) if n is not f}
    hidden |= {id(n) for c in documented(tree) if getattr(c, "name", "").startswith("_") for n in ast.walk(c)}
    public = [n for n in documented(tree) if id(n) not in hidden and not getattr(n, "name", "").startswith("_")]
    assert [getattr(n, "name", "module") for n in public if not ast.get_docstring(n)] == []


@pytest.mark.parametrize("path", [*CODE, *BESIDE], ids=ids)
def test_files_and_functions_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    functions = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef)]
    assert [(n.name, n.end_lineno - n.lineno + 1) for n in functions if n.end_lineno - n.lineno >= 60] == []


TRAINING = [
    "--backbone",
    "--batch-size",
    "--class-order",
    "--compile",
    "--dataset",
    "--dataset-set",
    "--deterministic",
    "--device",
    "--epochs",
    "--home",
    "--images",
    "--imbalance",
    "--name",
    "--no-compile",
    "--no-pretrained",
    "--no-track",
    "--plugins",
    "--precision",
    "--pretrained",
    "--protocol",
    "--quiet",
    "--recipe",
    "--select",
    "--set",
    "--threads",
    "--total",
    "--tracking-uri",
    "methods",
]
STUDY = ["--folds", "--no-second-reference", "--reference", "--replace", "--seeds", "--subsets", "--tuned"]
STUDY += ["--jobs", "--no-wait", "--executor", "--ray-address", "--cpus-per-run", "--gpus-per-run"]
COMMANDS = {
    "run": sorted([*TRAINING, *STUDY]),
    "ablate": sorted([*(o for o in TRAINING if o != "methods"), *STUDY, "--arms", "method"]),
    "launch slurm": ["--force", "--jobs", "--output", "--partition", "--sbatch", "--time", "command"],
    "tune": sorted([*TRAINING, "--seed", "--trials"]),
    "report": ["--force", "--format", "--home", "--out", "--test-prior", "study"],
    "response": ["--force", "--format", "--home", "--out", "studies"],
    "compare": ["--force", "--format", "--home", "--out", "studies"],
    "predict": [
        "--batch-size",
        "--device",
        "--fit",
        "--force",
        "--format",
        "--home",
        "--out",
        "--plugins",
        "--quiet",
        "--test",
        "--top",
        "images",
        "run",
    ],
    "explain": [
        "--classes",
        "--device",
        "--fit",
        "--force",
        "--home",
        "--out",
        "--per-class",
        "--plugins",
        "--quiet",
        "images",
        "run",
    ],
    "relabel": ["--from", "--home", "--plugins", "study"],
    "claims": ["--all", "--csv", "--dataset", "--method"],
    "list": ["--dataset", "--family", "--home", "--method", "--plugins", "--status", "--study", "pattern", "what"],
    "show": ["--plugins", "name"],
    "new method": ["--force", "--into", "--template", "name"],
    "new dataset": ["--force", "--into", "name"],
    "check": ["--format", "--from", "--only", "--plugins", "--quick", "what"],
    "data check": [
        "--dataset-set",
        "--force",
        "--from",
        "--home",
        "--no-images",
        "--out",
        "--plugins",
        "--strict",
        "name",
    ],
    "data fetch": ["--home", "--plugins", "name"],
    "data prepare": ["--dataset-set", "--force", "--from", "--home", "--plugins", "name"],
    "data show": ["--force", "--home", "--out", "--per-class", "--plugins", "--seed", "--split", "name"],
    "data stats": ["--home", "--plugins", "name"],
    "track sync": ["--all", "--home", "--restore", "--timeout", "--tracking-uri", "study"],
    "ui": ["--home", "--host", "--port", "--tracking-uri"],
}


def commands(command: click.Command, path: str, context: click.Context):
    """(path, options and arguments) of a command and of those below it."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            yield from commands(child, f"{path} {name}".strip(), click.Context(child, parent=context))
        return
    yield path, sorted(o for p in command.params for o in ([*p.opts, *p.secondary_opts]))


def test_the_command_line_is_what_was_agreed():
    """Every command and option. A new one must be added here and in the documentation."""
    from fer_bench.cli import cli

    assert dict(commands(cli, "", click.Context(cli))) == COMMANDS
