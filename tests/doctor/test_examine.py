"""The doctor: every injected fault is found, a clean set is left in peace, and page and manifest come out the same."""

import base64
import dataclasses
import importlib.util
import os
import re
import shlex
from html import escape
from math import comb
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter

from fer_bench import Chunk, DatasetCard, Param, Problems, Protocol, Reading
from fer_bench.cli import cli
from fer_bench.cli.data_check import check
from fer_bench.cli.progress import Steps
from fer_bench.contract.plugins import plugins
from fer_bench.data.clean_manifest import load_clean
from fer_bench.data.store import write_store
from fer_bench.doctor.examine import Diagnosis, examine
from fer_bench.errors import FerBenchError
from fer_bench.record.home import Home
from fer_bench.reports.pages.doctor import write_page
from fer_bench.reports.render.page_folder import CHECK, Target

CLASSES = ("sad", "happy", "angry", "neutral")
COUNTS = {"train": (20, 60, 35, 5), "val": (6, 16, 8, 3), "test": (8, 15, 9, 2)}
CARD = DatasetCard(
    name="toy",
    title="Toy faces",
    classes=CLASSES,
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),),
    counts=COUNTS,
    licence="toys are free",
)


@dataclasses.dataclass
class World:
    """A small data set, to be harmed before it is stored; rows are in order of split, then class."""

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    subject: list[str] | None = None
    extra: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def sound(cls) -> "World":
        labels = np.concatenate([np.repeat(np.arange(4), c) for c in COUNTS.values()])
        split = np.repeat(list(COUNTS), [sum(c) for c in COUNTS.values()])
        noise = np.random.default_rng(0).normal(size=(len(labels), 48, 48))
        smooth = sum(s * gaussian_filter(noise, (0, s, s)) for s in (1, 2, 4, 7))
        return cls(np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)[:, None], labels, split)

    def without(self, rows: np.ndarray) -> "World":
        keep = np.setdiff1d(np.arange(len(self.labels)), rows)
        return World(self.images[keep], self.labels[keep], self.split[keep])

    def store(self, folder: Path, card: DatasetCard = CARD, **survey):
        chunk = Chunk(
            images=self.images,
            labels=self.labels,
            split=self.split.tolist(),
            source=[str(k) for k in range(len(self.labels))],
            subject=self.subject,
            extra=self.extra,
        )
        reading = Reading(layout="drawn", summary="", files=[], chunks=lambda: iter([chunk]), survey=survey)
        return write_store(folder, card, reading, {}, {})

    def examined(self, folder: Path, card: DatasetCard = CARD, **options) -> Diagnosis:
        return examine(self.store(folder, card), card, **options)


def problems(diagnosis: Diagnosis) -> set[str]:
    """Kinds of the errors and warnings."""
    return {f.kind for f in diagnosis.findings if f.level != "note"}


def test_sound_data_give_no_error_and_no_warning(tmp_path):
    diagnosis = World.sound().examined(tmp_path)
    assert problems(diagnosis) == set()
    assert diagnosis.verdict == "0 errors, 0 warnings"
    assert {f.kind for f in diagnosis.findings} == {"labels", "counts-match", "imbalance"}
    assert diagnosis.dropped == ()


def test_exact_duplicates_are_found_within_across_and_with_conflicting_labels(tmp_path):
    world = World.sound()
    world.images[1] = world.images[0]  # both sad, both train
    world.images[125] = world.images[2]  # sad in val and in train
    world.images[153] = world.images[3]  # test and train
    world.images[100] = world.images[30]  # happy and angry in train
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("exact").groups == ((0, 1), (2, 125), (3, 153), (30, 100))
    assert diagnosis.of_kind("exact-across").groups == ((2, 125), (3, 153))
    assert diagnosis.of_kind("exact-across").detail == (
        "1 image of val has a copy in train",
        "1 image of test has a copy in train",
        "to leave them out: --protocol toy/dedup",
    )
    assert diagnosis.of_kind("exact-conflict").groups == ((30, 100),)
    assert diagnosis.conflicts == {("happy", "angry"): 1}
    assert problems(diagnosis) == {"exact-across", "exact-conflict"}
    assert diagnosis.dropped == (
        (1, "duplicate of row 0", 0),
        (2, "duplicate of row 125", 125),
        (3, "duplicate of row 153", 153),
        (30, "conflicting labels", None),
        (100, "conflicting labels", None),
    )


