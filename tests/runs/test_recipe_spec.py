from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.contract.cards import MethodCard
from fer_bench.contract.params import Float, Param, Variant, parse_variant
from fer_bench.contract.plugins import Plugins, plugins
from fer_bench.errors import SpecError, UnknownNameError
from fer_bench.runs.spec import (
    RunSpec,
    Selection,
    StudySpec,
    choose_reference,
    expand,
    label_of,
    study_name,
)
from fer_bench.training.recipe import PRESETS, Recipe, parse_assignments, preset

CARD = MethodCard(
    name="own",
    title="t",
    params={
        "share.source": Param("mean", "h", choices=("mean", "ema", 0, 1)),
        "gamma": Param(2.0, "h", low=0.0, high=5.0, space=Float(0, 5)),
        "steps": Param(3, "h", low=1),
        "hard": Param(False, "h"),
    },
)
TEMPLATE = {"dataset": "tiny", "protocol": "official", "backbone": "resnet10_tiny", "recipe": Recipe()}


@pytest.fixture(scope="module")
def found() -> Plugins:
    return plugins()


# -- variants and labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "given_"),
    [
        ("rasn", "rasn", {}),
        ("rasn[]", "rasn", {}),
        ("rasn[share.source=ema]", "rasn", {"share.source": "ema"}),
        (" rasn[a=1, b = x=y ,] ", "rasn", {"a": "1", "b": "x=y"}),
    ],
)
def test_a_variant_is_a_name_with_parameters_in_brackets(text, name, given_):
    assert parse_variant(text.strip()) == Variant(name, given_)


@pytest.mark.parametrize(
    ("text", "told"),
    [("own[a=1", "no closing bracket"), ("own[a]", "'a' is not key=value"), ("own[a=1,a=2]", "'a' is given twice")],
)
def test_a_malformed_variant_is_told(text, told):
    with pytest.raises(SpecError, match=told):
        parse_variant(text)


def test_values_take_the_type_of_their_parameter():
    found = CARD.resolve({"gamma": "3", "steps": "7", "hard": "true", "share.source": "1"})
    assert found == {"gamma": 3.0, "steps": 7, "hard": True, "share.source": 1}
    assert isinstance(found["gamma"], float)
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"gama": 1}, "unknown parameter 'gama'[\\s\\S]*did you mean 'gamma'"),
        ({"gamma": "much"}, "gamma must be a number, not 'much'"),
        ({"gamma": "6"}, r"gamma=6 is out of range[\s\S]*0 to 5"),
        ({"gamma": "nan"}, "must be a number"),
        ({"steps": "0"}, "steps=0 is out of range"),
        ({"steps": "2.5"}, "steps must be a whole number"),
        ({"steps": "true"}, "steps must be a whole number"),
        ({"hard": "1"}, "hard must be true or false"),
        ({"share.source": "median"}, r"can't be 'median'[\s\S]*mean, ema, 0, 1"),
    ],
)
def test_values_that_do_not_fit_are_told_with_what_would(wrong, told):
    with pytest.raises(SpecError if "unknown" not in told else UnknownNameError, match=told):
        CARD.resolve(wrong)


def test_labels_name_what_differs_from_the_defaults_in_one_order():
    assert label_of(CARD, CARD.resolve({})) == "own"
    assert label_of(CARD, CARD.resolve({"gamma": "2", "share.source": "mean"})) == "own"
    one = label_of(CARD, CARD.resolve({"steps": "4", "gamma": "1.50"}))
    assert one == label_of(CARD, CARD.resolve({"gamma": 1.5, "steps": 4})) == "own[gamma=1.5,steps=4]"
    again = parse_variant(one)
    assert label_of(CARD, CARD.resolve(again.given)) == one


@given(gamma=st.floats(0, 5), steps=st.integers(1, 10**6), hard=st.booleans())
def test_a_label_typed_again_gives_the_same_parameters(gamma, steps, hard):
    params = CARD.resolve({"gamma": gamma, "steps": steps, "hard": hard})
    assert CARD.resolve(parse_variant(label_of(CARD, params)).given) == params


# -- recipe ----------------------------------------------------------------------------------------------------------


