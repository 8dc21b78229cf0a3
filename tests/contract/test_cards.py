from pathlib import Path

import pytest

from fer_bench.contract.card_reader import read_card
from fer_bench.contract.cards import FAMILIES, DatasetCard, MethodCard, Protocol
from fer_bench.contract.params import Float, Param
from fer_bench.errors import SpecError, UnknownNameError

ROOT = Path(__file__).parents[2]


def card_of(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text)
    return read_card(path)


def test_a_dataset_card_knows_its_protocols(tmp_path):
    text = """
card = DatasetCard(name="faces", title="t", classes=("a", "b"), counts={"train": (3, 4)},
                   protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),
                              Protocol(name="paper", train=("train",), val=("test",), test=("test",), watermark="w")))
"""
    card = card_of(tmp_path, text)
    assert isinstance(card, DatasetCard)
    assert card.protocol(None).name == "official"
    assert card.protocol("faces/paper") is card.protocol("paper")
    with pytest.raises(UnknownNameError, match="did you mean 'faces/official'"):
        card.protocol("oficial")


def test_none_is_a_default_that_takes_anything():
    assert Param(None, "h").parse("0.5", name="x", owner="own") == 0.5
    assert Param(None, "h").parse("none", name="x", owner="own") is None
    assert Param(None, "h").parse("text", name="x", owner="own") == "text"


def test_numbers_and_booleans_are_not_taken_for_each_other():
    with pytest.raises(SpecError, match="must be a whole number"):
        Param(1, "h").parse(True, name="x", owner="own")
    with pytest.raises(SpecError, match="must be a number"):
        Param(0.5, "h").parse(False, name="x", owner="own")
    with pytest.raises(SpecError, match="must be a number"):
        Param(0.5, "h", space=Float(0, 1)).parse("none", name="x", owner="own")


def test_protocols_are_plain_data():
    assert Protocol(name="p", train=("a",), val=("b",), test=("c",)).watermark == ""


@pytest.mark.parametrize(
    ("field", "given", "near"), [("family", "re-weighting", "reweighting"), ("tier", "basline", "baseline")]
)
def test_a_card_with_an_unknown_family_or_tier_is_refused_with_the_nearest(field, given, near):
    with pytest.raises(UnknownNameError, match=rf"unknown {field} '{given}'[\s\S]*'{near}'"):
        MethodCard(name="own", title="t", **{field: given})


def test_the_guide_lists_every_family():
    guide = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert [name for name, text in FAMILIES.items() if f"| `{name}` | {text} |" not in guide] == []


def test_names_of_variants_must_be_names_with_parameters_that_the_method_has():
    def card(**also_known):
        return MethodCard(
            name="own", title="t", params={"tau": Param(0.5, "h", low=0.0, high=2.0)}, also_known=also_known
        )

    assert card(level="tau=1", plain="").also_known == {"level": "tau=1", "plain": ""}
    with pytest.raises(UnknownNameError, match="unknown parameter 'tua'"):
        card(level="tua=1")
    with pytest.raises(SpecError, match="tau=3 is out of range"):
        card(level="tau=3")
    with pytest.raises(SpecError, match="'tau' is not key=value"):
        card(level="tau")
    with pytest.raises(SpecError, match="'own' is its own name"):
        card(own="tau=1")
    with pytest.raises(SpecError, match="can't be a plug-in's name"):
        card(**{"level softmax": "tau=1"})


def test_a_parameter_may_need_values_of_others():
    mix = Param("none", "h", choices=("none", "mixup", "cutmix"))
    alpha = Param(1.0, "h", low=0.0, high=9.0, when=({"mix": ("mixup", "cutmix")},))
    card = MethodCard(name="own", title="t", params={"mix": mix, "mix.alpha": alpha})
    assert card.choose({"mix": "mixup", "mix.alpha": 2}) == {"mix": "mixup", "mix.alpha": 2.0}
    assert card.choose({"mix.alpha": 1}) == {"mix": "none", "mix.alpha": 1.0}
    assert card.resolve({"mix.alpha": 2}) == {"mix": "none", "mix.alpha": 2.0}, "a record of before is read"
    with pytest.raises(SpecError, match=r"mix\.alpha=2\.0 has no effect with mix=none") as caught:
        card.choose({"mix.alpha": 2})
    assert caught.value.hint == "leave mix.alpha out, or set mix to mixup or cutmix"
    for case, error in (({"mx": ("mixup",)}, UnknownNameError), ({"mix": ("mixop",)}, SpecError)):
        with pytest.raises(error, match=r"mx|mixop"):
            MethodCard(
                name="own", title="t", params={"mix": mix, "a": Param(1.0, "h", low=0.0, high=9.0, when=(case,))}
            )
