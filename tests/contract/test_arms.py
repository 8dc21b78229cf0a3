"""The arms of a card, read from its file and checked before anything is trained."""

import pytest

from fer_bench import Arm, MethodCard, Param, SpecError
from fer_bench.contract.card_reader import read_card
from fer_bench.errors import PluginError, UnknownNameError

PARAMS = {"gate": Param("mean", "h", choices=("none", "mean")), "width": Param(8, "h", low=1, high=64)}


def card(**arms):
    return MethodCard(name="own", title="t", params=PARAMS, arms=arms)


def test_a_card_lists_arms_in_their_order_and_is_read_without_importing_its_file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from fer_bench import Arm, MethodCard, Param\n"
        "raise SystemExit('it was imported')\n"
        'OFF = "own[gate=none"\n'
        'card = MethodCard(name="own", title="t", params={"gate": Param("mean", "h"), "width": Param(8, "h")}, arms={\n'
        '    "plain": Arm("baseline_resnet"),\n'
        '    "attention": Arm(f"{OFF}]", to="plain", adds="attention", control="wide"),\n'
        '    "wide": Arm(variant=f"{OFF},width=12]", to="plain"),\n'
        "})\n"
    )
    arms = read_card(path).arms
    assert list(arms) == ["plain", "attention", "wide"]
    assert arms["attention"] == Arm("own[gate=none]", to="plain", adds="attention", control="wide")
    assert arms["wide"] == Arm("own[gate=none,width=12]", "plain", "", "")
    path.write_text('card = MethodCard(name="own", title="t", arms={"a": Arm("own", to="b")})')
    with pytest.raises(PluginError, match=r"its card can't be made: unknown arm 'b'"):
        read_card(path)


@pytest.mark.parametrize("role", ["to", "control"])
def test_an_arm_is_compared_with_arms_of_its_card_and_not_with_itself(role):
    plain = Arm("baseline_resnet")
    with pytest.raises(UnknownNameError, match=rf"unknown arm 'plane'[\s\S]*arm 'full', {role}[\s\S]*'plain'"):
        card(plain=plain, full=Arm("own", **{"to": "plain", role: "plane"}))
    with pytest.raises(SpecError, match="compared with itself"):
        card(plain=plain, full=Arm("own", **{"to": "plain", role: "full"}))


def test_the_first_arm_is_the_baseline_and_none_is_compared_in_a_circle():
    one, two, plain = Arm("own", to="b", adds="one"), Arm("own[width=9]", to="a", adds="two"), Arm("baseline_resnet")
    with pytest.raises(SpecError, match="the first arm is the baseline"):
        card(a=one, b=plain)
    with pytest.raises(SpecError, match="in a circle: a -> b -> a"):
        card(plain=plain, a=one, b=two)
    assert list(card(plain=plain, b=Arm("own[width=9]", to="plain"), a=one).arms) == ["plain", "b", "a"]


@pytest.mark.parametrize("given", [{"adds": "attention"}, {"control": "plain"}])
def test_what_adds_something_says_to_which_arm(given):
    with pytest.raises(SpecError, match="not to which arm"):
        card(plain=Arm("baseline_resnet"), full=Arm("own", **given))


def test_variants_are_checked_as_far_as_the_card_knows_them():
    plain = Arm("baseline_resnet")
    with pytest.raises(UnknownNameError, match="unknown parameter 'gait'"):
        card(plain=plain, full=Arm("own[gait=none]", to="plain"))
    with pytest.raises(SpecError, match="width=65 is out of range"):
        card(plain=plain, full=Arm("own[width=65]", to="plain"))
    with pytest.raises(SpecError, match="no closing bracket"):
        card(plain=plain, full=Arm("own[width=9", to="plain"))
    assert card(plain=plain, full=Arm("other[anything=9]", to="plain")).arms["full"].variant == "other[anything=9]"


def test_two_arms_that_train_the_same_and_names_that_a_list_cant_hold_are_refused():
    with pytest.raises(SpecError, match="trains the same as the arm 'full'"):
        card(plain=Arm("baseline_resnet"), full=Arm("own"), again=Arm("own[width=8]", to="full"))
    with pytest.raises(SpecError, match="'a,b' can't be a name of an arm"):
        card(**{"a,b": Arm("own")})
    assert list(card(**{"no sharing": Arm("own")}).arms) == ["no sharing"]
