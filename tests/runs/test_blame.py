"""Which line is named when a method raises, in a checkout, in an installed package, and with ``--plugins``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fer_bench
from fer_bench.contract.plugins import plugins
from fer_bench.runs.blame import Owner, frame_to_blame, owner_of, owners

ROOT = Path(fer_bench.__file__).resolve().parent
SITE = Path(sysconfig.get_path("purelib"))
LIBRARY = SITE / "torch/nn/functional.py"


def raised_in(*files: Path) -> Exception:
    """An exception whose traceback goes through functions of these files, outermost first."""
    names: dict[str, object] = {"deeper": lambda: 1 / 0}
    for file in reversed(files):
        code = f"def frame(deeper):\n    deeper()\n\ndef {file.stem.strip('_')}_of():\n    frame(inner)\n"
        namespace = {"inner": names["deeper"]}
        exec(compile(code, str(file), "exec"), namespace)
        names["deeper"] = namespace[f"{file.stem.strip('_')}_of"]
    try:
        names["deeper"]()  # type: ignore[operator]
    except ZeroDivisionError as error:
        return error
    raise AssertionError


def blamed(plugin: Path, *files: Path) -> Path | None:
    frame = frame_to_blame(raised_in(ROOT / "runs/worker.py", ROOT / "training/fit.py", *files), plugin)
    return Path(frame.filename) if frame else None


def test_a_built_in_method_of_this_checkout_is_blamed_and_so_are_its_shared_files():
    method = plugins().method("baseline_focal").path
    helper = method.parent / "_shared/losses.py"
    assert blamed(method, method, LIBRARY) == method
    assert blamed(method, method, helper, LIBRARY) == helper


def test_another_built_in_plugin_that_a_method_derives_from_is_blamed(tmp_path: Path):
    base = plugins().method("baseline_focal").path
    assert blamed(tmp_path / "own.py", base, LIBRARY) == base


def test_a_method_of_a_given_folder_is_blamed_with_the_files_below_the_folder(tmp_path: Path):
    method, helper = tmp_path / "own.py", tmp_path / "_parts/heads.py"
    assert blamed(method, method, ROOT / "contract/backbones.py", LIBRARY) == method
    assert blamed(method, method, helper, LIBRARY) == helper


def test_a_folder_that_is_given_through_a_link_is_recognised(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert blamed(tmp_path / "link/own.py", tmp_path / "real/own.py") == tmp_path / "real/own.py"


def test_an_error_of_the_harness_blames_nobody(tmp_path: Path):
    assert blamed(tmp_path / "own.py", LIBRARY) is None
    assert blamed(tmp_path / "own.py", ROOT / "training/optim.py", LIBRARY) is None
    assert blamed(tmp_path / "own.py", ROOT.parent / "reports/render/table.py") is None


@pytest.mark.parametrize("name", ["method.py", "batch.py"])
def test_the_default_of_a_hook_is_named_where_it_was_given_something_unusable(tmp_path: Path, name: str):
    hooks = ROOT / "contract" / name
    assert blamed(tmp_path / "own.py", hooks, LIBRARY) == hooks
    assert blamed(tmp_path / "own.py", hooks, ROOT / "training/plain.py") is None, "the harness fails inside a default"


def test_a_folder_that_holds_the_harness_or_a_virtual_environment_owns_neither(tmp_path: Path):
    method = ROOT.parent / "own.py"  # --plugins with the checkout's own folder
    folders = owners(method)
    assert owner_of(str(ROOT / "training/fit.py"), method, folders) is Owner.HARNESS
    assert owner_of(str(ROOT.parent / "own_helper.py"), method, folders) is Owner.PLUGIN
    library = tmp_path / "venv/lib/python3.12/site-packages/torch/nn/functional.py"
    assert owner_of(str(library), tmp_path / "own.py", owners(tmp_path / "own.py")) is Owner.LIBRARY


def test_a_plugin_of_one_file_in_site_packages_does_not_own_the_libraries_beside_it():
    method = SITE / "own_method.py"
    assert blamed(method, method, LIBRARY) == method
    assert owner_of(str(LIBRARY), method, owners(method)) is Owner.LIBRARY


def test_code_without_a_file_belongs_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert owner_of("<string>", tmp_path / "own.py", owners(tmp_path / "own.py")) is None


def test_in_an_installed_package_the_plugins_inside_its_root_are_still_plugins(tmp_path: Path):
    """The four source folders copied as a wheel lays them out: methods and data sets lie in the package's folder."""
    package = tmp_path / "site-packages/fer_bench"
    python_only = shutil.ignore_patterns("__pycache__", "*.toml", "templates")
    shutil.copytree(ROOT, package, ignore=python_only)
    for folder in ("methods", "datasets", "reports"):
        shutil.copytree(ROOT.parent / folder, package / folder, ignore=python_only)
    check = f"""
import sys
sys.path.insert(0, {str(package.parent)!r})
from pathlib import Path
import fer_bench
from fer_bench.runs.blame import owner_of, owners
root = Path(fer_bench.__file__).parent
assert root == Path({str(package)!r}), root
method = root / "methods/baseline_focal.py"
folders = owners(method)
for file in ("methods/baseline_focal.py", "methods/_shared/losses.py", "datasets/fer2013.py", "runs/worker.py",
             "contract/method.py", "reports/render/table.py", "../torch/nn/functional.py"):
    print(file, owner_of(str(root / file), method, folders).name)
"""
    done = subprocess.run([sys.executable, "-S", "-P", "-c", check], capture_output=True, text=True)

    assert done.stderr == ""
    assert dict(line.split() for line in done.stdout.splitlines()) == {
        "methods/baseline_focal.py": "PLUGIN",
        "methods/_shared/losses.py": "PLUGIN",
        "datasets/fer2013.py": "PLUGIN",
        "runs/worker.py": "HARNESS",
        "contract/method.py": "HARNESS",
        "reports/render/table.py": "HARNESS",
        "../torch/nn/functional.py": "LIBRARY",
    }
