"""New images are predicted as the run predicted its test, whatever file they come in."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

import fer_bench
from fer_bench.data.image_files import ImageFit
from fer_bench.data.store import Store
from fer_bench.errors import DataError, LedgerError, SpecError, UnknownNameError
from fer_bench.inference.faces import faces_in
from fer_bench.inference.trained import load_trained
from fer_bench.reports.render.page_folder import EXPLAIN, Target, aside, move
from tests.inference.conftest import CLASSES, World


def files_of(world: World, record) -> list[Path]:
    rows = record.array("test_rows")
    return [world.file(name) for name in Store.open(world.home.store("folder")).columns("source")["source"][rows]]


def predict(world: World, run, images, **options):
    return fer_bench.predict(run, images, world.home.root, device="cpu", plugins=[world.own], **options)


@pytest.mark.parametrize("method", ["baseline_resnet", "logit_adjust_posthoc"])
def test_files_of_every_kind_are_predicted_as_the_run_predicted_its_test(world: World, method: str):
    record = world.runs[method]
    files = files_of(world, record)
    assert {file.suffix for file in files} == {".png", ".jpg", ".bmp"}
    assert len({Image.open(file).size for file in files}) > 3
    trained = load_trained(record, world.home, world.available, device="cpu")
    assert trained.fit == ImageFit(3, 16, 16, "pad", 12)
    ((_, images),) = faces_in(files).batches(trained.fit, 512)
    np.testing.assert_array_equal(images, Store.open(world.home.store("folder")).images(record.array("test_rows")))
    np.testing.assert_allclose(trained.logits(images), record.array("test_logits"), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 5, 256])
def test_the_table_has_a_row_for_each_image_with_the_softmax_of_its_logits(world: World, batch: int):
    record = world.runs["baseline_resnet"]
    files, logits = files_of(world, record), record.array("test_logits").astype(np.float64)
    frame = predict(world, record.id, files, batch_size=batch)
    assert list(frame.columns) == ["image", "predicted", *(f"p_{name}" for name in CLASSES)]
    assert frame.image.tolist() == [str(file) for file in files]
    assert frame.predicted.cat.categories.tolist() == list(CLASSES)
    np.testing.assert_allclose(frame.filter(like="p_"), softmax(logits, 1), atol=1e-5)
    assert frame.predicted.tolist() == [CLASSES[k] for k in logits.argmax(1)]
    assert frame.attrs == {"skipped": [], "remarks": []}


def test_a_run_is_named_by_id_by_its_beginning_or_by_its_method(world: World):
    record = world.runs["looking"]
    image = files_of(world, record)[0]
    frames = [predict(world, name, image) for name in (record.id, record.id[:10], "looking")]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


def test_pictures_in_memory_are_predicted_like_their_files(world: World, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 25, 3), dtype=np.uint8)
    grey = pixels[..., 0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "b.png")
    files = predict(world, "baseline_resnet", tmp_path)
    memory = predict(world, "baseline_resnet", [pixels, Image.fromarray(grey)])
    assert memory.image.tolist() == ["image 0", "image 1"]
    assert memory.drop(columns="image").equals(files.drop(columns="image"))
    assert predict(world, "baseline_resnet", grey).equals(predict(world, "baseline_resnet", Image.fromarray(grey)))
    with pytest.raises(SpecError, match=r"image 1 is neither a path nor a picture: float64 \(4, 4\)"):
        predict(world, "baseline_resnet", [grey, np.zeros((4, 4))])


def test_folders_are_walked_in_order_and_what_cannot_be_read_is_named(world: World, tmp_path):
    image = Image.fromarray(np.full((16, 16), 90, np.uint8))
    for name in ("b.png", "a/z.png", "a/B.PNG", ".hidden.png", ".cache/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "broken.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    with pytest.warns(UserWarning, match=r"skipped .*broken.png: unreadable image"):
        frame = predict(world, "baseline_resnet", str(tmp_path))
    assert [Path(name).relative_to(tmp_path).as_posix() for name in frame.image] == ["b.png", "a/B.PNG", "a/z.png"]
    assert [Path(name).name for name, _ in frame.attrs["skipped"]] == ["broken.png"]
    assert faces_in(tmp_path).passed == 1
    with pytest.raises(DataError, match="not one of the images can be read") as caught:
        predict(world, "baseline_resnet", tmp_path / "broken.png")
    assert "broken.png: unreadable" in caught.value.where
    with pytest.raises(DataError, match="no such image or folder"):
        predict(world, "baseline_resnet", tmp_path / "gone.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no image"):
        predict(world, "baseline_resnet", tmp_path / "empty")


def test_only_one_batch_of_pictures_is_in_memory(tmp_path):
    for k in range(7):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(tmp_path / f"{k}.png")
    done: list[int] = []
    batches = faces_in(tmp_path).batches(ImageFit(1, 8, 8), 3, done.append)
    sizes = [(len(images), len(done)) for _, images in batches]
    assert sizes == [(3, 1), (3, 2), (1, 3)]  # of each batch, nothing after it had been read
    assert done == [3, 6, 7]


def test_another_way_of_making_images_square_can_be_asked_for(world: World):
    wide = np.random.default_rng(1).integers(0, 256, (16, 48), dtype=np.uint8)
    by = {how: predict(world, "baseline_resnet", wide, fit=how).filter(like="p_") for how in (None, "pad", "crop")}
    assert by[None].equals(by["pad"])
    middle = predict(world, "baseline_resnet", np.ascontiguousarray(wide[:, 16:32])).filter(like="p_")
    np.testing.assert_allclose(by["crop"], middle, atol=1e-5)
    with pytest.raises(UnknownNameError, match="did you mean 'crop'"):
        predict(world, "baseline_resnet", wide, fit="krop")


def test_images_of_a_transductive_method_are_predicted_alone(world: World, copied: World):
    record = copied.runs["baseline_resnet"]
    trained = load_trained(record, copied.home, copied.available, device="cpu")
    sizes, predict_plainly = [], trained.method.predict

    def noted(model, x):
        sizes.append(len(x))
        return predict_plainly(model, x)

    trained.method.predict = noted
    trained.logits(np.zeros((3, 3, 16, 16), np.uint8))
    replace(trained, transductive=True).logits(np.zeros((3, 3, 16, 16), np.uint8))
    assert sizes == [3, 1, 1, 1]
    probe = record.path / "probe.json"
    probe.write_text(probe.read_text().replace('"transductive": false', '"transductive": true'))
    told = load_trained(record, copied.home, copied.available, device="cpu")
    assert told.transductive
    assert "each image is predicted alone" in told.notes[0]


def test_predicting_leaves_the_record_and_the_callers_random_numbers_alone(world: World):
    record = world.runs["baseline_resnet"]

    def files():
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in record.path.iterdir() if p.is_file()}

    before, state = files(), torch.get_rng_state()
    predict(world, record.id, files_of(world, record)[:2])
    assert files() == before
    assert torch.equal(torch.get_rng_state(), state)
    record.verify()


def test_predictions_of_the_ledger_take_the_same_names(world: World):
    record = world.runs["looking"]
    stored = fer_bench.predictions("looking", world.home.root)
    assert stored.equals(fer_bench.predictions(record.id[:12], world.home.root))
    frame = predict(world, "looking", [world.file(name) for name in stored.source])
    np.testing.assert_allclose(frame.filter(like="p_"), stored.filter(like="p_"), atol=1e-5)


# -- records that can't be used --------------------------------------------------------------------------------------


def error_of(copied: World, run: str):
    with pytest.raises((LedgerError, UnknownNameError, SpecError)) as caught:
        predict(copied, run, np.zeros((16, 16), np.uint8))
    return caught.value


def test_a_run_without_weights_leads_to_its_stored_predictions(copied: World):
    record = copied.runs["baseline_resnet"]
    (record.path / "model.pt").unlink()
    error = error_of(copied, record.id)
    assert "holds no weights" in error.what
    assert error.next == f"fer-bench predict {record.id} --test"


def test_weights_that_have_changed_are_refused(copied: World):
    with open(copied.runs["baseline_resnet"].path / "model.pt", "ab") as file:
        file.write(b"x")
    assert "model.pt has changed since the run" in error_of(copied, "baseline_resnet").what


def test_a_run_without_an_end_leads_to_the_command_that_finishes_it(copied: World):
    record = copied.runs["baseline_resnet"]
    (record.path / "done.json").unlink()
    assert error_of(copied, record.id).next == "fer-bench list runs --status finished"
    copied.home.ledger.put_study("mine", {"name": "mine", "runs": [record.id], "command": "fer-bench run x"})
    error = error_of(copied, record.id)
    assert "is not finished (unfinished)" in error.what
    assert error.next == "fer-bench run x"


def test_a_name_of_several_runs_is_answered_with_their_ids(copied: World):
    record = copied.runs["baseline_resnet"]
    other = copied.home.ledger.root / "0123456789abcdef"
    shutil.copytree(record.path, other)
    error = error_of(copied, "baseline_resnet")
    assert "names 2 runs" in error.what
    assert f"{record.id}  baseline_resnet on folder/given, fold 0, seed 0" in error.hint
    assert error.next == "fer-bench list runs --method baseline_resnet"
    (other / "done.json").unlink()  # finished runs come first
    assert len(predict(copied, "baseline_resnet", np.zeros((16, 16), np.uint8))) == 1


def test_unknown_names_are_answered_with_the_nearest(copied: World, tmp_path):
    error = error_of(copied, "baseline_resnt")
    assert "did you mean 'baseline_resnet'" in error.hint
    with pytest.raises(LedgerError, match="there is no run in"):
        fer_bench.predict("x", np.zeros((16, 16), np.uint8), tmp_path / "empty")
    with pytest.raises(UnknownNameError, match="name its folder with --plugins"):
        fer_bench.predict("looking", np.zeros((16, 16), np.uint8), copied.home.root)


def test_code_that_has_changed_since_the_run_is_told(copied: World, tmp_path):
    changed = tmp_path / "changed"
    changed.mkdir()
    text = (copied.own / "looking.py").read_text()
    (changed / "looking.py").write_text(text + "\nWHATEVER = 1\n")
    with pytest.warns(UserWarning, match="code of 'looking' is not that of the run"):
        predict(replace(copied, own=changed), "looking", np.zeros((16, 16), np.uint8))
    changed = tmp_path / "again"  # in this process, the other folder's module stays imported
    changed.mkdir()
    (changed / "looking.py").write_text(
        text + "\n    def build_model(self, backbone):\n        model = super().build_model(backbone)\n"
        "        model.more = torch.nn.Linear(2, 2)\n        return model\n"
    )
    error = error_of(replace(copied, own=changed), "looking")
    assert "don't fit the network that 'looking' builds now" in error.what
    assert "more.weight" in error.hint


def test_a_record_of_an_earlier_version_takes_the_shape_from_the_store(copied: World):
    record = copied.runs["baseline_resnet"]
    path = record.path / "data.json"
    data = json.loads(path.read_text())
    assert (data.pop("shape"), data.pop("bits")) == ([3, 16, 16], 12)
    path.write_text(json.dumps(data))
    trained = load_trained(record, copied.home, copied.available, device="cpu")
    assert trained.fit == ImageFit(3, 16, 16, "pad", 12)
    shutil.rmtree(copied.home.store("folder"))
    error = error_of(copied, record.id)
    assert "does not say what shape" in error.what
    assert error.next == "fer-bench data prepare folder"


def test_an_error_of_the_methods_own_code_names_its_line(copied: World, tmp_path):
    changed = tmp_path / "changed"
    changed.mkdir()
    text = (copied.own / "looking.py").read_text()
    (changed / "looking.py").write_text(text + "\n    def predict(self, model, x):\n        return x.nothing\n")
    with pytest.raises(fer_bench.FerBenchError, match="'looking' raised AttributeError") as caught:
        predict(replace(copied, own=changed), "looking", np.zeros((16, 16), np.uint8))
    assert "looking.py" in caught.value.where


@pytest.mark.parametrize("ending", [".gif", ".png", ".webp", ".tif"])
def test_of_an_animation_or_several_pages_the_first_is_read(tmp_path, ending):
    first, *others = (Image.new("L", (16, 16), value) for value in (40, 120, 200))
    first.save(tmp_path / f"faces{ending}", save_all=True, append_images=others)
    with Image.open(tmp_path / f"faces{ending}") as saved:
        assert saved.n_frames == 3
    ((_, pixels),) = faces_in(tmp_path).batches(ImageFit(1, 16, 16), 8)
    np.testing.assert_allclose(pixels, 40, atol=2)


def test_pictures_of_pages_are_not_taken_for_faces(tmp_path):
    target = Target(out=tmp_path, kept=EXPLAIN)
    with aside(target) as folder:
        (folder / "figures").mkdir()
        Image.new("L", (16, 16)).save(folder / "figures" / "faces-1.png")
        move(folder, target)
    drawn = tmp_path / "figures" / "faces-1.png"
    drawn.with_name("faces-1.edited-1.png").write_bytes(drawn.read_bytes())
    Image.new("L", (16, 16)).save(tmp_path / "figures" / "mine.png")
    for given in (tmp_path, tmp_path / "figures"):
        found = faces_in(given)
        assert ([face.name for face in found.faces], found.drawn) == ([str(tmp_path / "figures" / "mine.png")], 2)
        assert found.left_out[-1] == "passed over 2 pictures that fer-bench wrote for a page"
    with pytest.raises(DataError, match="there is no image") as caught:
        next(faces_in(drawn).batches(ImageFit(1, 16, 16), 8))
    assert caught.value.hint == "passed over 1 picture that fer-bench wrote for a page"