def test_recipe_takes_text_and_values_over_a_preset():
    recipe = Recipe.build({"epochs": 8, "lr": 0.004}, {"lr": "0.05", "erase": "0", "batch_size": 32, "epochs": "12"})
    assert (recipe.epochs, recipe.lr, recipe.erase, recipe.batch_size) == (12, 0.05, 0.0, 32)
    assert isinstance(recipe.erase, float)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("learning_rate", "1", "unknown recipe field 'learning_rate'"),
        ("epoch", "1", "did you mean 'epochs'"),
        ("epochs", "0", "epochs=0 is out of range"),
        ("epochs", "3.5", "epochs must be a whole number"),
        ("lr", "fast", "lr must be a number"),
        ("lr", "0", "out of range"),
        ("lr", "1e400", "out of range"),
        ("optimizer", "adam", r"can't be 'adam'[\s\S]*sgd, adamw"),
        ("flip", "1.1", "out of range"),
    ],
)
def test_recipe_refuses_what_does_not_fit(name, value, told):
    with pytest.raises((SpecError, UnknownNameError), match=told):
        Recipe.build({}, {name: value})


def test_warm_up_of_a_shortened_run_leaves_time_to_come_down():
    assert Recipe.build({"warmup_epochs": 5.0, "epochs": 100}, {"epochs": 5}).warmup_epochs == 1.0
    assert Recipe.build({"warmup_epochs": 5.0, "epochs": 100}, {"epochs": 6}).warmup_epochs == 5.0


def test_every_preset_is_a_valid_recipe():
    for chosen in PRESETS.values():
        recipe = Recipe.build({}, chosen.recipe)
        assert Recipe.build(recipe.to_dict(), {}) == recipe
        for name, param in Recipe.options().items():
            param.parse(getattr(recipe, name), name=name, owner="recipe")


def test_auto_preset_depends_on_the_hardware_and_unknown_ones_are_told():
    assert preset("auto", has_gpu=True)[0] == "full"
    assert preset("auto", has_gpu=False)[0] == "quick"
    with pytest.raises(UnknownNameError, match="did you mean 'quick'"):
        preset("quik", has_gpu=False)


def test_assignments_are_name_equals_value():
    assert parse_assignments(("a=1", "b=x=y", "c="), "--set") == {"a": "1", "b": "x=y", "c": ""}
    for wrong in (("a",), ("=1",), ("a=1", "a=2")):
        with pytest.raises(SpecError, match="--set"):
            parse_assignments(wrong, "--set")


# -- runs and studies ------------------------------------------------------------------------------------------------


def test_a_run_survives_the_way_to_plain_data_and_back():
    spec = RunSpec(**TEMPLATE, method="own", params={"b": 1, "a": 0.5}, seed=3, test=False,
                   selection=Selection(rule="last", metric="accuracy"))  # fmt: skip
    data = spec.to_dict()
    assert list(data["params"]) == ["a", "b"]
    again = RunSpec.from_dict(data)
    assert again.to_dict() == data
    assert again.recipe == spec.recipe
    assert again.selection == spec.selection


def test_draw_0_is_not_written_so_that_ids_of_earlier_versions_stay():
    spec = RunSpec(**TEMPLATE, method="own", profile="exp:50")
    assert spec.subset == 0
    assert "subset" not in spec.to_dict()
    later = RunSpec(**TEMPLATE, method="own", profile="exp:50", subset=2)
    assert later.to_dict() == spec.to_dict() | {"subset": 2}
    assert RunSpec.from_dict(later.to_dict()).subset == 2


def test_a_recipe_without_flip_at_test_does_not_write_it_so_that_ids_of_earlier_versions_stay():
    recipe = Recipe()
    spec = RunSpec(**TEMPLATE | {"recipe": recipe}, method="own")
    assert "test_flip" not in spec.to_dict()["recipe"]
    assert RunSpec.from_dict(spec.to_dict()).recipe == recipe
    flipped = RunSpec(**TEMPLATE | {"recipe": Recipe.build({}, {"test_flip": "true"})}, method="own")
    assert flipped.to_dict()["recipe"] == spec.to_dict()["recipe"] | {"test_flip": True}
    assert RunSpec.from_dict(flipped.to_dict()).recipe.test_flip is True


