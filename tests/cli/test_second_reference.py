"""Which second reference a study gets. Cards alone decide; nothing is trained here."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fer_bench.cli.run import _study, run
from fer_bench.contract.plugins import plugins
from fer_bench.errors import SpecError
from fer_bench.record.ledger import Ledger
from fer_bench.runs.spec import second_reference
from fer_bench.runs.study import check_name_is_free
from fer_bench.tuning.best import Tuned

READOUT = """
from fer_bench import Method, MethodCard
card = MethodCard(name="{name}", title="t", readout_of="{of}", tier="{tier}")
class Readout(Method):
    card = card
"""


@pytest.fixture
def study(tiny_run, plugin_folder, tmp_path):
    """``study(*words, **readouts)``: the study that `fer-bench run` makes of these words on `tiny`."""
    spec = tiny_run()
    template = {
        n: getattr(spec, n)
        for n in ("dataset", "dataset_params", "protocol", "profile", "backbone", "pretrained", "selection", "recipe")
    }

    def make(*words: str, readouts: dict[str, tuple[str, str]] | None = None):
        for name, (of, tier) in (readouts or {}).items():
            (tmp_path / f"{name}.py").write_text(READOUT.format(name=name, of=of, tier=tier))
        work = SimpleNamespace(plugins=plugins([plugin_folder, tmp_path]))
        options = run.make_context("run", [*words, "--dataset", "tiny"]).params
        return _study(options["methods"], options, template, "demo", work, several=False)

    return make


def test_a_study_of_plain_cross_entropy_has_it_on_every_seed(study):
    made = study("rasn", "baseline_resnet", "--seeds", "2")
    assert made.labels == ("rasn", "baseline_resnet", "logit_adjust_posthoc")
    assert (made.reference, made.second_reference) == ("baseline_resnet", "logit_adjust_posthoc")
    assert [(r.method, r.seed) for r in made.runs] == [(m, s) for s in (0, 1) for m in made.labels]
    assert made.record(["x"])["second_reference"] == "logit_adjust_posthoc"


def test_it_is_left_out_on_request_and_the_studys_name_does_not_depend_on_it(study):
    plain, both = study("rasn", "baseline_resnet", "--no-second-reference"), study("rasn", "baseline_resnet")
    assert plain.second_reference is None
    assert plain.labels == ("rasn", "baseline_resnet")
    assert plain.record(["x"])["second_reference"] is None
    assert plain.name == both.name


def test_one_that_was_asked_for_is_not_added_again_and_is_never_the_first(study):
    made = study("logit_adjust_posthoc", "baseline_resnet")
    assert made.labels == ("logit_adjust_posthoc", "baseline_resnet")
    assert (made.reference, made.second_reference) == ("baseline_resnet", "logit_adjust_posthoc")


def test_a_variant_is_not_the_second_reference(study):
    made = study("baseline_resnet", "logit_adjust_posthoc[tau=1]")
    assert made.labels == ("baseline_resnet", "logit_adjust_posthoc[tau=1.0]", "logit_adjust_posthoc")


def test_a_reference_of_ones_own_has_none_unless_a_card_reads_it_out(study):
    assert study("baseline_focal", "baseline_resnet", "--reference", "baseline_focal").second_reference is None
    readouts = {"shifted": ("baseline_focal", "second reference"), "other": ("baseline_focal", "method")}
    made = study("baseline_focal", "--reference", "baseline_focal", readouts=readouts)
    assert made.second_reference == "shifted"
    assert made.labels == ("baseline_focal", "shifted")
    assert study("baseline_focal[gamma=1]").second_reference is None, "it would read another network out"


def test_two_that_claim_to_be_it_are_an_error(study):
    with pytest.raises(SpecError) as caught:
        study("baseline_resnet", readouts={"shifted": ("baseline_resnet", "second reference")})
    assert "logit_adjust_posthoc and shifted" in caught.value.what
    assert "--no-second-reference" in caught.value.next


def test_it_takes_the_recipe_of_a_tuned_reference(study, monkeypatch, tiny_run):
    tuned = tiny_run(recipe={"lr": 0.01}).recipe

    def found(variants, template, preset, work):
        return Tuned(list(variants), {"baseline_resnet": {"recipe": tuned}}, {})

    monkeypatch.setattr("fer_bench.cli.run._tuned", found)
    made = study("baseline_resnet", "--tuned", "--seeds", "1")
    assert [r.recipe.lr for r in made.runs] == [0.01, 0.01]


def test_a_study_may_lose_its_second_reference_but_no_other_run(study, tmp_path):
    made, ledger = study("baseline_resnet", "rasn", "--seeds", "1", "--name", "s"), Ledger(tmp_path / "ledger")
    keys = [c * 16 for c in "abc"]
    for key, spec, label in zip(keys, made.runs, made.labels, strict=True):
        writer = ledger.writer(key)
        writer.start()
        writer.put("spec", {"label": label, "spec": spec.to_dict()})
        writer.finish()
    ledger.put_study("s", made.record(keys))
    check_name_is_free(study("baseline_resnet", "rasn", "--seeds", "1", "--name", "s", "--no-second-reference"), ledger)
    with pytest.raises(SpecError, match="already"):
        check_name_is_free(replace(made, runs=made.runs[:1]), ledger)


def test_the_reference_has_its_default_parameters(tiny_run):
    available = plugins()
    assert second_reference(available, tiny_run("baseline_resnet")) == "logit_adjust_posthoc"
    assert second_reference(available, tiny_run("logit_adjust_posthoc")) is None