def test_the_protocol_that_is_advised_fits_the_splits_there_are(tmp_path):
    world = World.sound()
    world.images[153] = world.images[3]
    world = world.without(np.flatnonzero(world.split == "val"))
    holdout = Protocol(name="holdout10", train=("train",), test=("test",), holdout=0.1)
    card = dataclasses.replace(CARD, protocols=(*CARD.protocols, holdout))
    detail = world.examined(tmp_path / "a", card).of_kind("exact-across").detail
    assert detail[-1] == "to leave them out: --protocol toy/holdout10-dedup"
    assert world.examined(tmp_path / "b").of_kind("exact-across").detail == ("1 image of test has a copy in train",)


def test_near_duplicates_are_found_with_their_splits_and_labels(tmp_path):
    world = World.sound()
    world.images[1, 0] = np.rint(gaussian_filter(world.images[0, 0].astype(float), 1))
    world.images[165, 0] = np.roll(world.images[3, 0], (2, -1), (0, 1))  # happy in test, sad in train
    diagnosis = world.examined(tmp_path)
    assert list(zip(diagnosis.near.first, diagnosis.near.second, strict=True)) == [(0, 1), (3, 165)]
    assert diagnosis.of_kind("near").groups == ((0, 1), (3, 165))
    assert diagnosis.of_kind("near-across").groups == ((3, 165),)
    assert diagnosis.of_kind("near-conflict").groups == ((3, 165),)
    assert problems(diagnosis) == {"near-across", "near-conflict"}
    assert [row for row, _, _ in diagnosis.dropped] == [1, 3, 165]


def test_copies_of_copies_make_one_group(tmp_path):
    world = World.sound()
    world.images[1] = world.images[0]
    world.images[2, 0] = np.rint(0.8 * world.images[0, 0] + 30)
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("near").groups == ((0, 1, 2),)
    assert diagnosis.dropped == ((1, "duplicate of row 0", 0), (2, "near-duplicate of row 0", 0))


def test_constant_and_near_constant_images_are_told_apart(tmp_path):
    world = World.sound()
    world.images[[4, 70]] = 9
    world.images[5] = np.arange(48) // 4
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("constant").rows == (4, 70)
    assert diagnosis.of_kind("near-constant").rows == (5,)
    assert diagnosis.dropped == ((4, "constant", None), (5, "constant", None), (70, "constant", None))
    assert "near" not in {f.kind for f in diagnosis.findings}


def test_labels_in_alphabetical_order_are_recognised(tmp_path):
    world = World.sound()
    world.labels = np.array([sorted(CLASSES).index(CLASSES[k]) for k in world.labels])
    finding = world.examined(tmp_path).of_kind("label-order")
    assert finding.level == "error"
    assert "look alphabetical: the counts fit that order exactly" in finding.title
    assert finding.detail[0] == "images labelled sad are as many as expected for angry"


def test_missing_class_is_an_error_and_no_other_order(tmp_path):
    world = World.sound()
    diagnosis = world.without(np.flatnonzero(world.labels == 1)).examined(tmp_path)
    assert diagnosis.of_kind("missing-class").title == "There are no images of happy"
    assert problems(diagnosis) == {"missing-class", "counts"}


def test_class_missing_in_one_split_is_an_error(tmp_path):
    world = World.sound()
    gone = np.flatnonzero((world.labels == 3) & (world.split == "val"))
    assert world.without(gone).examined(tmp_path).of_kind("missing-class").detail == (
        "val has no images of neutral; 3 expected",
    )