def test_every_seed_has_every_subset_and_the_first_seed_comes_first(found):
    runs, labels = expand(
        found, [Variant("baseline_resnet"), Variant("baseline_focal")], (0, 1), TEMPLATE | {"profile": "exp:50"},
        subsets=range(3),
    )  # fmt: skip
    assert len(labels) == 2
    assert [(r.seed, r.subset) for r in runs[::2]] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [(r.seed, r.subset) for r in runs[1::2]] == [(r.seed, r.subset) for r in runs[::2]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"subset": 1}, "natural training set has one draw"),
        ({"subset": -1, "profile": "exp:5"}, "must not be negative"),
        ({"sead": 1}, "unknown run field 'sead'[\\s\\S]*'seed'"),
        ({"profile": "natur"}, "did you mean 'natural'"),
        ({"seed": -1}, "must not be negative"),
        ({"selection": {"metric": "recall"}}, "did you mean 'mean_recall'"),
        ({"selection": {"rule": "test"}}, "unknown selection rule 'test'"),
        ({"selection": {"rul": "val"}}, "unknown selection field 'rul'[\\s\\S]*'rule'"),
        ({"recipe": {"learning": 1}}, "unknown recipe field 'learning'"),
    ],
)
def test_a_run_refuses_unknown_keys_and_values(change, told):
    data = RunSpec(**TEMPLATE, method="own").to_dict()
    with pytest.raises((SpecError, UnknownNameError), match=told):
        RunSpec.from_dict(data | change)


def test_a_run_without_a_required_field_is_told_which():
    data = RunSpec(**TEMPLATE, method="own").to_dict()
    for name in ("method", "dataset", "protocol", "backbone", "recipe"):
        with pytest.raises(SpecError, match=f"lacks {name}"):
            RunSpec.from_dict({k: v for k, v in data.items() if k != name})


def test_runs_vary_the_seed_slowest(found):
    variants = [parse_variant(t) for t in ("baseline_focal", "baseline_focal[gamma=1]", "baseline_resnet")]
    runs, labels = expand(found, variants, range(2), TEMPLATE)
    assert labels == ("baseline_focal", "baseline_focal[gamma=1.0]", "baseline_resnet")
    assert [(r.seed, r.params.get("gamma")) for r in runs] == [(s, g) for s in (0, 1) for g in (2.0, 1.0, None)]
    assert runs[0].params["weights"] == "none", "defaults are written out"


@pytest.mark.parametrize("again", ["baseline_focal", "baseline_focal[gamma=2]", "baseline_focal[gamma=2.0]"])
def test_one_method_twice_is_refused(found, again):
    with pytest.raises(SpecError, match="'baseline_focal' is listed twice"):
        expand(found, [parse_variant("baseline_focal"), parse_variant(again)], range(1), TEMPLATE)


def test_gains_are_measured_against_the_plain_baseline_unless_said_otherwise(found):
    names = ("rasn", "baseline_focal", "baseline_resnet")
    runs, labels = expand(found, [parse_variant(n) for n in names], range(2), TEMPLATE)
    assert choose_reference(found, labels, runs, None) == "baseline_resnet"
    assert choose_reference(found, labels, runs, "rasn") == "rasn"
    with pytest.raises(UnknownNameError, match="did you mean 'baseline_focal'"):
        choose_reference(found, labels, runs, "baseline_focl")
    two = expand(found, [parse_variant(n) for n in names[:2]], range(1), TEMPLATE)
    assert choose_reference(found, two[1], two[0], None) == "baseline_focal"
    one = expand(found, [parse_variant("rasn")], range(1), TEMPLATE)
    assert choose_reference(found, one[1], one[0], None) == "rasn"


@pytest.mark.parametrize("given", ["baseline_focal[gamma=1]", "baseline_focal[gamma=1.0,weights=none]"])
def test_the_reference_may_be_spelled_as_the_method_was(found, given):
    methods = [parse_variant("rasn"), parse_variant("baseline_focal[gamma=1]")]
    runs, labels = expand(found, methods, range(2), TEMPLATE)
    assert choose_reference(found, labels, runs, given) == "baseline_focal[gamma=1.0]"
    with pytest.raises(UnknownNameError):
        choose_reference(found, labels, runs, "baseline_focal[gamma=2]")


def test_study_names_differ_where_runs_do(found):
    runs, labels = expand(found, [Variant("rasn"), Variant("baseline_focal")], range(2), TEMPLATE)
    name = study_name("tiny", labels, runs)
    assert name.startswith("tiny-rasn-baseline_focal-")
    assert name == study_name("tiny", labels, runs)
    assert name != study_name("tiny", labels, tuple(replace(r, backbone="resnet18") for r in runs))


def test_study_record_holds_what_a_report_needs(found):
    runs, labels = expand(found, [Variant("rasn")], range(2), TEMPLATE)
    study = StudySpec(name="s", command="c", runs=runs, labels=labels, reference="rasn")
    expected = {"name": "s", "command": "c", "dataset": "tiny", "protocol": "official", "runs": ["x", "y"]}
    assert study.record(["x", "y"]) == expected | {
        "methods": ["rasn"],
        "reference": "rasn",
        "kind": "run",
        "second_reference": None,
    }
