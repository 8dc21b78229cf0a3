"""Names become paths: what they may hold, where they lead, and what homes of earlier versions hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.base.names import (
    DATASET,
    LONGEST,
    PLUGIN,
    PROTOCOL,
    RUN,
    STUDY,
    checked,
    folder_of,
    locate,
    name_of,
    shortened,
    slug,
)
from fer_bench.errors import LedgerError, SpecError

KINDS = (STUDY, DATASET, PROTOCOL, PLUGIN, RUN)
CLIMBING = ["../../evil", "..", ".", "", "/etc/passwd", "a/../b", "a/", "a\\b", "a\0b", ".hidden", "-rf", "~", "a//b"]
AWKWARD = ["a b", "a?", "50%", "a*", "<a>", "a|b", '"', "'", "$HOME", "a@b", "wütend", "a\n", "a.", "nul", "CON.txt"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.what)
@pytest.mark.parametrize("name", [*CLIMBING, *AWKWARD, "\x1b[31mred", None, 3, ["a"], "a" * (LONGEST + 1)], ids=repr)
def test_no_kind_of_name_takes_what_climbs_or_what_file_systems_dislike(kind, name):
    with pytest.raises(SpecError) as caught:
        checked(name, kind)
    assert kind.what in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("demo", STUDY),
        ("thin-exp_50_total=5000", STUDY),
        ("folder:lab-baseline_focal-0a1b2c", STUDY),
        ("a" * LONGEST, STUDY),
        ("folder:lab.2", DATASET),
        ("fer2013", DATASET),
        ("random60-20-20", PROTOCOL),
        ("ferplus/majority", PROTOCOL),
        ("0123456789abcdef", RUN),
    ],
)
def test_names_that_fit_come_back_as_they_are(name, kind):
    assert checked(name, kind) == name


def test_the_answer_offers_a_name_that_would_do():
    with pytest.raises(SpecError, match=r"'my study' can't be a study's name[\s\S]*where: --name[\s\S]*'my_study'"):
        checked("my study", STUDY, where="--name")
    with pytest.raises(LedgerError, match="run's id"):
        checked("../x", RUN, error=LedgerError)


@given(st.text(max_size=2 * LONGEST))
def test_a_checked_name_is_one_part_of_a_path_that_every_system_takes(text):
    for kind in (STUDY, DATASET, PLUGIN, RUN):
        try:
            folder = folder_of(checked(text, kind))
        except SpecError:
            continue
        assert Path("root", folder).resolve().parent == Path("root").resolve()
        assert not set(folder) & set('<>:"/\\|?* ')
        assert folder[0] not in ".-" and folder[-1] not in ". "  # noqa: PT018 - one property
        assert len(folder.encode()) <= LONGEST


NAMES = st.from_regex(rf"\A(?:{STUDY.pattern})\Z").filter(lambda n: len(n) <= LONGEST)


@given(NAMES, NAMES)
def test_two_names_never_share_a_folder_and_each_folder_tells_its_name(one, other):
    assert name_of(folder_of(one)) == one
    assert (folder_of(one) == folder_of(other)) == (one == other)


def test_a_label_lies_behind_an_at_sign_and_an_earlier_folder_is_used_where_it_is(tmp_path):
    assert locate(tmp_path / "nowhere", "folder:lab") == tmp_path / "nowhere" / "folder@lab"
    (tmp_path / "folder:lab").mkdir()
    assert locate(tmp_path, "folder:lab") == tmp_path / "folder:lab"
    (tmp_path / "folder@lab").mkdir()
    assert locate(tmp_path, "folder:lab") == tmp_path / "folder@lab"
    (tmp_path / "a:b.json").touch()
    assert locate(tmp_path, "a:b", ".json") == tmp_path / "a:b.json"
    assert locate(tmp_path, "a:c", ".json") == tmp_path / "a@c.json"


def test_names_that_differ_in_case_alone_are_refused(tmp_path):
    (tmp_path / "folder@Lab").mkdir()
    with pytest.raises(SpecError, match="'folder:lab' and 'folder:Lab' differ in case alone"):
        locate(tmp_path, "folder:lab")
    assert locate(tmp_path, "folder:Lab") == tmp_path / "folder@Lab"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "/x", "a\0b"])
def test_nothing_is_located_outside_its_folder(tmp_path, name):
    with pytest.raises(SpecError, match="can't be a name"):
        locate(tmp_path, name)


@given(st.text(max_size=200))
def test_free_text_becomes_part_of_a_name(text):
    made = shortened(f"x{slug(text)}", 60)
    assert checked(made, PLUGIN) == made
    assert len(made) <= 60


def test_long_names_that_begin_alike_stay_apart():
    one, other = (shortened("a" * 200 + end, 80) for end in "xy")
    assert one != other
    assert len(one) == len(other) == 80
    assert shortened("short") == "short"
    assert slug("rasn[share.source=ema,share.alpha=1]") == "rasn_share.source=ema_share.alpha=1"
