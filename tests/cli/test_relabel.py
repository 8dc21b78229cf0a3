"""``fer-bench relabel``, and `run` where a data set with other labels is prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fer_bench.contract.plugins import plugins
from fer_bench.data.prepare import prepare
from fer_bench.data.relabel import keep_labels
from fer_bench.data.store import Store
from fer_bench.record.home import Home
from fer_bench.record.ledger import Ledger, run_id
from fer_bench.record.relabelled import relabelled_names
from tests.cli.conftest import SHORT

# The images of `tiny` once more: a voter in ten takes class c0 for c3, and images of c1 have no label.
AGAIN = '''
"""The images of `tiny`, labelled anew."""
import numpy as np
from fer_bench import Chunk, Dataset, DatasetCard, Protocol, Reading, Relabelling

from .tiny import Tiny

card = DatasetCard(
    name="again",
    title="bars, labelled anew",
    classes=("one", "two", "three", "four"),
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),),
    get="ask the owner of the bars",
    relabels=Relabelling(
        of="tiny", title="Again", names={"one": "c0", "two": "c1", "three": "c2", "four": "c3"},
        votes={"c0": "v0", "c1": "v1", "c2": "v2", "c3": "v3"},
    ),
    built_in=BUILT_IN,
)


class Again(Dataset):
    card = card

    def read(self, source):
        return Reading(layout="drawn", summary="bars again", files=[], chunks=self.chunks)

    def chunks(self):
        for chunk in Tiny().chunks():
            votes = 9 * np.eye(4, dtype=int)[chunk.labels]
            votes[:, 3] += 1
            labels = np.where(chunk.labels == 1, -1, chunk.labels)
            extra = {f"v{k}": votes[:, k] for k in range(4)}
            yield Chunk(images=chunk.images, labels=labels, split=chunk.split, source=chunk.source, extra=extra)
'''


@pytest.fixture
def folder(plugin_folder: Path, tmp_path: Path) -> Path:
    """Plug-ins `tiny` and `again`."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "tiny.py").write_text((plugin_folder / "tiny.py").read_text())
    (folder / "again.py").write_text(AGAIN.replace("BUILT_IN", "True"))
    return folder


@pytest.fixture
def home(tmp_path: Path, folder: Path) -> Home:
    home, available = Home(tmp_path / "home"), plugins([folder])
    assert not available.broken
    prepare(home, available.dataset("tiny"), None, say=lambda line: None)
    return home


def prepare_again(home: Home, folder: Path) -> None:
    prepare(home, plugins([folder]).dataset("again"), None, say=lambda line: None)


def ledger_with_a_study(home: Home, fingerprint: str | None = None, dataset: str = "tiny") -> Ledger:
    """A finished run that predicts every test image of `tiny` rightly."""
    store = Store.open(home.store("tiny"))
    table = store.columns("label", "split")
    rows = np.flatnonzero(table["split"] == "test")
    labels = table["label"][rows]
    spec = {"method": "base", "params": {}, "dataset": dataset, "protocol": "official", "fold": 0, "seed": 0}
    spec |= {"profile": "natural", "selection": {"rule": "val", "metric": "mean_recall"}, "recipe": {"epochs": 1}}
    writer = home.ledger.writer(run_id(spec, "x", "y"))
    writer.start()
    data = {"dataset": dataset, "classes": list(store.classes), "fingerprint": fingerprint or store.fingerprint}
    counts = {role: [12, 12, 12, 12] for role in ("train", "val", "test")}
    writer.put("spec", {"run_id": writer.id, "label": "base", "spec": spec})
    writer.put("data", data | {"protocol": {"name": "tiny/official", "test": ["test"]}, "counts": counts})
    for name, array in {"rows": rows, "labels": labels, "logits": np.eye(4, dtype=np.float32)[labels]}.items():
        writer.put(f"test_{name}", array)
    writer.finish()
    study = {"name": "bars", "methods": ["base"], "runs": [writer.id], "dataset": dataset, "reference": None}
    home.ledger.put_study("bars", {"command": "", "kind": "run", "protocol": "official", **study})
    return home.ledger


