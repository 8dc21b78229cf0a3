import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fer_bench
from fer_bench.record.home import Home
from fer_bench.tracking.translate import mirrored
from tests.cli.conftest import SHORT

# -- quick answers ---------------------------------------------------------------------------------------------------


# A machine's speed is no test: what makes these answers quick is what they leave unimported, and that is everything but
# the standard library and the parser of the command line (benchmarks/startup.py times them).
LIGHT = {"click", "fer_bench"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list", "methods"],
        ["list", "datasets"],
        ["list", "recipes"],
        ["show", "rasn"],
        ["run", "--help"],
        ["--version"],
    ],
    ids=str,
)
def test_help_and_lists_import_nothing_but_the_command_line(words):
    program = f"""
import sys
before = set(sys.modules)
from fer_bench.cli import main
try:
    main({words!r})
except SystemExit as end:
    new = {{m.split(".")[0] for m in set(sys.modules) - before}} - sys.stdlib_module_names
    print(end.code, *sorted(new), file=sys.stderr)
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    assert output.split()[0] == "0"
    assert set(output.split()[1:]) <= LIGHT


def test_help_names_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    for name in ("run", "tune", "report", "list", "show", "data", "track", "ui"):
        assert f"  {name} " in out


@pytest.mark.slow
def test_lists_tell_what_there_is(call):
    assert "rasn" in call("list", "methods")[1]
    assert "fer2013/official" in call("list", "protocols")[1]
    assert "label_smoothing" in call("list", "recipes")[1]
    assert call("list", "backbones", "resnet18_s*")[1].split() == ["resnet18_small"]
    assert "share.source = batch_mean" in call("show", "rasn")[1]


# -- what is wrong, and the nearest name -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rnu"], ["unknown command 'rnu'", "'run'", "fer-bench --help"]),
        (["list", "method"], ["unknown list 'method'", "'methods'"]),
        (["show", "rsan"], ["unknown method or data set 'rsan'", "'rasn'"]),
        (["run", "baseline_resnt", "--dataset", "synthetic"], ["unknown method 'baseline_resnt'", "'baseline_resnet'"]),
        (["run", "rasn", "--dataset", "synthetc"], ["unknown dataset 'synthetc'", "'synthetic'"]),
        (["run", "rasn[share.sorce=ema]", "--dataset", "synthetic"], ["unknown parameter", "'share.source'"]),
        (["run", "rasn[share.source=emma]", "--dataset", "synthetic"], ["can't be 'emma'", "ema"]),
        (["run", "rasn[share.source=ema", "--dataset", "synthetic"], ["no closing bracket"]),
        (["run", "rasn", "--dataset", "synthetic", "--backbone", "resnet81"], ["unknown backbone", "'resnet18'"]),
        (["run", "rasn", "--dataset", "synthetic", "--set", "momentm=1"], ["unknown recipe field", "'momentum'"]),
        (["run", "rasn", "--dataset", "synthetic", "--set", "momentum"], ["is not name=value"]),
        (["run", "rasn", "--dataset", "synthetic", "--epochs", "0"], ["epochs=0 is out of range"]),
        (["run", "rasn", "--dataset", "synthetic", "--recipe", "dem"], ["unknown recipe 'dem'", "'demo'"]),
        (["run", "rasn", "--dataset", "synthetic", "--protocol", "oficial"], ["unknown protocol", "official'"]),
        (["run", "rasn", "--dataset", "synthetic", "--select", "recall"], ["unknown metric", "'mean_recall'"]),
        (["run", "rasn", "--dataset", "synthetic", "--device", "gpu"], ["device 'gpu'", "cuda"]),
        (["run", "rasn", "--dataset", "synthetic", "--seeds", "0"], ["--seeds 0 is out of range", "1 to 1,000"]),
        (["run", "rasn", "--dataset", "synthetic", "--subsets", "3"], ["only one draw", "--imbalance exp:50", "folds"]),
        (["run", "rasn", "--dataset", "synthetic", "--subsets", "0"], ["--subsets 0 is out of range", "1 to 100"]),
        (["run", "rasn", "--dataset", "synthetic", "--plugins", "no/such"], ["does not exist", "no/such"]),
        (["tune", "rsan", "--dataset", "synthetic"], ["unknown method 'rsan'", "'rasn'"]),
        (["report", "--home", "."], ["the ledger holds no study"]),
        (["data", "prepare", "synthetc"], ["unknown dataset", "'synthetic'"]),
        (["data", "stats", "synthetic"], ["synthetic", "fer-bench data prepare"]),
    ],
    ids=lambda v: " ".join(v[:4]) if v and v[0].islower() else None,
)  # fmt: skip
def test_a_mistake_is_answered_with_the_nearest_name_before_all_else(call, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FER_BENCH_HOME", raising=False)
    code, out, err = call(*words)
    assert code == 1
    assert err.startswith("error: ")
    assert "Traceback" not in out + err
    for text in expected:
        assert text in err
    assert list(tmp_path.iterdir()) == [], "no data were drawn for a command that can't be carried out"


def test_wrong_usage_ends_with_two(call):
    code, _, err = call("run", "rasn")
    assert code == 2
    assert "--dataset" in err
    code, _, err = call("run", "rasn", "--dataset", "synthetic", "--sedes", "3")
    assert code == 2
    assert "--seeds" in err


def test_a_broken_plugin_is_told_and_the_others_are_listed(call, tmp_path):
    (tmp_path / "bad.py").write_text("card = (")
    (tmp_path / "good.py").write_text('card = MethodCard(name="good", title="a good one")')
    code, out, err = call("list", "methods", "--plugins", tmp_path)
    assert code == 0
    assert "a good one" in out
    assert "skipped a broken plug-in" in err
    assert "bad.py" in err
    code, _, err = call("run", "bad", "--dataset", "synthetic", "--plugins", tmp_path)
    assert code == 1
    assert "method 'bad' is broken" in err


# -- a study from end to end -----------------------------------------------------------------------------------------


def test_run_trains_compares_reports_and_reuses(on_tiny, call, tmp_path):
    words = ("run", "baseline_focal[gamma=1]", "baseline_resnet", "--name", "small", "--threads", "1")
    code, out, err = on_tiny(*words)
    assert code == 0, err
    assert "study small: 2 methods x 1 seed on tiny/official" in out
    assert "baseline_focal[gamma=1.0]" in out
    pages = {p.suffix for p in (tmp_path / "results" / "small").rglob("*") if p.is_file()}
    assert ".md" in pages
    ledger = Home(tmp_path).ledger
    study = ledger.study("small")
    assert study["methods"] == ["baseline_focal[gamma=1.0]", "baseline_resnet", "logit_adjust_posthoc"]
    assert (study["reference"], study["second_reference"]) == ("baseline_resnet", "logit_adjust_posthoc")
    records = [ledger.run(i) for i in study["runs"]]
    assert [r.status for r in records] == ["finished"] * 3
    assert [r.spec["params"].get("gamma") for r in records[:2]] == [1.0, None]
    assert records[2].json("derived")["run_id"] == records[1].id
    for record in records:
        record.verify()

    code, out, _ = on_tiny(*words)
    assert code == 0
    assert out.count("finished before") == 3
    code, out, _ = call("report", "small", "--home", tmp_path)
    assert code == 0
    assert "baseline_resnet" in out
    assert f"derived from {records[1].id}" in call("list", "runs", "--home", tmp_path)[1]
    frame = fer_bench.results(tmp_path, study="small")
    assert frame.attrs["remarks"] == []
    assert set(frame.method) == set(study["methods"])
    assert len(fer_bench.predictions(records[2].id, tmp_path)) == 48
    assert len(fer_bench.predictions(records[2].id, tmp_path, split="val")) == 40
    seen = mirrored(records[2])
    assert (seen.status, seen.tags["fer_bench.derived_from"]) == ("FINISHED", records[1].id)
    assert "finished" in call("list", "runs", "--home", tmp_path)[1]
    assert "small" in call("list", "studies", "--home", tmp_path)[1]


def test_a_name_stays_with_its_runs_until_it_is_replaced(on_tiny, call, tmp_path):
    words = ("run", "baseline_resnet", "--threads", "1", "--quiet", "--no-second-reference")
    assert on_tiny(*words, "--name", "mine")[0] == 0
    assert Home(tmp_path).ledger.study("mine")["second_reference"] is None
    code, _, err = on_tiny(*words, "--name", "mine", "--set", "lr=0.01")
    assert code == 1
    assert "there is a study 'mine' already" in err
    assert "--replace" in err
    assert "next:  the same command with --name mine-2" in err
    ledger = Home(tmp_path).ledger
    assert [r.spec["recipe"]["lr"] for r in ledger.runs()] == [0.004]
    assert on_tiny(*words, "--name", "mine", "--set", "lr=0.01", "--replace")[0] == 0
    assert sorted(r.spec["recipe"]["lr"] for r in ledger.runs()) == [0.004, 0.01]

    record = tmp_path / "ledger" / "studies" / "mine.json"
    record.write_text(record.read_text().replace('"name": "mine"', '"name": "../../../evil"'))
    for command in (
        ["report", "mine"],
        ["report"],
        ["response", "mine"],
        ["compare", "mine"],
        ["track", "sync", "mine"],
    ):
        code, _, err = call(*command, "--home", tmp_path)
        assert code == 1, command
        assert "the record of study 'mine' calls itself '../../../evil'" in err
    assert "calls itself" in call("list", "studies", "--home", tmp_path)[1]
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("name", ["../../evil", "a" * 300, "/tmp/evil", "folder:", "my study"])
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_made(on_tiny, tmp_path, name):
    code, _, err = on_tiny("run", "baseline_resnet", "--name", name)
    assert code == 1
    assert "study's name" in err
    assert list(tmp_path.iterdir()) == []


def test_several_profiles_and_folds_make_studies_and_curves(on_tiny, tmp_path):
    words = (
        "run",
        "baseline_resnet",
        "--name",
        "thin",
        "--threads",
        "1",
        "--imbalance",
        "exp:10",
        "--imbalance",
        "exp:24",
    )
    code, out, err = on_tiny(*words, "--protocol", "folds", "--folds", "1,3")
    assert code == 0, err
    assert "study thin-exp_10: 1 method x 1 seed x 2 folds on tiny/folds, imbalance exp:10" in out
    assert "baseline_resnet, fold 3, seed 0" in out
    assert f"imbalance-response curves: {tmp_path / 'results' / 'thin-response' / 'report.md'}" in out
    ledger = Home(tmp_path).ledger
    for name, profile in (("thin-exp_10", "exp:10"), ("thin-exp_24", "exp:24")):
        records = [ledger.run(i) for i in ledger.study(name)["runs"]]
        assert [(r.spec["fold"], r.spec["profile"]) for r in records] == [(f, profile) for f in (1, 1, 3, 3)]
        assert [r.has("derived.json") for r in records] == [False, True] * 2


RAISING = """
from fer_bench import Method, MethodCard
card = MethodCard(name="raising", title="t")

