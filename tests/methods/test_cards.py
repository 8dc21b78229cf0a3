import importlib
import pickle
from pathlib import Path

import pytest

import fer_bench.methods
from fer_bench.contract.card_reader import read_card
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.method import Method, Stage
from fer_bench.contract.params import Choice, Float, Int

FOLDER = Path(fer_bench.methods.__file__).parent
FILES = sorted(p for p in FOLDER.glob("*.py") if not p.name.startswith("_"))


@pytest.fixture(params=FILES, ids=lambda p: p.stem)
def file(request):
    return request.param


def test_card_read_from_the_syntax_tree_equals_the_imported_one(file):
    assert read_card(file) == importlib.import_module(f"fer_bench.methods.{file.stem}").card


def test_module_holds_one_method_that_carries_its_card(file):
    module = importlib.import_module(f"fer_bench.methods.{file.stem}")
    found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Method) and v is not Method]
    assert [m.card for m in found] == [module.card]
    assert module.card.name == file.stem


def test_card_answers_what_a_reader_asks(file):
    card = read_card(file)
    assert isinstance(card, MethodCard)
    second = ("second reference", "method") if card.readout_of else ("method",)
    assert card.tier in (("baseline",) if file.stem.startswith("baseline_") else second)
    assert card.family != "other"
    assert card.paper
    assert card.year
    assert card.url.startswith("https://")
    assert card.changes
    assert all(isinstance(line, str) for line in card.deviations), "a one-element tuple without its comma is a string"
    assert all(len(p.help) > 20 for p in card.params.values())


def test_every_value_a_tuner_may_draw_is_accepted(file):
    card = read_card(file)
    for name, param in card.params.items():
        match param.space:
            case Choice(options=values):
                pass
            case Float(low=low, high=high) | Int(low=low, high=high):
                values = (low, high)
            case _:
                values = ()
        for value in (*values, param.default, *(param.choices or ())):
            assert card.resolve({name: value})[name] == value
            assert card.resolve({name: str(value)})[name] == value


def test_streams_are_picklable(file, make_method):
    module = importlib.import_module(f"fer_bench.methods.{file.stem}")
    (cls,) = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Method) and v is not Method]
    streams = make_method(cls).streams(Stage())
    assert pickle.loads(pickle.dumps(streams)) == streams
