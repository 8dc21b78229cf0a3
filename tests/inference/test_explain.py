"""What explain shows, computes and writes."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from fer_bench.data.store import Store
from fer_bench.errors import FerBenchError, LedgerError, StoreError
from fer_bench.inference.explain import (
    ELSEWHERE,
    PREDICTED,
    THIRDS,
    TRUE,
    Explanation,
    ShownFace,
    choose,
    explain_files,
    explain_test,
)
from fer_bench.inference.faces import faces_in
from fer_bench.inference.page import write_page
from fer_bench.inference.trained import load_trained
from fer_bench.reports.render.page_folder import EXPLAIN, Target
from tests.inference.conftest import CLASSES, World


def silent(what: str, done: float) -> None:
    """Nobody is told of progress."""


def load(world: World, method: str):
    return load_trained(world.runs[method], world.home, world.available, device="cpu")


@pytest.fixture
def found(world: World) -> Explanation:
    return explain_test(load(world, "looking"), world.home, world.available, 4, 2, silent)


# -- which faces -----------------------------------------------------------------------------------------------------


def test_right_and_wrong_ones_are_chosen_evenly_and_without_a_draw():
    labels = np.array([1] * 10 + [0] * 6)
    predicted = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0] + [0] * 5 + [1])
    # of class 1 the right ones 0 to 4 (first and last), the wrong ones 5 to 9; of class 0 one is wrong, so 3 right ones
    assert choose(labels, predicted, [1, 0], 4).tolist() == [0, 4, 5, 9, 10, 12, 14, 15]
    assert choose(labels, predicted, [1], 3).tolist() == [0, 5, 9]  # one more wrong one, where the number is odd
    assert choose(labels, labels, [1], 4).tolist() == [0, 3, 6, 9]  # none is wrong
    assert choose(labels, 1 - labels, [0], 9).tolist() == [10, 11, 12, 13, 14, 15]  # there are no more
    assert choose(labels, predicted, [2], 4).tolist() == []


def test_the_rarest_classes_come_first(world: World, found: Explanation):
    record = world.runs["looking"]  # 24, 12 and 6 training images
    assert [face.true for face in found.faces] == [2] * 4 + [1] * 4
    stored = dict(zip(record.array("test_rows").tolist(), record.array("test_logits"), strict=True))
    store = Store.open(world.home.store("folder"))
    for face in found.faces:
        share = softmax(stored[face.row].astype(np.float64))
        assert face.predicted == share.argmax()
        assert face.probability == pytest.approx(share.max(), abs=1e-5)
        np.testing.assert_array_equal(face.image, store.images(np.array([face.row]))[0])
        assert store.columns("source")["source"][face.row] == face.name


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_shares_of_regions_by_hand():
    top = np.zeros((4, 4), bool)
    top[:1] = True
    values = np.zeros((4, 4))
    values[0, 0], values[2, 2], values[3, 3] = 3.0, 1.0, 4.0
    face = ShownFace(name="x", row=None, true=None, predicted=0, probability=1.0, image=np.zeros((1, 4, 4), np.uint8),
                     maps={"map": values, "empty": 0 * values}, shares=None)  # fmt: skip
    of = Explanation(classes=("a", "b"), faces=[face], regions={"top": top}, layout=False)
    assert of.region_shares(face, "map") == {"top": 3 / 8, ELSEWHERE: 5 / 8}
    assert np.isnan(list(of.region_shares(face, "empty").values())).all()
    assert of.areas == {"top": 0.25, ELSEWHERE: 0.75}


def test_maps_are_those_of_the_method_stretched_over_the_image(world: World, found: Explanation):
    face = found.faces[0]
    assert set(face.maps) == {PREDICTED, "bright", *([TRUE] if face.predicted != face.true else [])}
    mean = face.image.astype(np.float64).mean(0)
    half = torch.from_numpy((mean - face.image.min())[::2, ::2])[None, None]
    expected = torch.nn.functional.interpolate(half, size=(16, 16), mode="bilinear")[0, 0].numpy()
    shown = face.maps["bright"]  # the network sees normalised pixels, so on another scale
    np.testing.assert_allclose(shown / shown.max(), expected / expected.max(), atol=1e-4)
    for one in found.faces:
        assert (TRUE in one.maps) == (one.predicted != one.true)


def test_the_matrix_is_the_mean_over_validation_images_of_each_class(world: World, found: Explanation):
    record = world.runs["looking"]
    shares = softmax(record.array("val_logits").astype(np.float64), 1)
    labels = record.array("val_labels")
    expected = np.stack([shares[labels == c].mean(0) for c in range(3)])
    np.testing.assert_allclose(found.affinity, expected, atol=1e-5)
    assert found.sources == CLASSES
    assert found.validated == len(labels)
    np.testing.assert_allclose([face.shares.sum() for face in found.faces], 1, atol=1e-5)


def test_without_a_layout_the_regions_are_thirds_and_with_one_parts_of_the_face(world: World, found: Explanation):
    assert tuple(found.regions) == THIRDS
    assert not found.layout
    sums = sum(mask.astype(int) for mask in found.regions.values())
    assert (sums == 1).all()
    assert [int(mask[:, 0].sum()) for mask in found.regions.values()] == [6, 5, 5]


def test_parts_that_the_data_set_knows_are_laid_over_its_own_images_alone(world: World, tmp_path, monkeypatch):
    mouth = np.zeros((16, 16), bool)
    mouth[10:13, 4:12] = True
    known = world.available.dataset("folder", world.runs["looking"].spec["dataset_params"])
    monkeypatch.setattr(type(known), "face_regions", lambda self, height, width: {"mouth": mouth})
    trained = load(world, "looking")
    of_test = explain_test(trained, world.home, world.available, 2, 1, silent)
    assert (tuple(of_test.regions), of_test.layout) == (("mouth",), True)
    own = explain_files(trained, faces_in(np.zeros((16, 16), np.uint8)), world.home, silent)
    assert (tuple(own.regions), own.layout) == (THIRDS, False)
    write_page(trained, own, Target(out=tmp_path, kept=EXPLAIN), "x")
    text = (tmp_path / "README.md").read_text()
    assert "Where the parts of the faces lie in images of your own is not known" in text
    assert "This data set does not say" not in text
    assert {row["region"] for row in rows(tmp_path / "regions.csv")} == {*THIRDS, ELSEWHERE}


# -- the page --------------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_page_holds_pictures_numbers_and_what_they_mean(world: World, found: Explanation, tmp_path):
    write_page(load(world, "looking"), found, Target(out=tmp_path, kept=EXPLAIN), "fer-bench explain x")
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {
        *("README.md", "index.html", "regions.csv", "shares.csv", "affinity.csv", ".fer-bench-explain.json"),
        *("figures/faces-1-cc.png", "figures/faces-2-bb.png", "figures/affinity.png"),
    }
    text = (tmp_path / "README.md").read_text()
    assert "Publish it only if the licence of the data permits that" in text
    assert "8 test images of a finished run are shown" in text
    assert "stays 1" in text
    assert "last map has 1 x 1 places here" in text  # 16 pixels, and a 16th of the side
    assert "over the run's 18 validation images" in text
    assert "This data set does not say where the parts of a face lie" in text
    with Image.open(tmp_path / "figures" / "faces-1-cc.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    table = rows(tmp_path / "regions.csv")
    first = [row for row in table if row["image"] == found.faces[0].name and row["map"] == "bright"]
    assert [row["region"] for row in first] == [*THIRDS, ELSEWHERE]
    assert sum(float(row["share"]) for row in first) == pytest.approx(1, abs=1e-5)
    assert {row["true"] for row in table} == {"cc", "bb"}
    shares = rows(tmp_path / "shares.csv")
    assert len(shares) == 8 * 3
    assert float(rows(tmp_path / "affinity.csv")[4]["mean_share"]) == pytest.approx(found.affinity[1, 1], abs=1e-6)


def test_the_same_run_gives_the_same_bytes(world: World, tmp_path):
    def written(folder: Path) -> dict[str, str]:
        trained = load(world, "baseline_resnet")
        found = explain_test(trained, world.home, world.available, 2, 1, silent)
        write_page(trained, found, Target(out=folder, kept=EXPLAIN), "x")
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}

    assert written(tmp_path / "a") == written(tmp_path / "b")


def test_files_of_others_are_not_replaced(world: World, found: Explanation, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FerBenchError, match=r"has not listed as its own: README\.md"):
        write_page(load(world, "looking"), found, Target(out=tmp_path, kept=EXPLAIN), "x")
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


# -- images of one's own ---------------------------------------------------------------------------------------------


def test_images_of_ones_own_have_no_true_class(world: World, tmp_path):
    trained, images = load(world, "looking"), sorted((world.images / "val" / "aa").iterdir())[:3]
    found = explain_files(trained, faces_in(images), world.home, silent)
    assert [face.name for face in found.faces] == [str(path) for path in images]
    assert {(face.row, face.true) for face in found.faces} == {(None, None)}
    assert all(TRUE not in face.maps for face in found.faces)
    assert found.affinity is not None  # the run's data are here
    write_page(trained, found, Target(out=tmp_path, kept=EXPLAIN), "x")
    text = (tmp_path / "README.md").read_text()
    assert "3 images of your own" in text
    assert "test image" not in text.replace("no test image takes part", "")
    many = faces_in([images[0]] * 201)
    with pytest.raises(FerBenchError, match="201 images are too many to draw, at most 200"):
        explain_files(trained, many, world.home, silent)


def test_without_the_data_only_images_of_ones_own_can_be_shown(copied: World):
    shutil.rmtree(copied.home.store("folder"))
    trained, image = load(copied, "looking"), np.zeros((16, 16), np.uint8)
    found = explain_files(trained, faces_in(image), copied.home, silent)
    assert found.affinity is None
    assert "validation images are not in this home" in found.notes[0]
    with pytest.raises(StoreError, match="no prepared store for 'folder'"):
        explain_test(trained, copied.home, copied.available, 4, 2, silent)


def test_a_run_that_never_opened_the_test_has_nothing_to_choose_from(copied: World):
    (copied.runs["looking"].path / "test_logits.npy").unlink()
    with pytest.raises(LedgerError, match="has no test predictions") as caught:
        explain_test(load(copied, "looking"), copied.home, copied.available, 4, 2, silent)
    assert "name images of your own" in caught.value.hint
