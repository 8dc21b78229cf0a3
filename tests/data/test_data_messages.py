"""What the data commands say, and that every command they tell to type works as it is printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.cli import main
from fer_bench.contract.dataset import HELP, Problems
from fer_bench.contract.plugins import plugins
from fer_bench.data import pictures
from fer_bench.data.prepare import prepare
from fer_bench.data.splits import protocol_that_fits
from fer_bench.data.store import Store
from fer_bench.errors import DataError
from fer_bench.record.home import Home

RNG = np.random.default_rng(0)
SHORT = "--recipe demo --epochs 1 --set batch_size=8 --seeds 1 --device cpu --precision fp32 --no-track --quiet"


def draw(path: Path, width: int = 12, height: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width), dtype=np.uint8)).save(path)


def faces(root: Path, form: str, images: int = 20) -> Path:
    """So many images of two classes; `form` is a path with {name}, {part} and {k} in it."""
    for k in range(images):
        part = "test" if k % 4 > 1 else "train"
        draw(root / form.format(name=("happy", "sad")[k % 2], part=part, k=k))
    return root


@pytest.fixture
def typed(capfd, monkeypatch, tmp_path):
    """``typed("fer-bench ...")`` runs a command as a person types it, in a folder of its own: code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER_BENCH_HOME", raising=False)

    def run(command: str):
        words = shlex.split(command)
        assert words[0] == "fer-bench"
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as caught:
            main(words[1:])
        out, err = capfd.readouterr()
        return caught.value.code, out, err

    return run


def command_in(text: str) -> str:
    """The command that a message tells to type."""
    return re.findall(r"(?:next|pixels): +(fer-bench .+)", text)[-1]


# -- the order of labels ---------------------------------------------------------------------------------------------

EXPW = {  # a three hundredth of the published numbers
    "angry": 12,
    "disgust": 13,
    "fear": 4,
    "happy": 102,
    "sad": 35,
    "surprise": 24,
    "neutral": 116,
}


def numbered(root: Path, order: list[str]) -> Path:
    lines = []
    for number, name in enumerate(order):
        for k in range(EXPW[name]):
            draw(root / "images" / f"{name}{k}.png", 4, 4)
            lines.append(f"{name}{k}.png {number}")
    (root / "label.lst").write_text("\n".join(lines))
    return root


def names_and_classes(store: Store) -> set[tuple[str, str]]:
    table = store.columns("source", "label")
    sources = [re.sub(r"\d*\.png", "", name) for name in table["source"].tolist()]
    return {(s, store.classes[k]) for s, k in zip(sources, table["label"], strict=True)}


@pytest.mark.parametrize("home", ["", " --home elsewhere"])
def test_labels_in_another_order_warn_until_the_printed_command_is_typed(typed, tmp_path, home):
    numbered(tmp_path / "my faces", sorted(EXPW))
    code, out, _ = typed(f"fer-bench data prepare expw --from 'my faces'{home}")
    assert code == 0
    assert "labels are read as 0 = angry (12 images), 1 = disgust (13 images), 2 = fear (4 images)" in out
    assert "WARNING: The labels look alphabetical" in out
    again = command_in(out)
    assert again.endswith(home.replace("elsewhere", str(tmp_path / "elsewhere")))
    _, stats, _ = typed(f"fer-bench data stats expw{home}")
    assert "read as 0 = angry (12 images)" in stats
    assert "WARNING: The labels look alphabetical" in stats
    _, checked, _ = typed(f"fer-bench data check expw --no-images{home}")
    assert re.search(r"error +The labels look alphabetical", checked)
    assert "classes=angry,disgust,fear,happy,neutral,sad,surprise" in command_in(checked)
    assert "WARNING" in typed(again.replace("neutral,sad", "sad,neutral"))[1]
    code, out, _ = typed(again)
    assert (code, "WARNING" in out) == (0, False)
    assert "4 = neutral (116 images), 5 = sad (35 images), 6 = surprise (24 images)" in out
    root = tmp_path / "elsewhere" if home else tmp_path
    assert names_and_classes(Store.open(Home(root).store("expw"))) == {(name, name) for name in EXPW}
    assert "The labels look" not in typed(f"fer-bench data check expw --no-images{home}")[1]


def test_the_official_order_gives_no_warning_and_a_store_in_use_warns_again(typed, tmp_path):
    numbered(tmp_path / "right", list(EXPW))
    numbered(tmp_path / "wrong", sorted(EXPW))
    assert "WARNING" not in typed("fer-bench data prepare expw --from right")[1]
    for _ in range(2):
        _, out, _ = typed("fer-bench data prepare expw --from wrong")
        assert "WARNING: The labels look alphabetical" in out
    assert "up to date" in out


