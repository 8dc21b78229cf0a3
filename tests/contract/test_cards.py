import pytest

from fer_bench.contract.cards import Choice, DatasetCard, Float, Int, MethodCard, Param, Protocol, read_card
from fer_bench.errors import PluginError, SpecError, UnknownNameError


def card_of(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text)
    return read_card(path)


def test_a_card_is_read_without_importing_its_file(tmp_path):
    text = """
import no_such_module
raise RuntimeError("imported")
SHARED = "a shared sentence"
RATES = (0.1, -1)
card = MethodCard(
    name="own", title="two " + "parts", changes=SHARED, year=2024, deviations=("one", SHARED), transductive=True,
    params={"rate": Param(0.5, "h", choices=RATES, space=Choice(RATES)), "n": Param(2, "h", space=Int(1, 9, log=True))},
)
"""
    card = card_of(tmp_path, text)
    assert isinstance(card, MethodCard)
    assert (card.title, card.changes, card.deviations) == ("two parts", "a shared sentence", ("one", card.changes))
    assert card.params["rate"].space == Choice((0.1, -1))
    assert card.params["n"].space == Int(1, 9, log=True)
    assert card.transductive


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "has no card"),
        ("card = (", "can't be read"),
        ("card = 3", "neither a MethodCard nor a DatasetCard"),
        ("card = MethodCard(name='own', title=open('x').read())", r"not a literal[\s\S]*own\.py:1"),
        ("card = MethodCard(name='own', title=f'{1}')", "not a literal"),
        ("card = MethodCard(name='own')", "title"),
        ("card = MethodCard(name='own', title='t', colour='red')", "colour"),
        ("card = MethodCard(name='own', title=TITLE)", "TITLE"),
        ("card = __import__('os').getcwd()", "not a literal"),
    ],
)
def test_a_card_that_is_no_literal_is_refused_with_its_place(tmp_path, text, told):
    with pytest.raises(PluginError, match=told) as caught:
        card_of(tmp_path, text)
    assert "own.py" in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "own.py").write_bytes(b"\xff\x00card")
    with pytest.raises(PluginError, match="can't be read"):
        read_card(tmp_path / "own.py")


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
