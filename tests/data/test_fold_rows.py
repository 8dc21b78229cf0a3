"""Runs on folds, thinned training folds, parts of the classes and votes: what they train, select and test on."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from fer_bench.data import fold_rows
from fer_bench.data.clean_manifest import save_clean
from fer_bench.data.copies import Copies
from fer_bench.data.fold_rows import groups_of_test, roles_of
from fer_bench.data.store import Store
from fer_bench.errors import DataError, SpecError
from fer_bench.runs.executor import execute

COUNTS = {"train": (48, 24, 16, 8), "val": (10, 10, 10, 10), "test": (12, 12, 12, 12)}


@pytest.fixture
def tiny(workplace):
    """The store of `tiny`, its card, and its home."""
    return Store.open(workplace.home.data / "tiny"), workplace.plugins.dataset_card("tiny"), workplace.home


@pytest.fixture
def roles(tiny):
    """``roles(protocol=..., fold=..., profile=..., subset=...)`` on `tiny`."""

    def make(protocol="official", fold=0, profile="natural", subset=0):
        return roles_of(*tiny, protocol=protocol, fold=fold, profile=profile, subset=subset)

    return make


def test_roles_hold_rows_and_labels_but_no_test_labels(roles, tiny):
    result = roles()
    label = tiny[0].columns("label")["label"]
    assert {r: len(v) for r, v in result.rows.items()} == {"train": 96, "val": 40, "test": 48}
    assert set(result.labels) == {"train", "val"}
    assert result.labels["train"].tolist() == label[result.rows["train"]].tolist()
    assert {r: tuple(c) for r, c in result.counts.items()} == COUNTS


def test_the_split_file_lies_in_the_home_and_its_hash_is_in_the_facts(roles, tiny):
    store, _, home = tiny
    result = roles("folds", fold=2)
    file = home.splits("tiny", store.fingerprint) / "folds.csv"
    lines = list(csv.DictReader(file.open()))
    assert [int(line["row"]) for line in lines if line["fold2"] == "test"] == result.rows["test"].tolist()
    assert result.facts["folds"] == 4
    import hashlib

    assert hashlib.sha256(file.read_bytes()).hexdigest() == result.facts["split_sha256"]


def test_a_profile_thins_training_alone_and_leaves_its_index_list(roles, tiny):
    whole, thin = roles(), roles(profile="exp:16")
    assert thin.counts["train"] == [48, 19, 8, 3]  # 48 / 16 ** (k / 3): 48, 19.05, 7.56, 3
    assert thin.rows["val"].tolist() == whole.rows["val"].tolist()
    assert thin.rows["test"].tolist() == whole.rows["test"].tolist()
    assert set(thin.rows["train"].tolist()) < set(whole.rows["train"].tolist())
    store, _, home = tiny
    listed = (home.splits("tiny", store.fingerprint) / "official-fold0-exp_16.csv").read_text().split()
    assert listed == ["row", *map(str, thin.rows["train"].tolist())]


def test_larger_ratios_lie_inside_smaller_ones(roles):
    inner, outer = (set(roles(profile=p).rows["train"].tolist()) for p in ("exp:48", "exp:16"))
    assert inner < outer


def test_draws_have_equal_sizes_differ_and_are_nested_each_for_itself(roles, tiny):
    draws = [roles(profile="exp:16", subset=k) for k in range(3)]
    assert [d.counts["train"] for d in draws] == [[48, 19, 8, 3]] * 3
    assert len({d.digest for d in draws}) == 3
    rows = [set(d.rows["train"].tolist()) for d in draws]
    for k in range(3):
        inner = set(roles(profile="exp:48", subset=k).rows["train"].tolist())
        assert inner < rows[k]
        assert not any(inner < rows[other] for other in range(3) if other != k)
    store, _, home = tiny
    folder = home.splits("tiny", store.fingerprint)
    listed = (folder / "official-fold0-exp_16-subset2.csv").read_text().split()
    assert listed == ["row", *map(str, draws[2].rows["train"].tolist())]
    assert draws[2].rows["test"].tolist() == draws[0].rows["test"].tolist()


def test_a_further_draw_of_a_profile_that_keeps_every_image_is_refused(roles, monkeypatch):
    monkeypatch.setattr(fold_rows, "pick", lambda profile, labels, classes, key: np.arange(len(labels)))
    assert roles(profile="exp:16").counts["train"] == [48, 24, 16, 8]
    with pytest.raises(SpecError, match=r"(?s)all its draws are the same.*--subsets"):
        roles(profile="exp:16", subset=1)


def test_a_missing_fold_and_an_unfit_profile_are_told(roles):
    with pytest.raises(SpecError, match="tiny/folds has no fold 4"):
        roles("folds", fold=4)
    with pytest.raises(SpecError, match="c3"):
        roles(profile="exp:2")


def test_the_clean_manifest_is_asked_for_and_used(roles, tiny):
    store, _, home = tiny
    with pytest.raises(DataError, match="fer-bench data check tiny"):
        roles("cleaned")
    save_clean(home.splits("tiny", store.fingerprint), [(5, "constant", None), (100, "duplicate of row 3", 3)])
    result = roles("cleaned")
    assert [len(result.rows[r]) for r in ("train", "val", "test")] == [95, 39, 48]
    assert result.facts["clean"]["rows"] == 2
    assert result.digest != roles().digest


def test_an_edited_split_file_has_no_effect_and_is_put_aside(roles, tiny, capsys):
    store, _, home = tiny
    first = roles("folds").digest
    path = home.splits("tiny", store.fingerprint) / "folds.csv"
    sound = path.read_text()
    path.write_text(sound.replace("train", "test", 1))
    assert roles("folds").digest == first
    assert path.read_text() == sound
    assert path.with_name("folds.csv.old").read_text() == sound.replace("train", "test", 1)
    assert f"{path} differs from the protocol's split and was ignored" in capsys.readouterr().err
    roles("folds")
    assert capsys.readouterr().err == ""


def test_an_edited_clean_manifest_is_refused(roles, tiny):
    store, _, home = tiny
    folder = home.splits("tiny", store.fingerprint)
    path = save_clean(folder, [(5, "constant", None)])
    path.write_text(path.read_text().replace("5,", "7,"))
    with pytest.raises(DataError, match=r"(?s)has changed since the doctor wrote it.*fer-bench data check tiny --home"):
        roles("cleaned")


def test_other_splits_under_one_name_make_another_run(roles, tiny):
    store, _, home = tiny
    folder = home.splits("tiny", store.fingerprint)
    save_clean(folder, [(5, "constant", None)])
    first = roles("cleaned").digest
    save_clean(folder, [(6, "constant", None)])
    assert roles("cleaned").digest != first


def test_a_run_on_a_fold_is_recorded_with_its_rows(workplace, tiny_run):
    record = execute(tiny_run(protocol="folds", fold=1, recipe={"epochs": 1}), workplace)
    assert record.status == "finished"
    protocol = record.data["protocol"]
    assert (protocol["name"], protocol["fold"], protocol["folds"]) == ("tiny/folds", 1, 4)
    store = Store.open(workplace.home.data / "tiny")
    text = (workplace.home.splits("tiny", store.fingerprint) / "folds.csv").read_text().splitlines()[1:]
    assert record.array("test_rows").tolist() == [k for k, line in enumerate(text) if line.split(",")[2] == "test"]
    label = store.columns("label")["label"]
    assert record.array("test_labels").tolist() == label[record.array("test_rows")].tolist()


def test_a_run_on_a_profile_keeps_its_index_list(workplace, tiny_run):
    record = execute(tiny_run(profile="exp:16", recipe={"epochs": 1}), workplace)
    assert record.spec["profile"] == "exp:16"
    assert record.data["counts"]["train"] == [48, 19, 8, 3]
    assert len(record.array("train_rows")) == 78
    assert "train_rows.npy" in record.json("done")["files"]


def test_a_run_on_some_classes_renumbers_them(workplace, tiny_run):
    record = execute(tiny_run(protocol="three", recipe={"epochs": 1}), workplace)
    assert record.data["classes"] == ["c3", "c1", "c0"]
    assert record.data["counts"]["test"] == [12, 12, 12]
    label = Store.open(workplace.home.data / "tiny").columns("label")["label"][record.array("test_rows")]
    assert record.array("test_labels").tolist() == [[3, 1, 0].index(k) for k in label.tolist()]
    assert record.array("test_logits").shape == (36, 3)


def test_a_run_that_selects_on_the_test_is_watermarked_in_its_record(workplace, tiny_run):
    record = execute(tiny_run(protocol="besttest", recipe={"epochs": 1}), workplace)
    assert record.data["protocol"]["watermark"] == "chosen on the test"
    assert record.array("val_rows").tolist() == record.array("test_rows").tolist()


VOTES = '''
"""Two classes whose training targets are shares of votes."""
import numpy as np
from fer_bench import Chunk, Dataset, DatasetCard, Protocol, Reading

ROLES = {"train": ("train",), "val": ("val",), "test": ("test",)}
card = DatasetCard(
    name="votes", title="votes", classes=("a", "b"), built_in=True,
    protocols=(Protocol(name="soft", train=("train",), val=("val",), test=("test",), soft=("votes_a", "votes_b")),),
)


class Votes(Dataset):
    card = card

    def read(self, source):
        return Reading(layout="drawn", summary="votes", files=[], chunks=self.chunks)

    def chunks(self):
        for split, n in (("train", 64), ("val", 16), ("test", 16)):
            label = np.arange(n) % 2
            images = np.zeros((n, 1, 16, 16), np.uint8) + 40 + 120 * label[:, None, None, None].astype(np.uint8)
            votes = {"votes_a": np.where(label == 0, 7, 2), "votes_b": np.where(label == 0, 3, 8)}
            if split == "train":
                votes["votes_a"][1] = votes["votes_b"][1] = 0
            yield Chunk(images=images, labels=label, split=[split] * n, source=[""] * n, extra=votes)
'''
SEES = """
def criterion(self, output, target):
    SEEN["target"].append(target.detach().cpu())
    return super().criterion(output, target)
