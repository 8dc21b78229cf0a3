"""Fetching: from a real server on this machine, that cuts, lies, changes its mind, and asks for a login."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest

from fer_bench import DataError
from fer_bench.errors import FerBenchError, LockedError
from fer_bench.fetching.download import BLOCK
from tests.fetching.conftest import DATA, QUICK, files_below, run_command, sha256, wait_for, zip_of

# --- one file from an address ---


def test_a_file_arrives_whole_and_nothing_else_is_left(server, home, bring):
    raw = bring(f'Fetch(kind="url", ref="{server.add("/d/faces.csv")}")')
    assert raw == home.raw("faces")
    assert files_below(raw.parent) == {"faces/faces.csv": DATA}


def test_the_cards_name_is_used_not_the_servers(server, bring):
    lie = {"Content-Disposition": 'attachment; filename="../../evil"'}
    url = server.add("/download", headers=lie)
    raw = bring(f'Fetch(kind="url", ref="{url}?id=3", files=("labels/faces.csv",))')
    assert files_below(raw.parent) == {"faces/labels/faces.csv": DATA}


@pytest.mark.parametrize("name", ["../evil.csv", "/tmp/evil.csv", "a\\\\b.csv"])
def test_a_name_of_the_card_that_leaves_its_place_is_refused(server, home, bring, name):
    with pytest.raises(DataError, match="would lead outside its folder"):
        bring(f'Fetch(kind="url", ref="{server.add("/x")}", files=("{name}",))')
    assert server.asked == []


def test_a_whole_file_is_not_asked_for_again(server, bring):
    source = f'Fetch(kind="url", ref="{server.add("/faces.csv")}", sha256={{"faces.csv": "{sha256(DATA)}"}})'
    bring(source)
    bring(source)
    assert len(server.asked) == 1


def test_several_sources_are_all_fetched(server, bring):
    one, two = server.add("/one.csv", b"1"), server.add("/two.csv", b"2")
    raw = bring(f'Fetch(kind="url", ref="{one}")', f'Fetch(kind="url", ref="{two}")')
    assert files_below(raw) == {"one.csv": b"1", "two.csv": b"2"}


def test_a_cut_line_is_taken_up_where_it_broke(server, bring):
    """However often, as long as something comes: more often than attempts without any gain are borne."""
    url = server.add("/faces.csv", cuts=[100_000] * 4)
    assert QUICK.tries < 4
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert [a.range for a in server.asked] == ["", *(f"bytes={k * BLOCK}-" for k in (1, 2, 3, 4))]
    assert [a.condition for a in server.asked] == ["", *['"v1"'] * 4]


def test_a_server_without_ranges_starts_again_cleanly(server, bring):
    url = server.add("/faces.csv", cuts=[100_000], ranges=False)
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert server.asked[1].range == f"bytes={BLOCK}-"


@pytest.mark.parametrize("honest", [True, False])
def test_halves_of_two_versions_are_never_joined(server, bring, honest):
    """The second server does not know If-Range and sends the rest of the new version."""
    url = server.add("/faces.csv", cuts=[100_000] * 3)
    source = f'Fetch(kind="url", ref="{url}")'
    server.files["/faces.csv"].cuts += [0] * 9
    with pytest.raises(DataError):
        bring(source)
    changed = DATA[::-1]
    server.add("/faces.csv", changed, etag='"v2"', honest=honest)
    assert files_below(bring(source)) == {"faces.csv": changed}


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_the_download_starts_again(server, bring, etag):
    url = server.add("/faces.csv", cuts=[100_000], etag=etag)
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert [a.range for a in server.asked] == ["", ""]


def test_the_date_of_the_last_change_serves_as_well(server, bring):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    url = server.add("/faces.csv", cuts=[100_000], etag="", honest=False, headers={"Last-Modified": date})
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert server.asked[1].range == f"bytes={BLOCK}-"


def test_a_busy_server_is_asked_again(server, bring):
    url = server.add("/faces.csv", failures=[503, 503])
    assert files_below(bring(f'Fetch(kind="url", ref="{url}")')) == {"faces.csv": DATA}
    assert len(server.asked) == 3


def test_a_server_that_stays_busy_is_given_up(server, home, bring):
    with pytest.raises(DataError, match="makes no progress: the server answered 503") as error:
        bring(f'Fetch(kind="url", ref="{server.add("/faces.csv", failures=[503] * 9)}")')
    assert len(server.asked) == QUICK.tries
    assert "rerun the same command" in str(error.value)
    assert not home.raw("faces").exists()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_told_at_once(server, bring, status):
    with pytest.raises(DataError, match=f"the server answered {status}"):
        bring(f'Fetch(kind="url", ref="{server.add("/faces.csv", failures=[status] * 9)}")')
    assert len(server.asked) == 1


def test_nobody_at_the_address_is_an_error_of_ours(bring):
    with pytest.raises(DataError, match="makes no progress"):
        bring('Fetch(kind="url", ref="http://127.0.0.1:9/faces.csv")')


def test_a_connection_that_can_not_be_trusted_is_not_tried_again(server, bring):
    url = server.add("/faces.csv").replace("http:", "https:")
    with pytest.raises(DataError, match="certificate can't be verified"):
        bring(f'Fetch(kind="url", ref="{url}")')


def test_an_address_of_another_kind_is_an_error_of_ours(bring):
    with pytest.raises(DataError, match="the download failed"):
        bring('Fetch(kind="url", ref="file:///etc/passwd")')


def test_less_than_announced_is_never_taken_for_the_file(server, home, bring):
    with pytest.raises(DataError, match="makes no progress"):
        bring(f'Fetch(kind="url", ref="{server.add("/faces.csv", length=len(DATA) + 5)}")')
    assert not home.raw("faces").exists()


def test_a_short_answer_is_noticed_also_where_the_library_does_not(bring, monkeypatch):
    import requests

    def short(url, **options):
        answer = requests.Response()
        answer.status_code, answer.url, answer.raw = 200, url, io.BytesIO(DATA[:100])
        answer.headers["Content-Length"] = "200"
        return answer

    monkeypatch.setattr(requests, "get", short)
    with pytest.raises(DataError, match="100 of 200 bytes arrived"):
        bring('Fetch(kind="url", ref="https://faces.example/faces.csv")')


def test_a_file_whose_end_is_not_told_needs_a_hash(server, home, bring):
    url = server.add("/faces.csv", length=-1)
    with pytest.raises(DataError, match="it can't be checked"):
        bring(f'Fetch(kind="url", ref="{url}")')
    assert not home.raw("faces").exists()
    raw = bring(f'Fetch(kind="url", ref="{url}", sha256={{"faces.csv": "{sha256(DATA)}"}})')
    assert files_below(raw) == {"faces.csv": DATA}


def test_a_wrong_file_is_kept_aside_and_both_hashes_are_told(server, home, bring):
    url, expected = server.add("/faces.csv", b"another file"), sha256(DATA)
    with pytest.raises(DataError) as error:
        bring(f'Fetch(kind="url", ref="{url}", sha256={{"faces.csv": "{expected}"}})')
    assert expected in str(error.value)
    assert sha256(b"another file") in str(error.value)
    (kept,) = [p for p in home.data.rglob("*") if p.name == "faces.csv.rejected"]
    assert str(kept) in str(error.value)
    assert kept.read_bytes() == b"another file"
    assert not home.raw("faces").exists()
    server.add("/faces.csv")
    assert files_below(bring(f'Fetch(kind="url", ref="{url}", sha256={{"faces.csv": "{expected}"}})')) == {
        "faces.csv": DATA
    }
    assert kept.read_bytes() == b"another file"


def test_a_file_of_ones_own_under_the_name_is_left_alone(server, home, bring):
    home.raw("faces").mkdir(parents=True)
    (home.raw("faces") / "faces.csv").write_bytes(b"mine")
    source = f'Fetch(kind="url", ref="{server.add("/faces.csv")}", sha256={{"faces.csv": "{sha256(DATA)}"}})'
    with pytest.raises(DataError, match="not the file that the card expects"):
        bring(source)
    assert files_below(home.raw("faces")) == {"faces.csv": b"mine"}
    assert server.asked == []


def test_a_web_page_is_not_taken_for_the_file(server, bring):
    page = server.add("/faces.csv", b"<html>log in", headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(DataError, match="web page instead of the file"):
        bring(f'Fetch(kind="url", ref="{page}")')


def test_a_compressed_answer_is_not_taken_for_the_file(server, bring):
    url = server.add("/faces.csv", headers={"Content-Encoding": "gzip"})
    with pytest.raises(DataError, match="encoding that was not requested"):
        bring(f'Fetch(kind="url", ref="{url}")')


def test_a_redirect_away_from_encryption_is_refused(bring, monkeypatch):
    """An encrypted server would need a certificate here; so the answer that it leads to is given instead."""
    import requests

    answer = requests.Response()
    answer.status_code, answer.url, answer.raw = 200, "http://faces.example/faces.csv", io.BytesIO(DATA)
    monkeypatch.setattr(requests, "get", lambda url, **options: answer)
    with pytest.raises(DataError, match="to an unencrypted connection"):
        bring('Fetch(kind="url", ref="https://faces.example/faces.csv")')


def test_a_redirect_is_followed(server, bring):
    there = server.add("/there.csv")
    here = server.add("/faces.csv", b"", headers={"status": "302", "Location": there})
    assert files_below(bring(f'Fetch(kind="url", ref="{here}")')) == {"faces.csv": DATA}


def test_too_small_a_disk_is_told_before_anything_comes(server, home, bring, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match="not enough disk space"):
        bring(f'Fetch(kind="url", ref="{server.add("/faces.csv")}")')
    assert not [p for p in home.data.rglob("*.part") if p.stat().st_size]


def test_a_disk_that_fills_up_is_told_and_the_part_is_kept(server, bring, home, monkeypatch):
    flushed = []

    def full(descriptor):
        flushed.append(descriptor)
        if len(flushed) == 2:  # the note beside the part is flushed first
            raise OSError(28, "No space left on device")

    source = f'Fetch(kind="url", ref="{server.add("/faces.csv")}")'
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FerBenchError, match="disk is full"):
            bring(source)
    assert not home.raw("faces").exists()
    assert files_below(bring(source)) == {"faces.csv": DATA}
    assert len(server.asked) == 1


def test_a_killed_download_asks_for_the_rest_only(server, tmp_path, home, write_card):
    url = server.add("/faces.csv", stall=threading.Event())
    write_card(f'Fetch(kind="url", ref="{url}", sha256={{"faces.csv": "{sha256(DATA)}"}})')
    process = run_command(tmp_path)
    (part,) = wait_for(lambda: [p for p in home.data.rglob("*.part") if p.stat().st_size >= 2 * BLOCK])
    process.send_signal(signal.SIGKILL)
    process.wait()
    had = part.stat().st_size
    assert not home.raw("faces").exists()

    server.files["/faces.csv"].stall.set()
    assert run_command(tmp_path).wait() == 0
    assert files_below(home.raw("faces")) == {"faces.csv": DATA}
    assert server.asked[1].range == f"bytes={had}-"
    assert server.asked[1].sent == len(DATA) - had
    assert had >= len(DATA) // 3


def test_a_download_killed_just_before_its_end_asks_for_nothing(server, home, bring, monkeypatch):
    from fer_bench.fetching import download

    source = f'Fetch(kind="url", ref="{server.add("/faces.csv")}")'
    with monkeypatch.context() as patch:
        patch.setattr(download, "check_hash", lambda *args, **kwargs: pytest.fail("the kill"))
        with pytest.raises(pytest.fail.Exception):
            bring(source)
    assert files_below(bring(source)) == {"faces.csv": DATA}
    assert len(server.asked) == 1


def test_two_at_once_do_not_meet(server, home, bring):
    stall = threading.Event()
    source = f'Fetch(kind="url", ref="{server.add("/faces.csv", stall=stall)}")'
    first = threading.Thread(target=bring, args=(source,))
    first.start()
    wait_for(lambda: server.asked)
    with pytest.raises(LockedError, match="another process is downloading 'faces'"):
        bring(source)
    stall.set()
    first.join()
    assert files_below(home.raw("faces")) == {"faces.csv": DATA}


# --- archives ---


def test_an_archive_is_unpacked_and_not_fetched_again(server, bring):
    packed = zip_of({"faces-main/a.png": b"a", "faces-main/sub/b.png": b"b"})
    source = f'Fetch(kind="url", ref="{server.add("/faces.zip", packed)}", unpack=True)'
    raw = bring(source)
    assert files_below(raw.parent) == {"faces/faces/a.png": b"a", "faces/faces/sub/b.png": b"b"}
    bring(source)
    assert len(server.asked) == 1


@pytest.mark.parametrize("after", [False, True])
def test_an_unpacking_that_was_killed_is_done_again_without_the_server(server, bring, monkeypatch, after):
    from fer_bench.fetching import fetch as module

    def killed(archive, target):
        if after:
            unpack(archive, target)
        raise KeyboardInterrupt

    unpack, packed = module.unpack, zip_of({"a.png": b"a"})
    source = f'Fetch(kind="url", ref="{server.add("/faces.zip", packed)}", unpack=True)'
    with monkeypatch.context() as patch:
        patch.setattr(module, "unpack", killed)
        with pytest.raises(KeyboardInterrupt):
            bring(source)
    raw = bring(source)
    assert files_below(raw.parent) == {"faces/faces/a.png": b"a"}
    assert len(server.asked) == 1


def test_a_refused_archive_puts_nothing_in_place(server, home, bring):
    packed = zip_of({"a.png": b"a", "../evil": b"b"})
    source = f'Fetch(kind="url", ref="{server.add("/faces.zip", packed)}", unpack=True)'
    with pytest.raises(DataError, match="the archive was rejected"):
        bring(source)
    assert not home.raw("faces").exists()
    assert [p.name for p in home.data.rglob("*") if p.is_file()] == [".faces.fetch.lock", "faces.zip.rejected"]
    server.add("/faces.zip", zip_of({"a.png": b"mended"}))
    assert files_below(bring(source)) == {"faces/a.png": b"mended"}