def test_exchanged_labels_of_two_classes_are_told_with_their_share(tmp_path):
    world = World.sound()
    train = world.split == "train"
    sad, happy = (np.flatnonzero(train & (world.labels == k)) for k in (0, 1))
    world.labels[sad[:5]], world.labels[happy[:15]] = 1, 0  # a quarter of each
    diagnosis = world.examined(tmp_path)
    finding = diagnosis.of_kind("label-swap")
    assert (finding.level, finding.title) == ("error", "Labels have moved between two classes: sad and happy")
    assert finding.detail == (
        "train: 10 more images of sad than expected, and as many fewer of happy: happy was relabelled as sad, or 25% of"
        " both were exchanged at random",
    )
    assert problems(diagnosis) == {"label-swap", "counts"}


def test_hashes_tell_changed_labels_and_changed_pixels(tmp_path):
    world = World.sound()
    parts = world.store(tmp_path / "original").manifest["parts"]
    card = dataclasses.replace(CARD, digests={"pixels": parts["pixels"], "labels": parts["labels"]})
    assert world.examined(tmp_path / "same", card).of_kind("original").level == "note"
    world.labels[[0, 30]] = 1, 0  # the counts stay
    assert problems(world.examined(tmp_path / "labels", card)) == {"labels-changed"}
    world = World.sound()
    world.images[0, 0, 0, 0] ^= 1
    assert problems(world.examined(tmp_path / "pixels", card)) == {"pixels-changed"}


def test_person_in_training_and_test_is_an_error(tmp_path):
    world = World.sound()
    world.subject = [f"{s}{k % 9}" for k, s in enumerate(world.split)]
    assert problems(world.examined(tmp_path / "apart")) == set()
    world.subject[-1] = world.subject[0]
    finding = world.examined(tmp_path / "crossing").of_kind("subjects")
    assert (finding.level, finding.count, finding.detail) == ("error", 1, ("train0",))


def test_sequences_of_wrong_length_or_in_two_splits_are_found(tmp_path):
    world = World.sound()
    names = np.array([f"{s}-{k // 3}" for s, n in COUNTS.items() for k in range(sum(n))])
    card = dataclasses.replace(CARD, sequence=3)
    whole = np.flatnonzero([(names == n).sum() == 3 for n in names])
    world.extra = {"sequence": np.where(np.isin(np.arange(len(names)), whole), names, "")}
    assert problems(world.examined(tmp_path / "sound", card)) == set()
    world.extra["sequence"][150] = world.extra["sequence"][0]
    diagnosis = world.examined(tmp_path / "torn", card)
    assert diagnosis.of_kind("sequence-split").level == "error"
    assert "train-0: 4" in diagnosis.of_kind("sequence-length").detail


def test_near_duplicates_within_a_sequence_are_expected(tmp_path):
    world = World.sound()
    world.images[1, 0] = np.rint(gaussian_filter(world.images[0, 0].astype(float), 1))
    world.extra = {"sequence": np.array(["s1"] * 2 + [""] * (len(world.labels) - 2))}
    diagnosis = world.examined(tmp_path)
    assert problems(diagnosis) == set()
    assert len(diagnosis.near) == len(diagnosis.dropped) == 0


def posed() -> World:
    """Nine people in one sitting each: the same picture again and again, a little lighter each time, a mouth apart."""
    world = World.sound()
    world.subject = [f"{s}{k % 9}" for k, s in enumerate(world.split)]
    for person in dict.fromkeys(world.subject):
        rows = [k for k, name in enumerate(world.subject) if name == person]
        for k, row in enumerate(rows[1:]):
            mouth = world.images[row, 0, 35:37, 22:25].copy()
            world.images[row] = np.clip(0.9 * world.images[rows[0]] + k, 0, 255)
            world.images[row, 0, 35:37, 22:25] = mouth
    return world