class Raising(Method):
    card = card

    def on_epoch_end(self, epoch, stats):
        raise KeyError("no such centre")
"""


def test_a_method_that_raises_fails_alone_and_is_told_with_its_line(on_tiny, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "raising.py").write_text(RAISING)
    code, out, err = on_tiny("run", "raising", "baseline_resnet", "--plugins", folder, "--name", "s", "--quiet")
    assert code == 1
    assert "'raising' raised KeyError" in out + err
    assert "raising.py:9, in on_epoch_end" in out + err
    assert "Traceback" not in out + err
    assert "1 of 3 runs failed" in err
    ledger = Home(tmp_path).ledger
    assert sorted(ledger.run(i).status for i in ledger.study("s")["runs"]) == ["failed", "finished", "finished"]


PATIENT = RAISING.replace("raising", "patient").replace(
    'raise KeyError("no such centre")',
    """
        import os, pathlib, signal, time
        flag = pathlib.Path(__file__).with_name("interrupted")
        if epoch == 1 and not flag.exists():
            flag.touch()
            os.kill(DRIVER, signal.SIGINT)
            time.sleep(600)  # it is ended before
""",
)


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(on_tiny, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "patient.py").write_text(PATIENT.replace("DRIVER", str(os.getpid())))
    words = ("run", "patient", "--plugins", folder, "--name", "s", "--quiet")
    code, _, err = on_tiny(*words)
    assert code == 130
    assert "Finished runs are saved. Rerun the command to resume." in err
    assert "Traceback" not in err
    ledger = Home(tmp_path).ledger
    (record,) = [ledger.run(i) for i in ledger.study("s")["runs"]]
    assert record.status == "unfinished"
    code, _, err = on_tiny(*words)
    assert code == 0, err
    assert record.status == "finished"
    assert len(record.json("history")) == 2


@pytest.mark.slow
def test_data_is_prepared_counted_and_pictured(call, plugin_folder, tmp_path):
    code, out, err = call("data", "prepare", "tiny", "--plugins", plugin_folder, "--home", tmp_path)
    assert code == 0, err
    code, out, _ = call("data", "stats", "tiny", "--home", tmp_path)
    assert code == 0
    assert "48" in out
    sheet = tmp_path / "sheet.png"
    assert call("data", "show", "tiny", "--home", tmp_path, "--out", sheet)[0] == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_the_installed_script_is_the_same_entry():
    script = Path(sys.executable).with_name("fer-bench")
    if not script.exists():
        pytest.skip("fer-bench is not installed as a script here")
    output = subprocess.run([script, "list", "methods"], capture_output=True, text=True, check=True).stdout
    assert "baseline_resnet" in output


@pytest.mark.parametrize(
    ("fast", "asked", "warned"), [("fp32", "bf16", True), ("fp32", "auto", False), ("bf16", "auto", False)]
)
def test_a_machine_without_bf16_of_its_own_is_told_of(on_tiny, monkeypatch, fast, asked, warned):
    for module in ("run", "options"):
        monkeypatch.setattr(f"fer_bench.cli.{module}.fast_precision", lambda device: fast)
    code, _, err = on_tiny("run", "baseline_resnet", "--precision", asked)
    assert code == 0
    assert ("--precision auto" in err) == warned


# -- any terminal ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_terminal(plugin_folder, tmp_path):
    """``in_terminal(encoding, *words)``: exit code, bytes and errors of the command line in a process of its own."""

    def run(encoding, *words, **environment):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON", "MLFLOW", "FER_"))}
        kept |= {"PYTHONIOENCODING": encoding} if encoding else {}
        command = [sys.executable, "-m", "fer_bench", *words, "--home", str(tmp_path / "Zuhause é")]
        done = subprocess.run(command, capture_output=True, env=kept | environment, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr.decode(errors="replace")

    return run


def test_a_study_ends_well_in_a_terminal_that_lacks_its_letters(in_terminal, plugin_folder):
    on_tiny = [
        "--dataset",
        "tiny",
        "--plugins",
        str(plugin_folder),
        *SHORT,
        "--epochs",
        "1",
        "--precision",
        "fp32",
        "--name",
        "s",
    ]
    words = ["run", "baseline_resnet", "baseline_focal", *on_tiny]
    code, out, err = in_terminal("latin-1", *words)
    assert (code, err) == (0, "")
    output = out.decode("latin-1")
    assert "s - tiny/official" in output.replace("·", "-")
    assert "| baseline_focal" in output or "|baseline_focal" in output
    assert "Zuhause é" in output.splitlines()[-1]

    code, out, err = in_terminal(None, *words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (code, err) == (0, "")
    assert out.decode("ascii").count("finished before") == 3
    code, out, err = in_terminal("ascii", "report", "s", "--format", "md")
    assert (code, err) == (0, "")
    assert "mean-class accuracy" in out.decode("ascii")
    code, out, err = in_terminal("gbk", "list", "runs")
    assert (code, err) == (0, "")
    assert out.decode("gbk").count("finished") == 3


def test_nothing_after_the_training_keeps_the_mirror_from_its_last_update(monkeypatch, workplace):
    from fer_bench import reports
    from fer_bench.cli.workplace import finish_study

    class Spy:
        def update(self, study):
            self.seen = study["name"]

    def full(*args, **kwargs):
        raise OSError("no room for the report")

    spy = Spy()
    monkeypatch.setattr(reports, "build_report", full)
    with pytest.raises(OSError, match="no room"):
        finish_study({"name": "s"}, workplace, spy)
    assert spy.seen == "s"


# -- the list of runs ------------------------------------------------------------------------------------------------


def test_runs_are_listed_with_their_scores_and_narrowed(call, tmp_path):
    ledger = Home(tmp_path).ledger
    truth = np.repeat(np.arange(3), (6, 2, 2))  # recalls 1, 1/2, 0: mean 0.5; accuracy 7/10
    answers = np.array([0] * 6 + [1, 0] + [0, 0])
    for k, (method, dataset) in enumerate([("rasn", "toy"), ("plain", "toy"), ("plain", "other")]):
        writer = ledger.writer(f"{k}" * 16)
        writer.start()
        spec = {"method": method, "dataset": dataset, "protocol": "official", "profile": "natural"}
        spec |= {"seed": k, "fold": 0, "params": {"a": float(k)}}
        writer.put("spec", {"label": f"{method}[a={k}]", "spec": spec})
        if k == 2:  # interrupted
            continue
        watermark = "chosen on the test" if k else ""
        protocol = {"name": f"{dataset}/official", "watermark": watermark}
        writer.put("data", {"classes": ["a", "b", "c"], "protocol": protocol})
        writer.put("selection", {"metric": "mean_recall", "epoch": 4, "value": 0.625})
        writer.put("probe", {"transductive": not k})
        writer.put("test_labels", truth)
        writer.put("test_logits", np.eye(3, dtype=np.float32)[answers])
        writer.finish()
    (tmp_path / "ledger" / "bad").mkdir()
    (tmp_path / "ledger" / "bad" / "spec.json").write_text("{")
    ledger.put_study("s", {"name": "s", "runs": ["1" * 16, "0" * 16, "f" * 16], "command": "fer-bench run"})

    code, out, err = call("list", "runs", "--home", tmp_path)
    assert code == 0
    assert "bad" in err
    title, *lines = out.splitlines()
    assert [line.split()[0][0] for line in lines] == ["0", "1", "2"]
    words = "0000000000000000 finished rasn[a=0] 0 toy/official natural 5 62.5 mean recall 50.0 70.0 transductive"
    assert lines[0].split() == words.split()
    assert lines[1].split()[-1] == "WATERMARKED"
    assert lines[2].split()[1:] == ["unfinished", "plain[a=2]", "2", "other/official", "natural"]
    assert title.split()[:3] == ["run", "status", "method"]

    def chosen(*filters):
        code, out, _ = call("list", "runs", "--home", tmp_path, *filters)
        assert code == 0
        return [line[0] for line in out.splitlines()[1:]]

    assert chosen("--method", "plain") == ["1", "2"]
    assert chosen("--method", "plain[a=2]") == chosen("--method", "plain[a=2.0]") == ["2"]
    assert chosen("--dataset", "toy") == ["0", "1"]
    assert chosen("--status", "unfinished") == ["2"]
    assert chosen("--study", "s") == ["1", "0"]
    assert chosen("--study", "s", "--method", "rasn") == ["0"]
    assert chosen("--study", "s", "--status", "failed") == []
    misspelt = ("--method", "plian", "plain"), ("--status", "finish", "finished"), ("--study", "ss", "s")
    for flag, name, near in misspelt:
        code, _, err = call("list", "runs", "--home", tmp_path, flag, name)
        assert (code, near in err) == (1, True)
    code, _, err = call("list", "methods", "--status", "failed")
    assert code == 2
    assert "fer-bench list runs --status" in err


def test_an_empty_ledger_says_what_fills_it(call, tmp_path):
    assert "fer-bench run METHOD --dataset NAME" in call("list", "runs", "--home", tmp_path)[1]


def test_python_m_is_the_same_entry():
    command = [sys.executable, "-m", "fer_bench", "list"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "baseline_resnet" in output
