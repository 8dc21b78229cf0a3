"""One's own images under a label: a store of its own, found again with the parameters it was prepared with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.cli.options import dataset_params
from fer_bench.cli.workplace import _fit_protocol
from fer_bench.contract.plugins import plugins
from fer_bench.data.fold_rows import roles_of
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.errors import DataError, SpecError, UnknownNameError
from fer_bench.record.home import Home

pytestmark = pytest.mark.slow  # every test prepares a set of pictures


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """24 images of two classes and six people, in class folders."""
    rng = np.random.default_rng(0)
    for k in range(24):
        folder = tmp_path / "faces" / ("calm", "cross")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"p{k // 4}_{k}.png")
    return tmp_path / "faces"


@pytest.fixture
def lab(tmp_path: Path, faces: Path):
    """The home in which they are prepared as `folder:lab`, with subjects."""
    home = Home(tmp_path / "home")
    prepare(home, plugins().dataset("folder:lab", {"subject": r"^(p\d+)"}), faces, say=lambda line: None)
    return home


def options(home: Home, *given: str) -> dict:
    return {"home": str(home.root), "dataset_set": given}


def test_a_label_makes_a_store_of_its_own(lab, faces):
    prepare(lab, plugins().dataset("folder:other"), faces, say=lambda line: None)
    assert sorted(p.name for p in lab.data.iterdir() if p.is_dir()) == ["folder@lab", "folder@other"]
    assert Store.open(lab.store("folder:lab")).manifest["dataset"] == "folder:lab"


def test_a_run_takes_the_parameters_that_the_store_was_prepared_with(lab):
    card = plugins().dataset_card("folder:lab")
    assert dataset_params(options(lab), card)["subject"] == r"^(p\d+)"
    assert dataset_params(options(lab, "subject="), card)["subject"] == ""
    assert dataset_params(options(lab), plugins().dataset_card("folder:none"))["subject"] == ""


def test_a_built_in_set_keeps_its_defaults(tmp_path):
    card = plugins().dataset_card("synthetic")
    assert dataset_params(options(Home(tmp_path)), card) == card.resolve({})


def test_people_stay_together_in_folds_of_ones_own_images(lab):
    card = plugins().dataset_card("folder:lab")
    store = Store.open(lab.store("folder:lab"))
    with pytest.raises(DataError, match="10 folds need at least 10 values of subject, and there are 6"):
        roles_of(store, card, lab, protocol="subject10", fold=9, profile="natural")
    subject = store.columns("subject")["subject"]
    assert sorted(set(subject.tolist())) == [f"p{k}" for k in range(6)]


def test_a_split_that_is_missing_leads_to_a_protocol_that_fits(lab):
    card = plugins().dataset_card("folder:lab")
    with pytest.raises(DataError, match="rerun with --protocol folder:lab/random60-20-20"):
        roles_of(Store.open(lab.store("folder:lab")), card, lab, protocol="given", fold=0, profile="natural")


@pytest.mark.parametrize("name", ["folder:", "folder:a/b", "folder:..", "folder:a b", "folder:-"])
def test_a_label_that_is_no_file_name_is_refused(name):
    with pytest.raises(SpecError, match="can't be a data set's name"):
        plugins().dataset_card(name)


def test_a_label_on_an_unknown_data_set_is_told():
    with pytest.raises(UnknownNameError, match="did you mean 'folder'"):
        plugins().dataset_card("foldr:lab")


# -- homes of earlier versions, whose folders hold a colon -----------------------------------------------------------


@pytest.fixture
def earlier(lab: Home) -> Home:
    """The home of `folder:lab` as an earlier version left it."""
    (lab.data / "folder@lab").rename(lab.data / "folder:lab")
    return lab


def folders(home: Home) -> list[str]:
    return sorted(p.name for p in home.data.iterdir() if p.is_dir() and p.name != "splits")


def test_a_store_of_an_earlier_version_is_used_and_written_anew_where_it_lies(earlier, faces):
    dataset = plugins().dataset("folder:lab", {"subject": r"^(p\d+)"})
    fingerprint = Store.open(earlier.store("folder:lab")).fingerprint
    lines: list[str] = []
    prepare(earlier, dataset, faces, say=lines.append)
    assert any("up to date" in line for line in lines)
    prepare(earlier, dataset, faces, force=True, say=lambda line: None)
    assert folders(earlier) == ["folder:lab"]
    assert Store.open(earlier.store("folder:lab")).fingerprint == fingerprint


def test_a_kill_while_it_was_written_anew_costs_nothing(earlier, faces):
    (earlier.data / "folder:lab").rename(earlier.data / ".folder:lab.old")  # between the two renamings of a swap
    lines: list[str] = []
    prepare(earlier, plugins().dataset("folder:lab", {"subject": r"^(p\d+)"}), faces, say=lines.append)
    assert any("up to date" in line for line in lines)
    assert folders(earlier) == ["folder:lab"]


def test_what_is_derived_from_it_stays_with_it(earlier):
    store = Store.open(earlier.store("folder:lab"))
    card = plugins().dataset_card("folder:lab")
    roles_of(store, card, earlier, protocol="random60-20-20", fold=0, profile="natural")
    assert [p.name for p in (earlier.data / "splits").iterdir()] == [f"folder:lab-{store.fingerprint}"]


@pytest.mark.parametrize(("asked", "taken"), [(None, "subject4"), ("dedup", "subject4-dedup"), ("given", "given")])
def test_the_protocol_that_fits_is_taken_and_its_twin_where_dedup_is_asked_for(lab, asked, taken):
    card = plugins().dataset_card("folder:lab")
    people = dataclasses.replace(card.protocol("subject10"), name="subject4", folds=4)
    card = dataclasses.replace(card, protocols=(*card.protocols, people))
    chosen = {"protocol": asked}
    _fit_protocol(chosen, Store.open(lab.store("folder:lab")), card)
    assert chosen["protocol"] == taken