def test_likeness_of_one_person_is_told_and_condemns_nothing(tmp_path):
    world = posed()
    diagnosis = world.examined(tmp_path)
    assert problems(diagnosis) == set()
    assert diagnosis.dropped == ()
    finding = diagnosis.of_kind("alike")
    assert finding.level == "note"
    # 120 = 3 x 14 + 6 x 13 pictures in train, 33 = 6 x 4 + 3 x 3 in val, 34 = 7 x 4 + 2 x 3 in test
    pairs = 3 * comb(14, 2) + 6 * comb(13, 2) + 6 * comb(4, 2) + 3 * comb(3, 2) + 7 * comb(4, 2) + 2 * comb(3, 2)
    assert pairs - 9 < finding.count <= pairs
    assert finding.title == f"{finding.count} pairs of images of the same person look like copies"
    assert len(finding.groups) == finding.count
    other = sum(world.labels[a] != world.labels[b] for a, b in finding.groups)
    assert f"{other} of the pairs have different labels" in finding.detail
    assert all(world.subject[a] == world.subject[b] for a, b in finding.groups)


def test_equal_images_of_one_person_are_copies_all_the_same(tmp_path):
    world = posed()
    same = [k for k, name in enumerate(world.subject) if name == "train0"]
    first, second = same[1], next(k for k in same if world.labels[k] != world.labels[same[1]])
    world.images[second] = world.images[first]
    diagnosis = world.examined(tmp_path)
    assert problems(diagnosis) == {"exact-conflict"}
    assert diagnosis.dropped == ((first, "conflicting labels", None), (second, "conflicting labels", None))


def test_likeness_of_two_people_is_a_copy(tmp_path):
    world = posed()
    there, here = world.subject.index("test0"), world.subject.index("train0")
    world.images[there, 0] = np.rint(gaussian_filter(world.images[here, 0].astype(float), 1))
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("near-across") is not None
    assert here in [row for row, _, _ in diagnosis.dropped]


def test_lab_pictures_of_unknown_people_are_doubted_not_only_condemned(tmp_path):
    world = posed()
    world.subject = None
    diagnosis = world.examined(tmp_path)
    finding = diagnosis.of_kind("crowded")
    assert finding.title == "100% of the images closely resemble another one, as faces posed in a laboratory do"
    assert finding.detail[1].endswith("fer-bench show toy")
    assert len(diagnosis.dropped) > 100


def test_what_could_not_be_read_is_an_error_that_names_the_file(tmp_path):
    faults = Problems(lenient=True)
    faults.add("/somewhere/train/happy/3.png", None, "unreadable image: truncated")
    faults.add("/somewhere/list.csv", 7, "wrong label: 9")
    finding = World.sound().examined(tmp_path, faults=faults).of_kind("unreadable")
    assert (finding.level, finding.count) == ("error", 2)
    assert "happy/3.png: unreadable image: truncated" in finding.detail
    assert "somewhere/list.csv, row 7: wrong label: 9" in finding.detail


def test_missing_labels_and_mixed_source_files_are_told(tmp_path):
    world = World.sound()
    world.labels[3] = -1
    store = world.store(tmp_path, sizes={"48x48": 160, "50x48": 27}, modes={"L": 187})
    diagnosis = examine(store, CARD)
    assert diagnosis.of_kind("unlabelled").count == 1
    assert diagnosis.of_kind("sizes").detail == ("48x48: 160 files", "50x48: 27 files")
    assert diagnosis.of_kind("modes") is None


def test_counts_of_other_parameters_or_classes_are_not_compared(tmp_path):
    world = World.sound()
    chunk = Chunk(images=world.images, labels=world.labels, split=world.split.tolist(), source=[""] * len(world.labels))
    reading = Reading(layout="d", summary="", files=[], chunks=lambda: iter([chunk]), classes=("a", "b", "c", "d"))
    diagnosis = examine(write_store(tmp_path, CARD, reading, {}, {}), CARD)
    assert {f.kind for f in diagnosis.findings} == {"labels", "counts-unknown", "imbalance"}


