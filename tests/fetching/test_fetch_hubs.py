"""Fetching from the command line, from hubs, and from Kaggle."""

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from fer_bench import DataError, DatasetCard, Fetch, Protocol, SpecError
from fer_bench.cli import main
from fer_bench.cli.data import data as cli
from fer_bench.errors import UnknownNameError
from fer_bench.fetching.fetch import fetch
from fer_bench.record.home import Home
from tests.fetching.conftest import DATA, files_below, run_command, sha256, zip_of

# --- what a person reads ---


def test_the_command_tells_licence_place_and_what_to_type_next(server, tmp_path, home, write_card):
    write_card(f'Fetch(kind="url", ref="{server.add("/faces.csv")}", licence="MIT by its authors")')
    done = CliRunner().invoke(cli, ["fetch", "faces", "--plugins", str(tmp_path / "plugins"), "--home", str(home.root)])
    assert done.exit_code == 0, done.output
    assert "MIT by its authors" in done.output
    assert f"the source files are in {home.raw('faces')}" in done.output
    assert f"fer-bench data prepare faces --home {home.root}" in done.output


def test_a_set_that_nobody_may_hand_on_says_whom_to_ask(tmp_path, home, write_card, capsys):
    write_card()
    with pytest.raises(SystemExit) as left:
        main(["data", "fetch", "faces", "--plugins", str(tmp_path / "plugins"), "--home", str(home.root)])
    output = capsys.readouterr().err
    assert left.value.code == 1
    for part in (
        "write to the owners of the faces",
        "for research, by written agreement",
        "https://faces.example",
        str(home.raw("faces")),
        "faces.csv with a column of pixels",
        f"fer-bench data prepare faces --home {home.root} --from PATH",
    ):
        assert part in output


def test_a_built_in_set_needs_no_fetching(home):
    protocol = Protocol(name="p", train=("x",), val=("y",), test=("z",))
    card = DatasetCard(name="drawn", title="", classes=("a",), protocols=(protocol,), built_in=True)
    with pytest.raises(DataError, match="built in") as error:
        fetch(home, card)
    assert "fer-bench data prepare drawn" in str(error.value)


def test_an_unknown_set_is_answered_with_the_nearest(tmp_path, write_card):
    write_card()
    with pytest.raises(UnknownNameError, match="did you mean 'faces'"):
        CliRunner().invoke(cli, ["fetch", "facs", "--plugins", str(tmp_path / "plugins")], catch_exceptions=False)


def test_a_card_that_makes_no_sense_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'kaggle'"):
        Fetch(kind="kagle", ref="x")
    with pytest.raises(SpecError, match="one file"):
        Fetch(kind="url", ref="x", files=("a", "b"))
    with pytest.raises(UnknownNameError, match=r"did you mean 'a\.csv'"):
        Fetch(kind="url", ref="x", files=("a.csv",), sha256={"b.csv": "0"})


@pytest.mark.parametrize(("kind", "library"), [("huggingface", "huggingface_hub"), ("kaggle", "kagglehub")])
def test_a_missing_library_says_how_to_get_it(bring, monkeypatch, kind, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError) as error:
        bring(f'Fetch(kind="{kind}", ref="owner/faces")')
    assert library in str(error.value)
    assert "pip install 'fer-bench[fetch]'" in str(error.value)


def test_files_of_a_hub_are_fetched_by_name_and_revision(server, tmp_path, home, hub, write_card):
    env = hub({"data/train.parquet": b"train", "data/big.parquet": b"not wanted"})
    write_card('Fetch(kind="huggingface", ref="owner/faces@v2", files=("data/train.parquet",))')
    process = run_command(tmp_path, **env)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert files_below(home.data / "raw") == {"faces/data/train.parquet": b"train"}
    assert "/api/datasets/owner/faces/revision/v2" in [a.path.partition("?")[0] for a in server.asked]
    assert not [a for a in server.asked if "big" in a.path]


def test_a_whole_set_of_a_hub_lands_in_a_directory_of_its_name(tmp_path, home, hub, write_card):
    env = hub({"a.csv": b"a", "sub/faces.zip": zip_of({"x.png": b"x"})})
    write_card('Fetch(kind="huggingface", ref="owner/faces", unpack=True)')
    process = run_command(tmp_path, **env)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert files_below(home.data / "raw") == {"faces/faces/a.csv": b"a", "faces/faces/sub/faces/x.png": b"x"}


def test_a_closed_set_of_a_hub_says_how_to_log_in(server, tmp_path, home, hub, write_card):
    env = hub({"a.csv": b"a"})
    server.files["/api/datasets/owner/faces"].failures = [401] * 9
    write_card('Fetch(kind="huggingface", ref="owner/faces")')
    process = run_command(tmp_path, **env)
    output = process.communicate()[0]
    assert process.returncode == 1
    assert "'owner/faces' needs a login" in output
    assert "https://huggingface.co/datasets/owner/faces" in output
    assert "hf auth login" in output
    assert "Traceback" not in output
    assert not home.raw("faces").exists()


def test_a_hash_of_a_hubs_file_is_checked(tmp_path, home, hub, write_card):
    env = hub({"a.csv": b"changed"})
    write_card(f'Fetch(kind="huggingface", ref="owner/faces", files=("a.csv",), sha256={{"a.csv": "{sha256(b"a")}"}})')
    process = run_command(tmp_path, **env)
    output = process.communicate()[0]
    assert process.returncode == 1
    assert sha256(b"changed") in output
    assert not home.raw("faces").exists()


