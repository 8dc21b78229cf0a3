"""Runs that are read out of the stored logits of another run: nothing is trained, and nothing is done twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fer_bench.errors import FerBenchError, LedgerError, PluginError, PrunedTrial
from fer_bench.record.ledger import UNHASHED
from fer_bench.runs.executor import Workplace, execute, identify
from fer_bench.runs.readout import base_of
from fer_bench.runs.spec import RunSpec, StudySpec
from fer_bench.runs.study import run_study
from fer_bench.training.checkpoint import load_plain
from fer_bench.training.job import Listener

SHIFT = '''
"""Adds the class number times what validation says."""
import numpy as np
from fer_bench import Method, MethodCard

card = MethodCard(name="shift", title="a shift", readout_of="baseline_resnet", tier="second reference")


class Shift(Method):
    card = card

    def fit_posthoc(self, model, val):
        assert not list(model.parameters()) and val.features is None
        self.step, self.seen = 0.25, np.bincount(val.labels)

    def adjust(self, logits, features):
        return logits + self.step * np.arange(logits.shape[1])

    def state_dict(self):
        return {"step": self.step, "seen": self.seen}

    def load_state_dict(self, state):
        self.step, self.seen = state["step"], state["seen"]
'''
COUNTED = ("train", "score", "probe", "fit_readout", "apply_readout", "probe_readout")


@pytest.fixture
def roles(monkeypatch):
    """The roles that processes have been started for."""
    from fer_bench.runs.forkserver import ForkServer

    played, call = [], ForkServer.call

    def counted(self, role, *rest):
        played.append(role)
        return call(self, role, *rest)

    monkeypatch.setattr(ForkServer, "call", counted)
    return played


def short(tiny_run, method: str = "shift", **fields) -> RunSpec:
    return tiny_run(method, **{"recipe": {"epochs": 2}, **fields})


def read_of(spec: RunSpec, work: Workplace):
    """The record of the run that `spec` is read out of."""
    return work.home.ledger.run(identify(base_of(spec, work.plugins), work)[0])


def test_a_read_out_is_the_stored_logits_adjusted(with_plugins, tiny_run, roles):
    work, base_spec = with_plugins(shift=SHIFT), short(tiny_run, "baseline_resnet")
    base = execute(base_spec, work)
    del roles[:]
    record = execute(short(tiny_run), work)
    assert roles == ["fit_readout", "apply_readout", "probe_readout", "probe_readout"], "no image, no training"
    for role in ("val", "test"):
        expected = base.array(f"{role}_logits") + 0.25 * np.arange(4)
        np.testing.assert_allclose(record.array(f"{role}_logits"), expected, rtol=1e-6)
        assert record.array(f"{role}_logits").dtype == np.float32
    same = (
        "history.json",
        "selection.json",
        "data.json",
        *(f"{r}_{a}.npy" for r in ("val", "test") for a in ("rows", "labels")),
    )
    assert {n: (record.path / n).read_bytes() for n in same} == {n: (base.path / n).read_bytes() for n in same}
    assert not record.has("test_epochs.npy"), "only classes of other epochs were stored, which can't be adjusted"
    derived = record.json("derived")
    assert derived["run_id"] == base.id
    assert derived["learned"] == {"step": 0.25, "seen": [10, 10, 10, 10]}
    assert record.json("spec")["base"] == base.id
    assert record.json("method")["readout_of"] == "baseline_resnet"
    assert record.json("timing")["epoch_seconds"] == []
    record.verify()


def test_its_weights_are_the_networks_with_what_was_fitted(with_plugins, tiny_run):
    work = with_plugins(shift=SHIFT)
    record = execute(short(tiny_run), work)
    mine, theirs = (load_plain(r.path / "model.pt") for r in (record, read_of(short(tiny_run), work)))
    assert mine["model"].keys() == theirs["model"].keys()
    assert all((mine["model"][k] == theirs["model"][k]).all() for k in mine["model"])
    assert mine["method"]["step"] == 0.25


def test_the_network_is_trained_once_whatever_the_order(with_plugins, tiny_run, roles):
    work = with_plugins(shift=SHIFT)
    runs = (short(tiny_run), short(tiny_run, "baseline_resnet"))
    study = StudySpec(name="s", command="c", runs=runs, labels=("shift", "baseline_resnet"), reference=None)
    said: list[str] = []
    outcome = run_study(study, work, say=said.append)
    assert outcome.failed == {}
    assert [r.status for r in outcome.finished] == ["finished", "finished"]
    assert roles.count("train") == 1
    assert "without training" in said[1]
    del roles[:]
    assert run_study(study, work, say=said.append).reused == 2
    assert [r for r in roles if r in COUNTED] == [], "the second time nothing is done"


def test_the_probe_covers_the_network_and_the_adjustment(with_plugins, tiny_run):
    work = with_plugins(shift=SHIFT)
    record = execute(short(tiny_run), work)
    base, probe = read_of(short(tiny_run), work), record.json("probe")
    network = base.json("probe")["checks"]
    assert probe["checks"][: len(network)] == network
    own = probe["checks"][len(network) :]
    assert [c["name"].split()[0] for c in own] == ["adjustment"] * 3
    assert [c["max_difference"] for c in own] == [0.0] * 3
    assert base.id in probe["note"]
    assert probe["transductive"] is False


def test_an_adjustment_that_mixes_images_is_flagged(with_plugins, tiny_run):
    mixing = SHIFT.replace("return logits + self.step * np.arange(logits.shape[1])", "return logits - logits.mean(0)")
    record = execute(short(tiny_run), with_plugins(shift=mixing))
    assert record.json("probe")["transductive"] is True


def test_the_seal_counts_no_opening_but_inherits_what_was_refused(with_plugins, tiny_run):
    work = with_plugins(shift=SHIFT)
    execute(short(tiny_run, "baseline_resnet"), work)
    base = read_of(short(tiny_run), work)
    seal = {**base.json("seal"), "blocked": [{"event": "open", "file": "images.npy"}]}
    work.home.ledger.writer(base.id).put("seal", seal)
    work.home.ledger.writer(base.id).finish()
    record = execute(short(tiny_run), work)
    assert record.json("seal") == {"count": 0, "openings": [], "blocked": seal["blocked"]}


def test_another_network_gives_another_run(with_plugins, tiny_run, tmp_path):
    network = """