"""


def test_votes_become_soft_training_targets(with_method, with_plugins, noted_by, tiny_run, tmp_path):
    from fer_bench.data.prepare import prepare

    work = with_method(SEES)
    work = with_plugins(votes=VOTES)  # beside `own`, in the same folder
    prepare(work.home, work.plugins.dataset("votes"), None, say=lambda line: None)
    execute(tiny_run("own", dataset="votes", protocol="soft", recipe={"epochs": 1, "label_smoothing": 0.0}), work)
    rows = {tuple(np.round(r, 4)) for t in noted_by(work)["target"] for r in t.double().numpy().tolist()}
    assert rows == {(0.7, 0.3), (0.2, 0.8), (0.0, 1.0)}  # the last: a row without votes keeps its label


DISTINCT = VOTES.replace(
    "            votes = {",
    "            images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n), len(split)\n            votes = {",
)
PEOPLE = DISTINCT.replace('source=[""] * n', 'source=[""] * n, subject=[f"{split}-{k // 3}" for k in range(n)]')


def test_the_record_says_which_test_images_are_of_one_person(with_plugins, tiny_run, tmp_path):
    from fer_bench.data.prepare import prepare

    work = with_plugins(votes=PEOPLE)
    prepare(work.home, work.plugins.dataset("votes"), None, say=lambda line: None)
    record = execute(tiny_run(dataset="votes", protocol="soft", recipe={"epochs": 1, "label_smoothing": 0.0}), work)
    groups = record.array("test_groups")
    assert groups.dtype == np.int64
    together = {tuple(np.flatnonzero(groups == g).tolist()) for g in groups}
    assert together == {(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (12, 13, 14), (15,)}
    assert record.json("copies")["people"] == "subject"
    assert record.array("test_copies").tolist() == [[0, 0]] * 16
    record.verify()


def test_data_without_people_and_copies_leave_no_groups(tiny_run, workplace):
    record = execute(tiny_run(recipe={"epochs": 1}), workplace)
    assert not record.has("test_groups.npy")
    assert record.array("test_copies").tolist() == [[0, 0]] * 48
    facts = record.json("copies")
    assert (facts["near"], facts["people"]) == (False, None)
    assert facts["reason"] == "the images are drawn by a program, so images that look alike are no copies"


# Test image 0 is training image 0, 1 is training image 1 with the other label, 2 is validation image 5, and 3, 4 and 5
# are identical: 3 and 5 are of class b, 4 is of class a. Training and validation images are otherwise distinct.
COPIED = DISTINCT.replace(
    "            votes = {",
    """            drawn = getattr(self, "drawn", {})
            drawn[split] = images
            self.drawn = drawn
            if split == "test":
                images[0], images[1], images[2] = drawn["train"][0], drawn["train"][1], drawn["val"][5]
                images[4] = images[5] = images[3]
                label[1] = 0
            votes = {""",
    1,
)


def test_the_record_says_which_test_images_have_copies_in_training_and_in_validation(with_plugins, tiny_run):
    from fer_bench.data.prepare import prepare

    work = with_plugins(votes=COPIED)
    prepare(work.home, work.plugins.dataset("votes"), None, say=lambda line: None)
    record = execute(tiny_run(dataset="votes", protocol="soft", recipe={"epochs": 1, "label_smoothing": 0.0}), work)
    met = record.array("test_copies")
    assert (met.dtype, met.shape) == (np.uint8, (16, 2))
    assert met[:3].tolist() == [[2, 0], [6, 0], [0, 6]]  # validation image 5 is of class b, test image 2 of class a
    assert not met[3:].any()
    groups = record.array("test_groups")
    assert (groups[3] == groups[5], groups[3] == groups[4], len(set(groups.tolist()))) == (True, False, 15)
    assert record.json("done")["files"].keys() >= {"test_copies.npy", "test_groups.npy", "copies.json"}
    record.verify()


def test_a_thinned_run_has_seen_fewer_copies(with_plugins, tiny_run):
    """Of each class's 32 training images, the profile keeps 32 and 8, so a copy in training may be left out."""
    from fer_bench.data.prepare import prepare

    work = with_plugins(votes=COPIED.replace("label[1] = 0", "images[:16] = drawn['train'][1:33:2]"))
    prepare(work.home, work.plugins.dataset("votes"), None, say=lambda line: None)
    fields = {"dataset": "votes", "protocol": "soft", "recipe": {"epochs": 1, "label_smoothing": 0.0}}
    whole, thin = (execute(tiny_run(profile=p, **fields), work) for p in ("natural", "step:4"))
    assert (whole.array("test_copies")[:, 0] & 3).tolist() == [2] * 16
    kept = np.isin(np.arange(1, 33, 2), thin.array("train_rows"))
    assert 0 < kept.sum() < 16
    assert (thin.array("test_copies")[:, 0] & 3).tolist() == np.where(kept, 2, 0).tolist()


class Table:
    """A store's columns."""

    def __init__(self, **columns):
        self._columns = {name: np.array(values) for name, values in columns.items()}
        self.column_names = list(columns)
        self.classes = ("a", "b")

    def columns(self, name):
        return {name: self._columns[name]}


def units(table, rows, labels=None, near=None):
    """Groups of test rows of a table without copies, or with these groups of near copies."""
    near = np.arange(len(next(iter(table._columns.values())))) if near is None else np.array(near)
    return groups_of_test(
        table, rows, np.zeros(len(rows), int) if labels is None else np.array(labels), Copies(near, near)
    )


def sets(groups):
    return sorted(np.flatnonzero(groups == g).tolist() for g in set(groups.tolist()))


def test_copies_are_one_unit_but_apart_where_their_labels_differ():
    table, near = Table(label=[0] * 6), [0, 0, 0, 3, 4, 3]
    assert sets(units(table, np.arange(6), [1, 0, 1, 0, 0, 0], near)) == [[0, 2], [1], [3, 5], [4]]
    first, second = (units(table, np.array(r), la, near) for r, la in (([0, 4], [1, 0]), ([2, 1], [1, 0])))
    assert first[0] == second[0]  # in another fold
    assert len({first[1], *second.tolist()}) == 3


def test_a_copy_links_the_people_that_it_is_labelled_as():
    people, near = Table(subject=["a", "a", "b", "b", "c", ""]), [0, 1, 1, 3, 4, 5]  # rows 1 and 2 are copies
    assert sets(units(people, np.arange(6), [0, 0, 1, 1, 1, 1], near)) == [[0, 1, 2, 3], [4], [5]]
    assert sets(units(people, np.array([0, 3, 4]), near=near)) == [[0, 1], [2]]  # linked by rows that are no test rows


@pytest.mark.parametrize(
    ("columns", "together"),
    [
        ({"subject": ["a", "b", "a", "", ""], "sequence": ["1", "1", "2", "2", "2"]}, [{0, 2}, {1}, {3}, {4}]),
        ({"subject": [""] * 5, "sequence": ["1", "1", "2", "", "2"]}, [{0, 1}, {2, 4}, {3}]),
        ({"subject": [7, 7, 8, 8, 9]}, [{0, 1}, {2, 3}, {4}]),  # numbers as names
    ],
    ids=["people before sequences, unnamed images alone", "sequences where nobody is named", "numbers as names"],
)
def test_images_of_one_person_or_sequence_belong_together(columns, together):
    groups = units(Table(**columns), np.arange(5))
    assert sorted(sorted(np.flatnonzero(groups == g)) for g in set(groups.tolist())) == [sorted(t) for t in together]


def test_a_person_has_one_number_in_every_fold_also_where_each_image_is_of_another_person():
    table = Table(subject=["a", "b", "a", "b", "c"])
    first, second = (units(table, np.array(rows)) for rows in ([0, 2, 4], [2, 0, 1]))
    assert first[0] == first[1] == second[0] == second[1]
    assert units(table, np.array([3, 2, 4])).tolist() == [second[2], first[0], first[2]]
    assert units(Table(label=[0, 1]), np.arange(2)) is None
    assert units(Table(subject=["", "", "a"]), np.arange(2)) is None


def test_the_facts_can_be_written_as_json(roles):
    assert json.loads(json.dumps(roles("folds").facts))["fold"] == 0