# -- names of data sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["data prepare smile", "data check smile", "data stats smile"])
def test_a_folder_of_that_name_is_prepared_by_the_printed_command(typed, tmp_path, command):
    faces(tmp_path / "data" / "raw" / "smile", "{name}/{k}.png")
    code, _, err = typed(f"fer-bench {command}")
    assert (code, err.startswith("error: unknown dataset 'smile'")) == (1, True)
    assert command_in(err) == f"fer-bench data prepare folder:smile --from {tmp_path}/data/raw/smile"
    assert typed(command_in(err))[0] == 0
    code, _, err = typed("fer-bench data stats smile")
    assert command_in(err) == "fer-bench data stats folder:smile"
    assert typed(command_in(err))[0] == 0


def test_the_reader_that_knows_the_files_is_proposed(typed, tmp_path):
    faces(tmp_path / "lab", "images/{k}.png")
    rows = [f"{k}.png,{('calm', 'cross')[k % 2]}" for k in range(20)]
    (tmp_path / "lab" / "labels.csv").write_text("\n".join(["image,label", *rows]))
    _, _, err = typed("fer-bench data stats lab")
    assert command_in(err) == "fer-bench data prepare csv:lab --from lab"
    assert typed(command_in(err))[0] == 0


def test_a_run_on_ones_own_images_gets_there_by_the_printed_commands_alone(typed, tmp_path):
    faces(tmp_path / "data" / "raw" / "smile", "{name}/{k}.png")
    _, _, err = typed(f"fer-bench run baseline_resnet --dataset smile {SHORT}")
    assert typed(command_in(err))[0] == 0
    _, _, err = typed(f"fer-bench run baseline_resnet --dataset smile {SHORT}")
    assert "--dataset folder:smile" in command_in(err)
    code, out, err = typed(command_in(err))
    assert code == 0, err
    assert "protocol folder:smile/random60-20-20: 1 random division into 60/20/20 %" in out
    assert "folder:smile/given can't be used" in out


def test_a_typo_names_the_nearest_set_and_a_strange_name_tells_how_ones_own_are_read(typed):
    _, _, err = typed("fer-bench data prepare rafbd")
    assert "did you mean 'rafdb'?" in err
    assert typed(command_in(err))[0] == 0
    _, _, err = typed("fer-bench data prepare mine")
    assert command_in(err) == "fer-bench data prepare folder:mine --from PATH"


@pytest.mark.parametrize(("name", "source"), [("synthetic", ""), ("rafdb", " --from PATH")])
def test_a_set_that_is_not_prepared_tells_how_to(typed, name, source):
    _, _, err = typed(f"fer-bench data stats {name}")
    assert command_in(err) == f"fer-bench data prepare {name}{source}"


@pytest.mark.parametrize(
    "command", ["data prepare folder:lab --from lab", f"run baseline_resnet --dataset folder:lab {SHORT}"]
)
def test_an_unknown_parameter_leads_to_the_card(typed, tmp_path, command):
    faces(tmp_path / "lab", "{name}/{k}.png")
    assert typed("fer-bench data prepare folder:lab --from lab")[0] == 0
    _, _, err = typed(f"fer-bench {command} --dataset-set sizee=3")
    assert "did you mean 'size'?" in err
    code, out, _ = typed(command_in(err))
    assert (code, "largest side in pixels" in out) == (0, True)


# -- folders ---------------------------------------------------------------------------------------------------------


def test_class_folders_one_level_deeper_are_read_by_the_printed_command(typed, tmp_path):
    faces(tmp_path / "lab", "{name}/s{k}/face.png")
    code, _, err = typed("fer-bench data prepare folder:lab --from lab")
    assert (code, "the images lie one folder deeper" in err) == (1, True)
    assert "if happy/, sad/ are the classes" in err
    code, out, _ = typed(command_in(err))
    assert (code, "happy (10 images), sad (10 images)" in out) == (0, True)
    _, _, unknown = typed("fer-bench data prepare other --from lab")
    assert typed(command_in(unknown))[0] == 0


def test_folders_in_a_class_folder_below_a_split_are_told_what_reads_them(typed, tmp_path):
    faces(tmp_path / "lab", "{part}/{name}/s{k}/face.png")
    code, _, err = typed("fer-bench data prepare folder:lab --from lab")
    assert code == 1
    code, out, _ = typed(command_in(err))
    assert (code, "happy (10 images), sad (10 images)" in out) == (0, True)
    faces(tmp_path / "lab", "{part}/{name}/{k}.png")
    _, _, err = typed("fer-bench data prepare folder:some --from lab")
    assert "--dataset-set nested=true" in err