from fer_bench import Method, MethodCard
card = MethodCard(name="network", title="n")
class Network(Method):
    card = card
    def on_epoch_start(self, epoch, model):
        self.mark = 1
"""
    of_network = SHIFT.replace('"baseline_resnet"', '"network"').replace("(Method)", "(Network)")
    of_network = of_network.replace("import Method, MethodCard", "import MethodCard\nfrom .network import Network")
    work = with_plugins(network=network, shift=of_network)
    first = identify(short(tiny_run), work)[0]
    work = with_plugins(network=network.replace("mark = 1", "mark = 2"))
    second = identify(short(tiny_run), work)[0]
    assert first != second
    assert identify(short(tiny_run), with_plugins(network=network))[0] == first


def test_an_id_depends_on_the_network_even_where_the_code_does_not(with_plugins, tiny_run):
    """The read-out's file does not import its network's, so the code that it can reach says nothing of that."""
    network = "from fer_bench import Method, MethodCard\ncard = MethodCard(name='network', title='n')\n"
    network += "class Network(Method):\n    card = card\n    mark = 1\n"
    apart = SHIFT.replace('"baseline_resnet"', '"network"')
    work = with_plugins(network=network, shift=apart)
    first, source = identify(short(tiny_run), work)[0], work.plugins.method("shift").source_hash()
    work = with_plugins(network=network.replace("mark = 1", "mark = 2"))
    assert work.plugins.method("shift").source_hash() == source
    assert identify(short(tiny_run), work)[0] != first


def test_ids_of_methods_that_train_are_what_they_were(workplace, tiny_run):
    import fer_bench.record.ledger as ledger

    spec = short(tiny_run, "baseline_focal", params=workplace.plugins.method("baseline_focal").card.resolve({}))
    key, store = identify(spec, workplace)
    source = workplace.plugins.method("baseline_focal").source_hash()
    execute(spec, workplace)
    rows = workplace.home.ledger.run(key).json("spec")["rows"]
    text = {"spec": spec.to_dict(), "fingerprint": store.fingerprint, "source": source, "rows": rows}
    import hashlib

    from fer_bench.base.files import canonical_json

    digest = hashlib.sha256(canonical_json({**text, "numerics": ledger.NUMERICS}).encode()).hexdigest()
    assert key == digest[:16]


@pytest.mark.parametrize("lost", ["val_logits.npy", "test_logits.npy", "val_labels.npy"])
def test_a_record_without_outputs_is_named_with_what_to_do(with_plugins, tiny_run, lost):
    work = with_plugins(shift=SHIFT)
    base = execute(short(tiny_run, "baseline_resnet"), work)
    (base.path / lost).unlink()
    with pytest.raises(LedgerError) as caught:
        execute(short(tiny_run), work)
    assert base.id in caught.value.what
    assert lost in caught.value.what
    assert "--no-second-reference" in caught.value.next
    assert work.home.ledger.run(identify(short(tiny_run), work)[0]).status == "failed"


def test_a_record_that_has_changed_is_not_read_out(with_plugins, tiny_run):
    work = with_plugins(shift=SHIFT)
    base = execute(short(tiny_run, "baseline_resnet"), work)
    np.save(base.path / "test_logits.npy", base.array("test_logits") + 1)
    with pytest.raises(LedgerError, match="has changed since the run"):
        execute(short(tiny_run), work)


def test_a_read_out_of_an_earlier_record_does_not_pass_for_a_fresh_one(with_plugins, tiny_run):
    work = with_plugins(shift=SHIFT)
    record = execute(short(tiny_run), work)
    base = work.home.ledger.writer(read_of(short(tiny_run), work).id)
    base.put("test_logits", base.array("test_logits") + 1)
    base.finish()
    with pytest.raises(LedgerError) as caught:
        execute(short(tiny_run), work)
    assert caught.value.next.startswith("rm -r")
    study = StudySpec(name="s", command="c", runs=(short(tiny_run),), labels=("shift",), reference=None)
    assert list(run_study(study, work, say=lambda line: None).failed) == [record.id]
    shutil.rmtree(record.path)
    assert execute(short(tiny_run), work).json("derived")["done"] != record.id


def test_a_record_can_be_read_after_its_network_is_gone(with_plugins, tiny_run):
    work = with_plugins(shift=SHIFT)
    record = execute(short(tiny_run), work)
    shutil.rmtree(read_of(short(tiny_run), work).path)
    assert execute(short(tiny_run), work).id == record.id
    record.verify()
    assert record.array("test_logits").shape == (48, 4)


OVERRIDES = "\n    def criterion(self, output, target):\n        return output.logits.mean()\n"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (SHIFT + OVERRIDES, "may not override criterion"),
        (SHIFT.replace('readout_of="baseline_resnet"', 'readout_of="posthoc"'), "which adjusts its logits itself"),
        (SHIFT.replace('readout_of="baseline_resnet"', 'readout_of="logit_adjust_posthoc"'), "which trains no network"),
    ],
)
def test_what_can_not_be_read_out_is_refused(with_plugins, tiny_run, changed, message):
    posthoc = SHIFT.replace('readout_of="baseline_resnet", tier="second reference"', "").replace('"shift"', '"posthoc"')
    posthoc = posthoc.replace("assert", "pass #").replace("    def fit", "    step, seen = 0.0, 0\n\n    def fit")
    work = with_plugins(shift=changed, posthoc=posthoc)
    with pytest.raises(PluginError, match=message):
        execute(short(tiny_run, recipe={"epochs": 1}), work)


def test_where_the_network_fails_so_does_its_read_out_and_it_is_tried_once(with_plugins, tiny_run, roles):
    network = "from fer_bench import FerBenchError, Method, MethodCard\ncard = MethodCard(name='network', title='n')\n"
    network += "class Network(Method):\n    card = card\n    def on_epoch_start(self, epoch, model):\n"
    network += "        raise FerBenchError('gives up')\n"
    work = with_plugins(network=network, shift=SHIFT.replace('"baseline_resnet"', '"network"'))
    runs = (short(tiny_run, "network"), short(tiny_run))
    study = StudySpec(name="s", command="c", runs=runs, labels=("network", "shift"), reference="network")
    outcome = run_study(study, work, say=lambda line: None)
    assert len(outcome.failed) == 2
    assert roles.count("train") == 1
    with pytest.raises(FerBenchError, match="gives up"):
        execute(runs[1], work)
    assert work.home.ledger.run(identify(runs[1], work)[0]).status == "failed"


def test_a_trial_that_is_stopped_early_stops_its_read_out(with_plugins, tiny_run):
    class Prune(Listener):
        def epoch(self, entry):
            raise PrunedTrial("below the median")

    work = with_plugins(shift=SHIFT)
    trial = replace(short(tiny_run), test=False)
    with pytest.raises(PrunedTrial):
        execute(trial, replace(work, listener=lambda spec, label: Prune()))
    record = execute(trial, work)
    assert record.status == "pruned"
    assert len(record.json("history")) == 1


def test_a_trial_reads_out_validation_alone(with_plugins, tiny_run, roles):
    record = execute(replace(short(tiny_run), test=False), with_plugins(shift=SHIFT))
    assert [r for r in roles if r in COUNTED] == ["train", "fit_readout"]
    assert record.has("val_logits.npy")
    assert not record.has("test_logits.npy")


def test_a_read_out_that_is_killed_ends_in_the_same_record(with_plugins, tiny_run, copy_of, server):
    work, spec = with_plugins(shift=SHIFT), short(tiny_run)
    execute(short(tiny_run, "baseline_resnet"), work)
    calm = copy_of("calm", work)
    assert server(calm, spec)["said"] == "done"
    ours = home_record(calm, spec)
    names = {p.name for p in ours.path.iterdir()} - set(UNHASHED)
    for moment in ("before spec.json 1", "after val_logits.npy 1", "before probe.json 1", "before done.json 1"):
        stormy = copy_of(moment, work)
        assert server(stormy, spec, at=moment)["killed"], moment
        assert server(stormy, spec)["said"] == "done"
        theirs = home_record(stormy, spec)
        same = {n: (ours.path / n).read_bytes() == (theirs.path / n).read_bytes() for n in names}
        assert [n for n, equal in same.items() if not equal] == [], moment
        assert json.loads((theirs.path / "done.json").read_text())["files"].keys() == names


def home_record(work: Workplace, spec: RunSpec):
    return work.home.ledger.run(identify(spec, work)[0])
