"""``fer-bench run --subsets``: several draws of a thinned training set, from the command line to the report."""

from __future__ import annotations

from fer_bench.record.home import Home


def test_every_seed_trains_on_every_draw_of_a_thinned_training_set(on_tiny, call, tmp_path):
    words = (
        "run",
        "baseline_resnet",
        "--name",
        "drawn",
        "--no-second-reference",
        "--threads",
        "1",
        "--imbalance",
        "exp:24",
    )
    code, _, err = on_tiny(*words)
    assert code == 0, err
    ledger = Home(tmp_path).ledger
    alone = ledger.study("drawn")["runs"]
    page = (tmp_path / "results" / "drawn" / "report.md").read_text()
    assert "the same draw of the thinned training set (`exp:24`)" in page
    assert "--subsets 3`" in page
    titles = call("list", "runs", "--home", tmp_path)[1].splitlines()[0]
    assert "subset" not in titles, "all have the usual draw"
    code, out, err = on_tiny(*words, "--subsets", "2")
    assert code == 0, err
    assert "study drawn: 1 method x 1 seed x 2 subsets on tiny/official, imbalance exp:24" in out
    assert "[1/2] baseline_resnet, seed 0: finished before" in out, "the first draw is that of a study with one"
    assert "[2/2] baseline_resnet, subset 1, seed 0: run" in out
    runs = ledger.study("drawn")["runs"]
    assert runs[0] == alone[0]
    rows = [set(ledger.run(i).array("train_rows").tolist()) for i in runs]
    assert (len(rows[0]), rows[0] == rows[1]) == (len(rows[1]), False)
    page = (tmp_path / "results" / "drawn" / "report.md").read_text()
    assert "2 (0–1); every seed is trained on each" in page
    assert "95 % intervals over subsets and images" in page
    out = call("list", "runs", "--home", tmp_path)[1].splitlines()
    assert "subset" in out[0]


def test_a_natural_study_beside_thinned_ones_has_one_draw(on_tiny, tmp_path):
    words = ("run", "baseline_resnet", "--name", "both", "--threads", "1", "--imbalance", "natural")
    code, _, err = on_tiny(*words, "--imbalance", "exp:24", "--subsets", "2")
    assert code == 0, err
    ledger = Home(tmp_path).ledger
    assert [len(ledger.study(name)["runs"]) for name in ("both-natural", "both-exp_24")] == [2, 4]
    drawn = [ledger.run(i) for i in ledger.study("both-exp_24")["runs"]]
    assert [(r.spec.get("subset", 0), r.has("derived.json")) for r in drawn] == [
        (s, d) for s in (0, 1) for d in (False, True)
    ]