def test_faults_are_listed_by_the_printed_command(typed, tmp_path):
    faces(tmp_path / "lab", "{part}/{name}/{k}.png")
    (tmp_path / "lab" / "train" / "happy" / "notes.txt").write_text("x")
    (tmp_path / "lab" / "train" / "sad" / "cut.png").write_bytes(b"\x89PNG")
    code, _, err = typed("fer-bench data prepare folder:lab --from lab")
    assert code == 1
    assert "mend" not in err
    assert "files that are not images: move them out of the class folders" in err
    assert "unreadable images: fetch these files anew" in err
    assert command_in(err) == "fer-bench data check folder:lab --from lab"
    code, out, _ = typed(command_in(err))
    assert (code, "Unreadable and left out: 2 files or rows of the source" in out) == (0, True)


def test_every_help_is_for_a_kind_of_problem_that_a_reader_tells():
    readers = [Path(plugins().datasets["folder"].path).parent, Path(pictures.__file__).parent]
    sources = "\n".join(p.read_text() for folder in readers for p in folder.rglob("*.py"))
    assert [kind for kind in HELP if f'"{kind}' not in sources] == []


def test_problems_without_a_known_help_ask_for_a_correction():
    problems = Problems()
    problems.add("labels.txt", 3, "something else: 7")
    with pytest.raises(DataError, match="correct what is named above, or take a fresh copy of the data"):
        problems.raise_if_any()


# -- one large image -------------------------------------------------------------------------------------------------


def test_one_large_photo_is_named_and_the_printed_command_makes_the_store_small(typed, tmp_path):
    faces(tmp_path / "lab", "{name}/{k}.png")
    draw(tmp_path / "lab" / "sad" / "photo.png", 300, 200)
    _, out, _ = typed("fer-bench data prepare folder:lab --from lab")
    warning = "1 image is larger than 12 pixels, the other 20 are not. The largest, lab/sad/photo.png (300x200)"
    assert warning in out
    assert "every image in the store 300 pixels wide: 2 MB instead of 3 kB" in out  # 21 x 300 x 300, 21 x 12 x 12
    code, out, _ = typed(command_in(out))
    assert (code, "WARNING" in out) == (0, False)
    assert Store.open(Home(tmp_path).store("folder:lab")).shape == (1, 12, 12)


@pytest.mark.parametrize("sides", [[12] * 30 + [24], range(12, 200), [12] * 10 + [300] * 3])
def test_images_of_mixed_sizes_give_no_warning(typed, tmp_path, sides):
    for k, side in enumerate(sides):
        draw(tmp_path / "lab" / ("happy", "sad")[k % 2] / f"{k}.png", side, side)
    assert "WARNING" not in typed("fer-bench data prepare folder:lab --from lab")[1]


# -- protocols -------------------------------------------------------------------------------------------------------


def fitting(tmp_path: Path, form: str, images: int = 40, **params) -> str | None:
    dataset = plugins().dataset("folder", params)
    store = prepare(Home(tmp_path), dataset, faces(tmp_path / "raw", form, images), say=lambda line: None)
    chosen = protocol_that_fits(store, dataset.card)
    return chosen.name if chosen else None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "params", "name"),
    [
        ("{name}/{k}.png", {}, "random60-20-20"),
        ("{name}/p{k}.png", {"subject": r"^(p\d+)"}, "subject10"),
        ("{part}/{name}/{k}.png", {}, "holdout10"),
        ("{part}/{name}/p{k}.png", {"subject": r"^(p\d+)"}, "holdout10"),
    ],
)
def test_the_protocol_that_fits_is_found(tmp_path, form, params, name):
    assert fitting(tmp_path, form, **params) == name


def test_a_set_with_all_parts_keeps_its_first_protocol(tmp_path):
    faces(tmp_path / "raw", "val/{name}/{k}.png")
    assert fitting(tmp_path, "{part}/{name}/{k}.png") is None


# -- a reader that goes away -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["data prepare folder:lab --from lab", "list methods", f"run baseline_resnet --dataset folder:other {SHORT}"],
)
def test_a_closed_pipe_is_no_fault_of_the_data(typed, tmp_path, command):
    faces(tmp_path / "lab", "{name}/{k}.png")
    assert typed("fer-bench data prepare folder:other --from lab")[0] == 0
    program = [sys.executable, "-c", "from fer_bench.cli import main; main()", *shlex.split(command)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
    assert not list(tmp_path.glob("ledger/*/failed.json"))