def test_counts_are_compared_whatever_order_the_source_numbers_its_classes_in(tmp_path):
    card = dataclasses.replace(CARD, params={"classes": Param("", "order"), "other": Param(1, "another parameter")})
    world = World.sound()
    for given, kind in (({"classes": "angry,...", "other": 1}, "match"), ({"classes": "", "other": 2}, "unknown")):
        chunk = Chunk(
            images=world.images,
            labels=world.labels,
            split=world.split.tolist(),
            source=[""] * len(world.labels),
        )
        reading = Reading(layout="d", summary="", files=[], chunks=lambda chunk=chunk: iter([chunk]))
        diagnosis = examine(write_store(tmp_path, card, reading, given, {}), card)
        assert diagnosis.of_kind(f"counts-{kind}") is not None


def test_balance_is_told_by_hand_computed_figures(tmp_path):
    finding = World.sound().examined(tmp_path).of_kind("imbalance")
    assert "largest class / rarest class 9.10" in finding.title  # 91 happy, 10 neutral
    assert "train: largest class / rarest class 12.00, normalised entropy 0.820" in finding.detail
    # |20/120 - 6/33| + |60/120 - 16/33| + |35/120 - 8/33| + |5/120 - 3/33| = 0.12879, halved
    assert "train and val: class shares differ by 6.4 % of the images" in finding.detail


def test_exchange_that_leaves_the_counts_is_seen_in_copies(tmp_path):
    world = World.sound()
    world.images[20:50] = world.images[50:80]  # thirty pairs of happy images in train
    assert problems(world.examined(tmp_path / "sound")) == set()
    world.labels[20:32], world.labels[:12] = 0, 1
    diagnosis = world.examined(tmp_path / "exchanged")
    finding = diagnosis.of_kind("copies-disagree")
    assert finding.title == "12 of 30 groups of copies are labelled both sad and happy: labels may be exchanged"
    p = 6 * sum(comb(30, k) * 0.1**k * 0.9 ** (30 - k) for k in range(12, 31))
    assert finding.detail == (
        f"more than labelling slips in 10% of the groups would explain (binomial test, p = {p:.1g}, level 0.01,"
        " corrected for 6 pairs of classes)",
        "randomly exchanging 28% of both classes would have this effect",  # 2 f (1 - f) = 0.4
    )
    assert problems(diagnosis) == {"copies-disagree", "exact-conflict"}


def test_five_torn_pairs_of_seven_do_not_say_that_labels_are_exchanged(tmp_path):
    world = World.sound()
    world.images[20:27] = world.images[50:57]
    world.labels[20:25], world.labels[:5] = 0, 1
    diagnosis = world.examined(tmp_path)
    assert diagnosis.of_kind("exact-conflict").count == 5
    assert problems(diagnosis) == {"exact-conflict"}


def harmed() -> World:
    world = World.sound()
    world.images[1] = world.images[0]
    world.images[100] = world.images[30]
    world.images[165, 0] = np.roll(world.images[3, 0], (2, -1), (0, 1))
    world.images[5] = 0
    return world


