"""No password and no token in what is kept or shown."""

from __future__ import annotations

import shlex
import sys

import pytest

from fer_bench.base.credentials import (
    command_line,
    hide,
    hide_command,
    hiding_output,
    holds_secret,
    public_address,
    words,
)
from fer_bench.cli import main
from fer_bench.record.ledger import Ledger


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://alice:s3cr3tpw@127.0.0.1:9/", "http://***@127.0.0.1:9/"),
        ("see postgresql+psycopg2://me:p%40ss@host:5432/db now", "see postgresql+psycopg2://***@host:5432/db now"),
        ("https://ghp_token@host/x", "https://***@host/x"),
        ("http://me:a/b@host/x", "http://***@host/x"),  # slashes should have been quoted, and were not
        ("http://me:a@b@host", "http://***@host"),
        ("http://host/?token=abc&x=1", "http://host/?token=***&x=1"),
        ("http://host/api?x=1&access_token=abc", "http://host/api?x=1&access_token=***"),
        ("https://bucket/?X-Amz-Signature=abc", "https://bucket/?X-Amz-Signature=***"),
        ("MLFLOW_TRACKING_PASSWORD=abc fer-bench", "MLFLOW_TRACKING_PASSWORD=*** fer-bench"),
        ("{'Authorization': 'Basic YWxpY2U6eA=='}", "{'Authorization': 'Basic ***'}"),
    ],
)
def test_credentials_are_hidden_in_running_text(text, hidden):
    assert hide(text) == hidden
    assert hide(hidden) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/x",
        "http://host:5000/a@b",
        "sqlite:////home/me@lab/h/mlflow.db",
        "https://doi.org/10.1000/x?page=3",
        "gamma=2 tokens=3 key=value mail@host",
        "fer-bench run 'rasn[share.source=ema]' --set lr=0.1",
    ],
)
def test_what_holds_none_stays_as_it_is(text):
    assert hide(text) == text
    assert not holds_secret(text)


def test_the_secrets_of_an_address_are_hidden_wherever_an_error_repeats_them():
    uri = "postgresql://alice:p%40ssword@host/db"
    assert hide("FATAL: p@ssword is wrong, p%40ssword too", uri) == "FATAL: *** is wrong, *** too"
    assert hide("FATAL: p@ssword is wrong") == "FATAL: p@ssword is wrong"


def test_secrets_of_the_environment_are_hidden_those_of_proxies_too(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheimnis")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxyword@proxy:3128")
    monkeypatch.setenv("SHORT_TOKEN", "on")
    assert hide("geheimnis for proxyword on") == "*** for *** on"


def test_addresses_are_shown_without_their_user():
    assert public_address("http://alice:s3cr3tpw@127.0.0.1:9/x?token=a") == "http://127.0.0.1:9/x?token=***"
    assert public_address("https://ghp_token@host") == "https://host"


@pytest.mark.parametrize("option", [["--tracking-uri", "{}"], ["--tracking-uri={}"]])
@pytest.mark.parametrize("uri", ["http://a:pw w'x@h/", 'http://a:p"w@h/', "http://a:$(x)@h/", "http://a:pw@h/"])
def test_the_recorded_command_hides_the_whole_password_whatever_it_holds(monkeypatch, option, uri):
    monkeypatch.setattr(sys, "argv", ["fer-bench", "run", "m", *(w.format(uri) for w in option), "--set", "lr=1"])
    typed = shlex.split(command_line())
    assert typed == ["fer-bench", "run", "m", *(w.format("http://***@h/") for w in option), "--set", "lr=1"]
    assert words(sys.argv[1:]) == typed[1:]


def test_the_command_of_an_earlier_record_is_hidden_when_it_is_read():
    old = {"name": "s", "command": "fer-bench run m --tracking-uri http://alice:s3cr3tpw@h/ --set 'a=b c'"}
    assert hide_command(old)["command"] == "fer-bench run m --tracking-uri 'http://***@h/' --set 'a=b c'"
    plain = {"name": "s", "command": 'fer-bench run "m" --set a=b'}
    assert hide_command(plain) == plain


def test_what_libraries_print_is_hidden(capsys):
    with hiding_output("http://alice:s3cr3tpw@h/"):
        print("View run at http://alice:s3cr3tpw@h/#/1")
        print("wrong password s3cr3tpw", file=sys.stderr)
    out, err = capsys.readouterr()
    assert out == "View run at http://***@h/#/1\n"
    assert err == "wrong password ***\n"


def test_the_traceback_of_a_failed_run_is_kept_without_credentials(tmp_path):
    writer = Ledger(tmp_path).writer("a" * 16)
    writer.start()
    try:
        raise OSError("no answer from http://alice:s3cr3tpw@h/")
    except OSError as error:
        writer.fail(error)
    text = (writer.path / "failed.json").read_text()
    assert "s3cr3tpw" not in text
    assert writer.json("failed")["message"] == "no answer from http://***@h/"


def test_our_own_bugs_are_shown_with_their_traceback_and_without_credentials(monkeypatch, capsys):
    def broken(given):
        address = "http://alice:s3cr3tpw@h/"
        raise RuntimeError(f"bug at {address}")

    monkeypatch.setattr("fer_bench.record.home.Home.find", broken)
    with pytest.raises(SystemExit) as caught:
        main(["list", "runs"])
    err = capsys.readouterr().err
    assert caught.value.code == 1
    assert "Traceback" in err
    assert err.endswith("RuntimeError: bug at http://***@h/\n")
