"""The folder of a page: whatever is not ours, or was changed by somebody, is still there afterwards."""

from __future__ import annotations

import json
import os
import shlex
import signal
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from fer_bench.cli import cli
from fer_bench.errors import FerBenchError
from fer_bench.reports import build_comparison, build_report, build_response
from fer_bench.reports.render.page_folder import CHECK, REPORT, Target, aside, check, move

BASE, BETTER = (40, 8, 90), (40, 18, 90)
QUICK = ("markdown", "csv")


@pytest.fixture
def study(bench):
    return bench.study([bench.run("base", 0, BASE), bench.run("better", 0, BETTER)], ["better", "base"])


def contents(folder: Path) -> dict[str, str]:
    """Text of all files but the list of ours."""
    result = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (REPORT, CHECK)]
    return {str(p.relative_to(folder)): p.read_text(errors="replace") for p in result}


def listed(folder: Path, name: str = REPORT) -> dict[str, str]:
    return json.loads((folder / name).read_text())["files"]


def put(folder: Path, **files: str) -> None:
    """Write files; a double underscore in a name is a slash, a single one before the ending a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write(target: Target, **files: str) -> None:
    """A page that consists of these files."""
    with aside(target) as folder:
        put(folder, **files)
        move(folder, target)


# -- files of others -------------------------------------------------------------------------------------------------


def test_files_of_others_beside_a_report_stay(bench, study, tmp_path):
    mine = {"figures__photo_png": "mine", "figures__plot_svg": "mine", "tables__data_csv": "mine", "notes_md": "mine"}
    put(tmp_path / "paper", tables__appendix_tex="mine", **mine)
    before = contents(tmp_path / "paper")
    build_report(bench.ledger, study, tmp_path / "paper")
    build_report(bench.ledger, bench.study(study["runs"][:1], ["base"], None), tmp_path / "paper")
    assert before.items() <= contents(tmp_path / "paper").items()


@pytest.mark.parametrize("name", ["report_md", "report_html", "table_csv", "tables__main_tex", "figures__recall_svg"])
def test_somebody_elses_file_in_the_place_of_ours_is_refused_and_nothing_changes(bench, study, tmp_path, name):
    put(tmp_path / "paper", **{name: "a year of work"})
    before = contents(tmp_path / "paper")
    with pytest.raises(FerBenchError, match="not listed as its own: ") as caught:
        build_report(bench.ledger, study, tmp_path / "paper")
    assert next(iter(before)) in caught.value.what
    assert contents(tmp_path / "paper") == before


def test_what_the_refusal_prints_replaces_the_file(bench, study, tmp_path):
    put(tmp_path / "my paper", report_md="mine")
    with pytest.raises(FerBenchError) as caught:
        build_report(bench.ledger, study, tmp_path / "my paper", formats=QUICK)
    words = shlex.split(caught.value.next)
    assert words[:2] == ["fer-bench", "report"]
    done = CliRunner().invoke(cli, words[1:])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "my paper" / "report.md").read_text().startswith("# toy-study")


@pytest.mark.parametrize(("build", "command"), [(build_response, "response"), (build_comparison, "compare")])
def test_pages_on_several_studies_refuse_alike(bench, study, tmp_path, build, command):
    put(tmp_path / "paper", report_md="mine")
    with pytest.raises(FerBenchError, match="not listed as its own") as caught:
        build(bench.ledger, [study, study], tmp_path / "paper")
    assert caught.value.next.startswith(f"fer-bench {command} toy-study toy-study --home ")
    assert contents(tmp_path / "paper") == {"report.md": "mine"}


def test_a_link_or_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    put(tmp_path, precious_md="mine")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report.md").symlink_to(tmp_path / "precious.md")
    with pytest.raises(FerBenchError, match="not listed"):
        check(Target(out=tmp_path / "a"), ["report.md"])
    write(Target(out=tmp_path / "a", force=True), report_md="ours")
    assert (tmp_path / "precious.md").read_text() == "mine"
    (tmp_path / "b" / "report.md").mkdir(parents=True)
    with pytest.raises(FerBenchError, match=r"report\.md is a folder"):
        write(Target(out=tmp_path / "b", force=True), report_md="ours")
    put(tmp_path / "c", figures="a file")
    with pytest.raises(FerBenchError, match="can't be written"):
        write(Target(out=tmp_path / "c"), figures__a_svg="ours")


# -- files of ours ---------------------------------------------------------------------------------------------------


def test_the_list_names_every_file_with_its_hash(bench, study, tmp_path):
    build_report(bench.ledger, study, tmp_path / "out")
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name != REPORT]
    assert len(files) > 40
    assert listed(tmp_path / "out") == {
        p.relative_to(tmp_path / "out").as_posix(): sha256(p.read_bytes()).hexdigest() for p in files
    }


def test_a_file_of_ours_that_somebody_has_edited_is_kept_under_another_name(bench, study, tmp_path, capfd):
    out = tmp_path / "out"
    page = build_report(bench.ledger, study, out, formats=("csv",))
    fresh = page.read_text()
    for number in (1, 2):
        page.write_text(f"{fresh}my remarks {number}")
        build_report(bench.ledger, study, out, formats=("csv",))
        assert page.read_text() == fresh
        assert (out / f"table.edited-{number}.csv").read_text() == f"{fresh}my remarks {number}"
        assert f"table.csv had been edited: the copy is kept as table.edited-{number}.csv" in capfd.readouterr().err
    build_report(bench.ledger, study, out, formats=("csv",))
    assert capfd.readouterr().err == ""


def test_what_a_page_no_longer_has_goes_unless_it_was_edited(tmp_path):
    sentence: list[str] = []
    target = Target(out=tmp_path, say=sentence.append)
    write(target, report_md="1", figures__a_svg="1", figures__b_svg="1", tables__a_tex="1")
    put(tmp_path, figures__b_svg="retouched", figures__mine_svg="mine")
    write(target, report_md="2", figures__c_svg="2")
    kept = {"figures/b.svg": "retouched", "figures/mine.svg": "mine", "tables/a.tex": "1"}  # no table was written
    assert contents(tmp_path) == kept | {"report.md": "2", "figures/c.svg": "2"}
    assert sentence == [f"{tmp_path}/figures/b.svg has been edited, so it is kept, although no page needs it now"]
    assert set(listed(tmp_path)) == {"report.md", "figures/c.svg", "tables/a.tex"}


def test_two_kinds_of_pages_in_one_folder_leave_each_other_alone(tmp_path):
    write(Target(out=tmp_path), report_md="r", figures__recall_png="r")
    write(Target(out=tmp_path, kept=CHECK), README_md="c", figures__counts_png="c")
    write(Target(out=tmp_path), report_md="s", figures__gains_png="s")
    pages = {"README.md": "c", "figures/counts.png": "c", "report.md": "s", "figures/gains.png": "s"}
    assert contents(tmp_path) == pages


@pytest.mark.parametrize("place", [1, 2, 3, 4, 5])
def test_a_kill_at_any_rename_leaves_files_that_are_still_known_as_ours(tmp_path, monkeypatch, place):
    sentence: list[str] = []
    target = Target(out=tmp_path, say=sentence.append)
    write(target, report_md="1", figures__a_svg="1", figures__b_svg="1")
    child = os.fork()
    if child == 0:
        rename, count = os.replace, iter(range(1, 99))

        def stop(*names):
            if next(count) == place:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*names)

        monkeypatch.setattr(os, "replace", stop)
        write(target, report_md="2", figures__a_svg="2", figures__c_svg="2")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    write(target, report_md="3", figures__a_svg="3", figures__c_svg="3")
    assert contents(tmp_path) == {"report.md": "3", "figures/a.svg": "3", "figures/c.svg": "3"}
    assert sentence == []


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"files": 3}', '{"files": {"report.md": 5}}', '{"files": {"report.md": {"a": 1}}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_list_claims_nothing(tmp_path, text):
    put(tmp_path, report_md="mine", figures__a_svg="mine")
    (tmp_path / REPORT).write_text(text)
    before = contents(tmp_path)
    if "report.md" in text:  # it is named, but not with this content
        write(Target(out=tmp_path, say=lambda line: None), report_md="ours")
        assert (tmp_path / "report.edited-1.md").read_text() == "mine"
    else:
        with pytest.raises(FerBenchError, match="not listed"):
            write(Target(out=tmp_path), report_md="ours")
        assert contents(tmp_path) == before


def test_a_list_that_leads_out_of_its_folder_removes_nothing_there(tmp_path):
    put(tmp_path, precious_svg="mine", out__report_md="1")
    digest = sha256(b"mine").hexdigest()
    names = ["../precious.svg", str(tmp_path / "precious.svg"), "figures/../../precious.svg", "a/b/c.svg", ".hidden"]
    (tmp_path / "out" / REPORT).write_text(json.dumps({"files": dict.fromkeys(names, digest)}))
    write(Target(out=tmp_path / "out", force=True), report_md="2", figures__a_svg="2")
    assert (tmp_path / "precious.svg").read_text() == "mine"
    assert set(listed(tmp_path / "out")) == {"report.md", "figures/a.svg"}


# -- reports of a version that kept no list --------------------------------------------------------------------------


def test_a_report_of_an_older_version_among_the_results_is_updated(bench, study, tmp_path):
    out = tmp_path / "results" / "toy-study"
    build_report(bench.ledger, study, out)
    fresh = contents(out)
    (out / REPORT).unlink()
    (out / "report.md").write_text((out / "report.md").read_text() + "written by another version")
    put(out, figures__old_svg="of a section that is gone")
    build_report(bench.ledger, study, out, formats=("html",))
    build_report(bench.ledger, study, out, formats=("md", "csv"))
    build_report(bench.ledger, study, out, formats=("tex",))
    assert contents(out) == fresh | {"figures/old.svg": "of a section that is gone"}


def test_elsewhere_it_is_refused(bench, study, tmp_path):
    out = tmp_path / "paper"
    build_report(bench.ledger, study, out, formats=("csv",))
    (out / REPORT).unlink()
    with pytest.raises(FerBenchError, match="not listed"):
        build_report(bench.ledger, study, out, formats=("csv",))


def test_a_page_of_somebody_among_the_results_is_refused(bench, study, tmp_path):
    put(tmp_path / "results" / "toy-study", report_md="# My study\n\nNothing of fer-bench.\n")
    with pytest.raises(FerBenchError, match="not listed"):
        build_report(bench.ledger, study, tmp_path / "results" / "toy-study")


# -- what killed builds leave ----------------------------------------------------------------------------------------


def test_what_a_killed_build_has_left_goes_with_the_next_one_and_a_living_one_is_left_alone(tmp_path):
    target = Target(out=tmp_path)
    child = os.fork()
    if child == 0:
        with aside(target) as folder:
            put(folder, report_md="half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".report-")
    with aside(target) as living:
        write(target, report_md="whole")
        assert living.is_dir()
    assert contents(tmp_path) == {"report.md": "whole"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [REPORT, "report.md"]