def test_page_has_the_same_bytes_each_time_and_no_path_of_the_machine(tmp_path):
    store = harmed().store(tmp_path / "data")
    texts = []
    for name in ("one", "two"):
        page = write_page(examine(store, CARD), store, CARD, tmp_path / name)
        texts.append({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")})
    assert texts[0] == texts[1]
    text = page.read_text()
    assert str(tmp_path) not in text
    assert "contains images of the data set; licence: toys are free" in text
    assert store.fingerprint in text
    figures = set(re.findall(r"\(figures/(.+?)\)", text))
    assert figures >= {"counts.svg", "exact-conflict.png", "near-across.png", "constant.png"}
    assert figures <= {p.name for p in (tmp_path / "two" / "figures").iterdir()}


def test_page_in_html_says_the_same_and_needs_no_other_file(tmp_path):
    store = harmed().store(tmp_path / "data")
    diagnosis = examine(store, CARD)
    folder = write_page(diagnosis, store, CARD, tmp_path / "page").parent
    page = (folder / "index.html").read_text()
    assert "<h1>Data check: toy</h1>" in page
    for finding in diagnosis.findings:
        for line in (finding.title, *finding.detail):
            assert escape(line) in page
    for kind in ("exact-conflict", "near-across", "constant"):
        assert base64.b64encode((folder / "figures" / f"{kind}.png").read_bytes()).decode() in page
    assert set(re.findall(r'(?:src|href)="([^"]{0,22})', page)) - {"data:image/png;base64,"} == {
        f"#s-{name}" for name in ("warnings", "notes", "counts", "conflicts", "pictures", "clean")
    } | set(re.findall(r'href="(#f-counts[^"]{0,13})', page))


def test_page_without_images_shows_none_and_removes_older_ones(tmp_path):
    store = harmed().store(tmp_path / "data")
    diagnosis = examine(store, CARD)
    write_page(diagnosis, store, CARD, tmp_path / "page")
    assert "data:image/png" in (tmp_path / "page" / "index.html").read_text()
    page = write_page(diagnosis, store, CARD, tmp_path / "page", images=False)
    assert {p.name for p in (tmp_path / "page" / "figures").iterdir()} == {"counts.svg", "counts.png"}
    assert "contains no images of the data set" in page.read_text()
    assert ".png" not in page.read_text()
    assert "data:image/png" not in page.with_name("index.html").read_text()


def test_the_committed_page_shows_no_face():
    folder = Path(__file__).parents[2] / "docs" / "data-check" / "fer2013"
    assert "contains no images of the data set" in (folder / "README.md").read_text()
    pages = {"README.md", "index.html", "counts.svg", "counts.png"}
    assert {p.name for p in folder.rglob("*.*")} == {*pages, ".fer-bench-check.json"}
    page = (folder / "index.html").read_text()
    assert "data:image" not in page
    assert "contains no images of the data set" in page


def test_progress_goes_from_nothing_to_all_of_each_step(tmp_path):
    seen = []
    examine(harmed().store(tmp_path), CARD, progress=lambda what, done: seen.append((what, done)))
    steps = list(dict.fromkeys(what for what, _ in seen))
    assert steps == ["reading the images", "comparing the images with each other", "comparing perceptual hashes"]
    for step in steps:
        shares = [done for what, done in seen if what == step]
        assert shares == sorted(shares)
        assert shares[0] > 0
        assert shares[-1] == 1.0


def test_a_pipe_gets_a_line_now_and_then_and_a_terminal_a_bar(capsys, monkeypatch):
    with Steps("toy") as steps:
        steps("looking", 0.1)
        assert capsys.readouterr().out == ""
        steps.last -= 31  # half a minute later
        steps("looking", 0.4)
        steps("looking", 0.5)
        assert capsys.readouterr().out == "toy: looking, 40% done\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Steps("toy") as steps:
        steps("looking", 0.1)
        steps("comparing", 0.4)
        steps.bar.refresh()
    out = capsys.readouterr().out
    assert "toy: comparing" in out
    assert " 40%" in out


def test_pictures_of_a_page_that_kept_no_list_go_where_the_folder_is_ours(tmp_path):
    store = harmed().store(tmp_path / "data")
    diagnosis, out = examine(store, CARD), tmp_path / "page"
    write_page(diagnosis, store, CARD, out)
    (out / CHECK).unlink()
    (out / "figures" / "mine.png").write_bytes(b"mine")
    with pytest.raises(FerBenchError, match=r"not listed as its own: README\.md"):
        write_page(diagnosis, store, CARD, out, images=False)
    write_page(diagnosis, store, CARD, Target(out=out, kept=CHECK, own=True), images=False)
    assert {p.name for p in (out / "figures").iterdir()} == {"counts.svg", "counts.png", "mine.png"}


def test_somebody_elses_page_or_manifest_is_refused_before_anything_is_examined(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my project")
    arguments = ["data", "check", "synthetic", "--home", str(tmp_path), "--out", str(tmp_path / "mine")]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, FerBenchError)
    assert "checking" not in done.output
    assert (tmp_path / "mine" / "README.md").read_text() == "my project"
    assert done.exception.next == shlex.join(["fer-bench", *arguments, "--force"])


PLUGIN = """
import numpy as np
from PIL import Image
from fer_bench import Chunk, Dataset, DatasetCard, Param, Protocol, Reading

card = DatasetCard(
    name="files", title="Files", classes=("a", "b"), counts={"x": (6, 6)},
    protocols=(Protocol(name="p", train=("x",), test=("y",), holdout=0.1),),
    params={"fold": Param(0, "which one")},
)


class Files(Dataset):
    card = card

    def read(self, source):
        def chunks():
            problems = self.problems()
            for path in sorted(source.glob("*.png")):
                try:
                    with Image.open(path) as image:
                        pixels = np.asarray(image)[None, None]
                except OSError:
                    problems.add(path, None, "unreadable image")
                    continue
                label = np.array([int(path.stem) % 2])
                yield Chunk(images=pixels, labels=label, split=["x"], source=[path.name])
            problems.raise_if_any()

        return Reading(layout="png", summary=str(source), files=[], chunks=chunks)
"""


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder of twelve images, and beside it the plug-in that reads them."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "files.py").write_text(PLUGIN)
    (tmp_path / "raw").mkdir()
    for k, image in enumerate(World.sound().images[:12, 0]):
        Image.fromarray(image).save(tmp_path / "raw" / f"{k}.png")
    return tmp_path


def run(folder: Path, *arguments: str, status: int = 0) -> str:
    options = ["--home", str(folder / "home"), "--plugins", str(folder / "plugins")]
    result = CliRunner().invoke(check, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output


def test_source_is_examined_leniently_and_without_touching_the_home(files):
    (files / "raw" / "3.png").write_bytes((files / "raw" / "3.png").read_bytes()[:60])
    out = run(files, "files", "--from", str(files / "raw"), "--out", str(files / "page"))
    assert "Unreadable and left out: 1 file or row of the source" in out
    assert "verdict: 1 error, 1 warning" in out
    assert not (files / "home").exists()
    written = {"README.md", "index.html", "figures", "clean.csv", CHECK}
    assert {p.name for p in (files / "page").iterdir()} == written


@pytest.mark.slow
def test_strict_makes_an_error_exit_with_one(files):
    run(files, "files", "--strict", "--from", str(files / "raw"))
    (files / "raw" / "3.png").write_bytes(b"")
    run(files, "files", "--strict", "--from", str(files / "raw"), status=1)


@pytest.mark.slow
def test_prepared_store_gets_its_clean_manifest_in_the_home(files):
    from fer_bench.data.prepare import prepare

    (files / "raw" / "4.png").write_bytes((files / "raw" / "2.png").read_bytes())
    home = Home(files / "home")
    store = prepare(home, plugins([files / "plugins"]).dataset("files"), files / "raw", say=lambda line: None)
    out = run(files, "files", "--no-images")
    clean = load_clean(home.splits("files", store.fingerprint))
    names = store.columns("source")["source"].tolist()
    assert clean.rows.tolist() == [names.index("4.png")]
    assert "leaves out 1 rows" in out
    assert (home.results("doctor") / "files" / "README.md").is_file()


@pytest.mark.slow
def test_missing_store_and_missing_source_are_clear_errors(files):
    from fer_bench import DataError
    from fer_bench.errors import StoreError

    with pytest.raises(StoreError, match="no prepared store for 'files'"):
        run(files, "files")
    with pytest.raises(DataError, match="the source does not exist"):
        run(files, "files", "--from", str(files / "nowhere"))


def test_parameters_of_a_prepared_store_are_refused(files):
    from fer_bench import SpecError

    with pytest.raises(SpecError, match="needs --from"):
        run(files, "files", "--dataset-set", "fold=1")


@pytest.mark.slow
def test_built_in_faces_that_are_prepared_are_examined_as_they_are(tmp_path):
    from fer_bench.data.prepare import ensure_store
    from fer_bench.data.store import Store

    faces = plugins().dataset("synthetic", {"size": 200})
    made = ensure_store(Home(tmp_path), faces, say=lambda line: None)
    CliRunner().invoke(check, ["synthetic", "--home", str(tmp_path)], catch_exceptions=False)
    assert Store.open(made.path).fingerprint == made.fingerprint


@pytest.mark.slow
def test_built_in_faces_are_prepared_and_examined(tmp_path):
    options = ["--home", str(tmp_path), "--dataset-set", "size=300"]
    result = CliRunner().invoke(check, ["synthetic", *options], catch_exceptions=False)
    assert "verdict: 0 errors, 0 warnings" in result.output


@pytest.mark.realdata
def test_real_fer2013_has_the_known_faults_and_the_injected_ones(tmp_path):
    beside = Path(__file__).parents[3] / "shared" / "data" / "fer2013"
    path = Path(os.environ.get("FER_BENCH_FER2013") or beside) / "unpack.py"
    if not path.is_file():
        pytest.skip("the real FER2013 is not here: set FER_BENCH_FER2013 to the folder that holds unpack.py")
    spec = importlib.util.spec_from_file_location("fer2013_unpack", path)
    unpack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack)
    images, labels, usage = unpack.load()
    card = plugins().dataset_card("fer2013")
    rng = np.random.default_rng(4)
    once = np.unique(images.reshape(len(images), -1), axis=0, return_index=True, return_counts=True)[1:]
    single = np.flatnonzero((usage == 0) & np.isin(np.arange(len(images)), once[0][once[1] == 1]))
    source = rng.choice(single, 60, replace=False)
    near = [np.rint(gaussian_filter(images[k].astype(float), 1.0)).astype(np.uint8) for k in source[:5]]
    near += [np.pad(images[k], 3, mode="edge")[:48, 2:50] for k in source[5:10]]
    images = np.concatenate([images, near, images[source[10:]]])
    labels, usage = np.concatenate([labels, labels[source]]), np.concatenate([usage, np.zeros(60, np.uint8)])
    chunk = Chunk(
        images=images[:, None],
        labels=labels.astype(np.int64),
        split=[("Training", "PublicTest", "PrivateTest")[u] for u in usage],
        source=[""] * len(labels),
    )
    reading = Reading(layout="array", summary="", files=[], chunks=lambda: iter([chunk]))
    diagnosis = examine(write_store(tmp_path, card, reading, {}, {}), card)
    assert diagnosis.of_kind("copies-disagree") is None
    assert diagnosis.exact["distinct"] == 34034 + 10
    assert diagnosis.exact["groups"] == 1516 + 50
    assert diagnosis.exact["conflicting"] == 57
    assert diagnosis.exact["across"][("Training", "PublicTest")] == 280
    assert diagnosis.exact["across"][("Training", "PrivateTest")] == 288
    constant = (6458, 7629, 10423, 11286, 13148, 13402, 13988, 15894, 22198, 22927, 28601, 30002)
    assert diagnosis.of_kind("constant").rows == constant
    group_of = {row: k for k, group in enumerate(diagnosis.of_kind("near").groups) for row in group}
    assert all(group_of[int(source[k])] == group_of[35887 + k] for k in range(10))
    assert {(int(s), 35897 + k) for k, s in enumerate(source[10:])} <= set(diagnosis.of_kind("exact").groups)
