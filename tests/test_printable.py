"""Names that would be obeyed by a terminal, an editor or a spreadsheet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.printable import csv_cell, printable, printable_data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mangry\x1b[0m", r"\x1b[31mangry\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\x07", r"a\rb\x07"),
        ("\u202eyppah", r"\u202eyppah"),
        ("one\u2028two", r"one\u2028two"),
        ("f\udce4ce", r"f\udce4ce"),
        ("a\tb\nc", "a\tb\nc"),
        ("wütend 愤怒 🙂", "wütend 愤怒 🙂"),
    ],
)
def test_what_would_be_obeyed_is_written_out(text, expected):
    assert printable(text) == expected


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_is_shown_can_be_written_and_is_stable(text):
    once = printable(text)
    once.encode()
    assert printable(once) == once
    assert "\x1b" not in once


def test_texts_anywhere_in_a_record_are_cleaned():
    assert printable_data({"a\x1b": ["\x07", 1, None, {"b": "\x00"}]}) == {r"a\x1b": [r"\x07", 1, None, {"b": r"\x00"}]}


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "-x", "+A1", "-1*A1", "+1e"]
)
def test_a_formula_becomes_text(text):
    assert csv_cell(text) == "'" + text


@pytest.mark.parametrize(
    "text",
    ["-0.7 [-1.0, +0.2]", "+50.0", "-12", "+4.2 [+1.0, +7.5] (0.1 to 3.2)", "angry", "", "–", "-1e-05", "a=b", "1-2"],
)
def test_numbers_and_names_stay(text):
    assert csv_cell(text) == text