def test_a_file_of_a_competition_is_fetched(server, kaggle, bring, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    kaggle("competitions.CompetitionApiService/DownloadDataFile", DATA, "faces.csv")
    source = 'Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))'
    raw = bring(source)
    assert files_below(raw.parent) == {"faces/faces.csv": DATA}
    bring(source)
    assert [a.method for a in server.asked] == ["POST", "GET"]


def test_a_competitions_file_that_comes_zipped_is_a_file_again(kaggle, bring, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    kaggle("competitions.CompetitionApiService/DownloadDataFile", zip_of({"faces.csv": DATA}), "faces.csv.zip")
    raw = bring('Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))')
    assert files_below(raw.parent) == {"faces/faces.csv": DATA}


def test_a_broken_kaggle_download_goes_on(server, kaggle, bring, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    data = DATA * 8
    kaggle("competitions.CompetitionApiService/DownloadDataFile", data, "faces.csv", cuts=[1_500_000])
    source = 'Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))'
    with pytest.raises(DataError, match="the download failed"):
        bring(source)
    assert files_below(bring(source)) == {"faces.csv": data}
    assert server.asked[-1].range == "bytes=1048576-"


def test_a_kaggle_data_set_is_fetched_whole(server, kaggle, bring):
    about = json.dumps({"ref": "owner/faces", "currentVersionNumber": 3}).encode()
    server.add("/api/v1/datasets.DatasetApiService/GetDataset", about, headers={"Content-Type": "application/json"})
    kaggle("datasets.DatasetApiService/DownloadDataset", zip_of({"a/b.png": b"b", "c.csv": b"c"}), "archive.zip")
    raw = bring('Fetch(kind="kaggle", ref="owner/faces")')
    assert files_below(raw.parent) == {"faces/faces/a/b.png": b"b", "faces/faces/c.csv": b"c"}


@pytest.mark.parametrize("fault", ["hash", "archive", "missing"])
def test_a_whole_set_with_one_refused_file_is_refused_whole(server, kaggle, home, bring, fault):
    """And asked for again the next time: what is left of it is not the set."""
    about = json.dumps({"ref": "owner/faces", "currentVersionNumber": 3}).encode()
    server.add("/api/v1/datasets.DatasetApiService/GetDataset", about, headers={"Content-Type": "application/json"})
    good = {"a.csv": b"a", "b.zip": zip_of({"x.png": b"x"})}
    bad = {"hash": {"a.csv": b"changed"}, "archive": {"b.zip": b"broken"}, "missing": {"a.csv": None}}[fault]
    faulty = {name: data for name, data in {**good, **bad}.items() if data is not None}
    kaggle("datasets.DatasetApiService/DownloadDataset", zip_of(faulty), "archive.zip")
    source = f'Fetch(kind="kaggle", ref="owner/faces", unpack=True, sha256={{"a.csv": "{sha256(b"a")}"}})'
    with pytest.raises(DataError):
        bring(source)
    assert not home.raw("faces").exists()
    kaggle("datasets.DatasetApiService/DownloadDataset", zip_of(good), "archive.zip")
    assert files_below(bring(source)) == {"faces/a.csv": b"a", "faces/b/x.png": b"x"}


def test_what_a_notebook_offers_read_only_is_copied(home, bring, tmp_path, monkeypatch):
    """There the library answers with a place outside its cache, which must stay as it is."""
    kagglehub = pytest.importorskip("kagglehub")
    offered = tmp_path / "input" / "faces"
    offered.mkdir(parents=True)
    (offered / "a.csv").write_bytes(b"a")
    monkeypatch.setattr(kagglehub, "dataset_download", lambda ref, path: str(offered))
    assert files_below(bring('Fetch(kind="kaggle", ref="owner/faces")').parent) == {"faces/faces/a.csv": b"a"}
    assert files_below(offered) == {"a.csv": b"a"}


def test_a_home_that_can_not_be_written_is_an_error_of_ours(tmp_path, write_card):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write the file"):
        fetch(Home(tmp_path / "file"), write_card('Fetch(kind="url", ref="http://127.0.0.1:9/x")'))


def test_without_a_kaggle_login_the_way_to_one_is_told(kaggle, bring):
    with pytest.raises(DataError) as error:
        bring('Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))')
    assert "https://www.kaggle.com/competitions/faces-challenge/rules" in str(error.value)
    assert "KAGGLE_API_TOKEN" in str(error.value)


@pytest.mark.parametrize("status", [401, 403])
def test_rules_that_were_not_accepted_are_linked(server, kaggle, home, bring, monkeypatch, status):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    url = "/api/v1/competitions.CompetitionApiService/DownloadDataFile"
    server.add(url, failures=[status])
    with pytest.raises(DataError, match="needs a login") as error:
        bring('Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))')
    assert "https://www.kaggle.com/competitions/faces-challenge/rules" in str(error.value)
    assert not home.raw("faces").exists()


def test_a_missing_kaggle_file_is_named(kaggle, bring, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    with pytest.raises(DataError, match=r"faces\.csv no longer exists"):
        bring('Fetch(kind="kaggle_competition", ref="faces-challenge", files=("faces.csv",))')
