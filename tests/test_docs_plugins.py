"""The pages on writing plug-ins: a reader who copies every block, in order, gets something that works."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.cli import main

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```(python|bash|toml|csv)\n(.*?)```", re.DOTALL)
PROGRAMS = {"python": [], "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"]}


def blocks(page: str, section: str = "") -> list[tuple[str, str]]:
    """Language and text of each block of a page, or of one of its sections, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return BLOCK.findall(text.partition(f"\n## {section}\n")[2].partition("\n## ")[0] if section else text)


class Reader:
    """Somebody in an empty folder who follows a page: saves each file under its first line, types each command.

    `fer-bench` runs in this process, which has paid for its imports; the other programs run in their own.
    """

    def __init__(self, place: Path, capfd: pytest.CaptureFixture[str]):
        self.place, self.capfd = place, capfd
        self.output: dict[str, str] = {}

    def follow(self, page: str, section: str = "", *, short: dict[str, list[str]] | None = None) -> None:
        """Do what a page says; `short` adds options to commands that begin with a key, to save time."""
        for language, text in blocks(page, section):
            if text.startswith("# from "):
                self.look(text)
            elif language in ("python", "csv"):
                self.save(text)
            elif language == "bash":
                for line in text.strip().splitlines():
                    self.type(line, short or {})

    def look(self, text: str) -> None:
        """A block that shows a part of a file which a command has written."""
        first, _, rest = text.partition("\n")
        assert rest in (self.place / first.removeprefix("# from ").strip()).read_text(encoding="utf-8")

    def save(self, text: str) -> None:
        first, _, rest = text.partition("\n")
        assert first.startswith("# "), f"a block does not say which file it is: {first}"
        path = self.place / first.removeprefix("# ").strip()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if path.suffix == ".py" else rest, encoding="utf-8")

    def type(self, line: str, short: dict[str, list[str]]) -> None:
        program, *words = shlex.split(line, comments=True)
        if program == "pip":  # what it asks for is what runs these tests
            assert words == ["install", "pytest"]
            return
        more = [option for start, options in short.items() if line.startswith(start) for option in options]
        of_page = {f"--dataset-set={word.partition('=')[0]}" for word in words}  # the page's own value stands
        more = [option for option in more if option.rpartition("=")[0] not in of_page]
        code, output = self.call(*words, *more) if program == "fer-bench" else self.run(*PROGRAMS[program], *words)
        assert code == 0, f"{line}\n{output}"
        self.output[line] = output

    def run(self, *words: str) -> tuple[int, str]:
        """Python in a process of its own."""
        done = subprocess.run([sys.executable, *words], cwd=self.place, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def call(self, *words: str) -> tuple[int, str]:
        """The command line, which meets the page's files as they are now."""
        for name in [name for name in sys.modules if name.startswith("fer_bench_plugins_")]:
            del sys.modules[name]
        self.capfd.readouterr()
        with contextlib.chdir(self.place), pytest.raises(SystemExit) as caught:
            main(list(words))
        said = self.capfd.readouterr()
        return caught.value.code, said.out + said.err


@pytest.fixture
def reader(tmp_path, capfd, monkeypatch) -> Reader:
    """Whose home is the folder that they work in."""
    monkeypatch.setenv("FER_BENCH_HOME", str(tmp_path))
    return Reader(tmp_path, capfd)


@pytest.fixture(scope="module")
def quick() -> dict[str, list[str]]:
    """What makes the trainings of the pages short."""
    data = ["--dataset-set=size=200", "--dataset-set=least_test=0", "--dataset-set=image_size=24"]
    plain = [*data, "--threads", "1", "--no-track", "--quiet"]
    study = [*plain, "--seeds", "1"]
    return {"fer-bench run": study, "fer-bench ablate": study, "fer-bench tune": plain, "fer-bench check": ["--quick"]}


def test_every_block_of_the_page_on_methods_works(reader, tmp_path, quick):
    import fer_bench

    reader.follow("docs/methods.md", short=quick)
    runs = fer_bench.results(tmp_path).drop_duplicates("run")
    expected = {"logit_adjusted", "logit_adjusted[tau=0.5]", "baseline_resnet", "root_sampling", "plain_mixup"}
    expected |= {"effective_number", "classifier_retraining", "logistic_readout", "logit_adjust_posthoc"}
    expected |= {"agreeing_views", "flat_minima", "two_parts", "two_parts[power=0.0]"}
    assert set(runs.method) == expected
    assert not (runs.transductive | runs.blocked).any()
    assert " kept" in reader.output["fer-bench check my_methods/logit_adjusted.py"]
    assert any("3 passed" in output for output in reader.output.values())


def test_the_readme_leads_from_an_idea_to_a_report(reader, tmp_path, quick):
    reader.follow("README.md", "Your own method", short=quick)
    assert any("3 passed" in output for output in reader.output.values())
    (page,) = (tmp_path / "results").glob("*/report.md")
    assert "rare_first" in page.read_text(encoding="utf-8")


LOOKING = """from fer_bench import Insight, Method, MethodCard

card = MethodCard(name="looking", title="Looking", changes="nothing")


class Looking(Method):
    card = card

"""


def test_every_block_of_the_page_on_faces_of_ones_own_works(reader, tmp_path, quick):
    (tmp_path / "faces").mkdir()
    for k, name in enumerate(("one.png", "two.jpg")):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / name)
    hook = next(text for language, text in blocks("docs/predict.md") if text.startswith("# from looking.py"))
    (tmp_path / "looking.py").write_text(LOOKING + hook.partition("\n")[2])
    reader.follow("docs/predict.md", short={"fer-bench run": [*quick["fer-bench run"], "--epochs", "1"]})
    assert "happy" in reader.output["python predict_faces.py"]
    assert len((tmp_path / "faces.csv").read_text().splitlines()) == 3
    for page in ("dan-test", "dan-faces"):
        assert "head 4" in (tmp_path / page / "README.md").read_text(encoding="utf-8")
        assert (tmp_path / page / "index.html").stat().st_size > 10_000
    assert "| brows | eyes | nose | mouth |" in (tmp_path / "dan-test" / "README.md").read_text(encoding="utf-8")
    _, said = reader.call("check", "looking.py", "--only", "insight")
    assert "map 'energy', shares" in said