def test_relabel_matches_the_images_and_the_report_scores_against_the_labels(call, home, folder):
    ledger = ledger_with_a_study(home)
    prepare_again(home, folder)
    before = {p: p.read_bytes() for p in ledger.root.rglob("*") if p.is_file()}
    code, out, err = call("relabel", "bars", "--home", home.root, "--plugins", folder)
    assert (code, err) == (0, "")
    # tiny has 96 + 40 + 48 images, 24 + 10 + 12 of them of c1
    assert "again: 184 of the 184 images of tiny are among its own; 138 have a label" in out
    assert f"next: fer-bench report bars --home {home.root}" in out
    assert {p: p.read_bytes() for p in before} == before  # records and studies stay as they are
    assert call("report", "bars", "--home", home.root)[0] == 0
    page = (home.results("bars") / "report.md").read_text()
    assert "about the 36 images of 48 in the test set" in page
    assert "| expected accuracy | Again votes | 36 |" in page


def test_relabel_twice_changes_nothing(call, home, folder):
    ledger_with_a_study(home)
    prepare_again(home, folder)
    assert call("relabel", "--home", home.root, "--plugins", folder)[0] == 0
    assert "they were in the ledger already" in call("relabel", "--home", home.root, "--plugins", folder)[1]


def test_a_set_that_is_not_prepared_is_named_with_the_way_to_get_it(call, home, folder):
    ledger_with_a_study(home)
    (folder / "again.py").write_text(AGAIN.replace("BUILT_IN", "False"))
    code, _, err = call("relabel", "--home", home.root, "--plugins", folder)
    assert code == 1
    assert "no prepared store for 'again'" in err
    assert "ask the owner of the bars" in err
    assert "fer-bench data prepare again --from PATH" in err


def test_a_data_set_without_other_labels_is_told_which_have_some(call, home, plugin_folder):
    ledger_with_a_study(home)
    code, _, err = call("relabel", "--home", home.root, "--plugins", plugin_folder)
    assert code == 1
    assert "no known data set labels the images of 'tiny' anew" in err
    assert "fer2013 (ferplus)" in err


def test_a_source_that_labels_other_images_is_refused(call, home, folder):
    ledger_with_a_study(home)
    code, _, err = call("relabel", "--from", "tiny", "--home", home.root, "--plugins", folder)
    assert code == 1
    assert "'tiny' does not label the images of another data set" in err


def test_runs_on_other_data_than_the_prepared_are_told_apart(call, home, folder):
    ledger = ledger_with_a_study(home, fingerprint="beef")
    prepare_again(home, folder)
    code, _, err = call("relabel", "--home", home.root, "--plugins", folder)
    assert code == 1
    assert "the runs of 'bars' are not of the data that are prepared as 'tiny'" in err
    assert "beef" in err
    assert not (ledger.root / "labels").exists()


def test_show_names_the_data_sets_that_label_the_same_images(call, folder):
    assert "again labels the same images anew" in call("show", "tiny", "--plugins", folder)[1]
    assert "labels the same images anew" not in call("show", "again", "--plugins", folder)[1]


def test_run_keeps_other_labels_where_they_are_prepared(call, home, folder):
    prepare_again(home, folder)
    words = ["baseline_resnet", "--dataset", "tiny", "--plugins", folder, "--home", home.root, *SHORT]
    code, out, err = call("run", *words)
    assert code == 0, err
    assert "again: 184 of the 184 images of tiny are among its own" in out
    fingerprint = Store.open(home.store("tiny")).fingerprint
    assert relabelled_names(home.ledger.root, fingerprint) == ["again"]
    (page,) = home.root.glob("results/*/report.md")
    assert "## Scored against other labels" in page.read_text()
    assert "again: 184" not in call("run", *words)[1]  # told once


def test_run_goes_on_where_other_labels_can_not_be_had(call, home, folder):
    prepare_again(home, folder)
    table = home.store("again") / "table.csv"
    table.write_text(table.read_text().replace("again", "changed") + "\n")
    words = ["baseline_resnet", "--dataset", "tiny", "--plugins", folder, "--home", home.root, *SHORT]
    code, out, err = call("run", *words)
    assert code == 0
    assert "no labels from again" in out + err
    assert list(home.root.glob("results/*/report.md"))


def test_labels_are_made_of_what_is_prepared_now(home, folder):
    ledger_with_a_study(home)
    prepare_again(home, folder)
    stores = Store.open(home.store("tiny")), Store.open(home.store("again"))
    found, new = keep_labels(home, *stores, plugins([folder]).dataset_card("again"))
    assert new
    assert found.classes == ("c0", "c1", "c2", "c3")
    images = stores[0].columns("label")["label"]
    assert found.labels.tolist() == [-1 if label == 1 else label for label in images.tolist()]