def test_every_block_of_the_page_on_data_sets_works_and_errors_are_as_shown(reader, tmp_path):
    reader.follow(
        "docs/datasets.md", short={"fer-bench run": ["--seeds", "1", "--threads", "1", "--no-track", "--quiet"]}
    )
    assert "match the card" in reader.output["fer-bench data stats labfaces --plugins my_datasets"]
    assert (tmp_path / "labfaces.png").stat().st_size > 1000
    assert any("2 passed" in output for output in reader.output.values())
    table = tmp_path / "faces" / "labels.csv"
    rows = table.read_text().splitlines()
    rows[2], rows[4] = rows[2].replace(",neutral,", ",hapy,"), "gone.png,happy,p00,train"
    table.write_text("\n".join(rows) + "\n")
    code, output = reader.call("data", "prepare", "labfaces", "--from", "faces", "--plugins", "my_datasets")
    assert code == 1, output
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    expected = re.search(r"```text\n(2 problems.*?)```", text, re.DOTALL)[1].strip().splitlines()
    assert [line for line in expected if line not in output] == [], output


def test_the_table_of_hooks_names_every_hook_of_the_contract():
    from fer_bench import Method

    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    table = text.partition("## All hooks")[2]
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)\(", row)
    }
    hooks = {name for name, value in vars(Method).items() if callable(value) and not name.startswith("_")}
    assert listed == hooks


def test_the_table_of_the_card_names_every_field_and_family():
    from dataclasses import fields

    from fer_bench import MethodCard
    from fer_bench.contract.cards import FAMILIES

    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    card = text.partition("### The card")[2].partition("Each parameter")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", card, re.MULTILINE)
    assert {name for cell, _ in rows for name in re.findall(r"`(\w+)`", cell)} == {f.name for f in fields(MethodCard)}
    assert re.findall(r"`([\w -]+)`", dict(rows)["`family`"]) == list(FAMILIES)
