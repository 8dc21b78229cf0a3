"""``fer-bench ablate``: from the arms of a card to a study and its record."""

from __future__ import annotations

import pytest

from fer_bench.record.home import Home

TWO_PARTS = '''
"""Cross-entropy with label smoothing and with class weights."""
import torch
from torch.nn import functional as F
from fer_bench import Arm, Method, MethodCard, Param

card = MethodCard(
    name="two_parts",
    title="of a test",
    params={"smooth": Param(0.1, "smoothing", low=0.0, high=0.5), "weights": Param(False, "weights of classes")},
    arms={
        "plain": Arm("baseline_resnet"),
        "smoothed": Arm("two_parts", to="plain", adds="smoothing", control="bare"),
        "bare": Arm("two_parts[smooth=0]", to="plain"),
        "both": Arm("two_parts[weights=true]", to="smoothed", adds="class weights"),
    },
)


class TwoParts(Method):
    card = card

    def criterion(self, output, target):
        losses = F.cross_entropy(output.logits, target, reduction="none", label_smoothing=self.params["smooth"])
        if not self.params["weights"]:
            return losses
        counts = torch.as_tensor(self.ctx.counts, dtype=torch.float32)
        return losses * (counts.mean() / counts)[target.argmax(1) if target.ndim > 1 else target]
'''
WRONG = """
from fer_bench import Arm, Method, MethodCard
card = MethodCard(name="wrong", title="t", arms={"plain": Arm("baseline_resnet"), "focal": Arm("VARIANT", to="plain")})
class Wrong(Method):
    card = card
"""


@pytest.fixture
def own(tmp_path):
    """A folder with the method `two_parts`."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "two_parts.py").write_text(TWO_PARTS)
    return folder


def test_the_arms_become_a_study_that_remembers_them_and_is_resumed(on_tiny, own, tmp_path):
    words = ("two_parts", "--plugins", own, "--threads", "1", "--set", "precision=fp32")
    code, out, err = on_tiny("ablate", *words, "--arms", "smoothed,plain")
    assert code == 0, err
    assert "arms of two_parts: plain, smoothed\n" in out
    ledger = Home(tmp_path).ledger
    (name,) = ledger.studies()
    assert name.startswith("tiny-two_parts-ablation-")
    few = ledger.study(name)
    pages = tmp_path / "results" / name
    assert f"report: {pages / 'report.md'}\nablation: {pages / 'ablation.md'}\n" in out
    assert "**smoothing**, `smoothed" in (pages / "ablation.md").read_text()
    assert few["methods"] == ["baseline_resnet", "two_parts", "logit_adjust_posthoc"]
    assert (few["reference"], few["second_reference"]) == ("baseline_resnet", "logit_adjust_posthoc")
    code, out, err = on_tiny("ablate", *words, "--name", "all")
    assert code == 0, err
    assert out.count(": finished before, run") == 3
    study = ledger.study("all")
    assert study["kind"] == "ablation"
    assert study["ablation"]["method"] == "two_parts"
    assert [(a["name"], a["label"], a["to"], a["adds"], a["control"]) for a in study["ablation"]["arms"]] == [
        ("plain", "baseline_resnet", "", "", ""),
        ("smoothed", "two_parts", "plain", "smoothing", "bare"),
        ("bare", "two_parts[smooth=0.0]", "plain", "", ""),
        ("both", "two_parts[weights=True]", "smoothed", "class weights", ""),
    ]
    assert (few["ablation"]["left_out"], study["ablation"]["left_out"]) == (["bare", "both"], [])
    assert [r for r in study["runs"] if r in few["runs"]] == few["runs"]


def test_a_method_without_arms_names_those_that_have_some(call, own, tmp_path):
    here = ("--plugins", own, "--home", tmp_path)
    code, _, err = call("ablate", "baseline_focal", "--dataset", "synthetic", *here)
    assert code == 1
    assert "the card of 'baseline_focal' lists no arms" in err
    assert "two_parts" in err.partition("hint:")[2].partition("\n")[0]
    assert "next:  fer-bench ablate " in err
    assert f"--plugins {own}" in err


def test_an_arm_that_does_not_exist_or_lacks_what_it_is_compared_with_is_refused(call, own, tmp_path):
    here = ("--dataset", "synthetic", "--plugins", own, "--home", tmp_path)
    code, _, err = call("ablate", "two_parts", *here, "--arms", "plain,smoothd")
    assert code == 1
    assert "unknown arm 'smoothd'" in err
    assert "did you mean 'smoothed'" in err
    code, _, err = call("ablate", "two_parts", *here, "--arms", "both")
    assert code == 1
    assert "the arm 'both' is compared with 'smoothed', which is left out" in err
    assert "--arms 'plain,smoothed,both'" in err
    code, _, err = call("ablate", "two_parts", *here, "--arms", ", ")
    assert code == 1
    assert "unknown arm" in err
    assert list(tmp_path.iterdir()) == [own], "nothing was prepared"


@pytest.mark.parametrize(
    ("variant", "message", "next_one"),
    [
        ("baseline_focal[gama=1]", "unknown parameter 'gama'", "baseline_focal"),
        ("baseline_fokal", "unknown method 'baseline_fokal'", "baseline_fokal"),
        ("balanced_softmax", "'balanced_softmax' is logit_adjust", "balanced_softmax"),
    ],
)
def test_an_arm_of_another_method_is_checked_when_the_command_runs(call, own, tmp_path, variant, message, next_one):
    (own / "wrong.py").write_text(WRONG.replace("VARIANT", variant))
    code, _, err = call("ablate", "wrong", "--dataset", "synthetic", "--plugins", own, "--home", tmp_path)
    assert code == 1
    assert message in err
    assert f"the card of 'wrong', arm 'focal': {variant}" in err
    assert f"fer-bench show {next_one}" in err


def test_show_lists_the_arms_and_the_command(call, own):
    code, out, _ = call("show", "two_parts", "--plugins", own)
    assert code == 0
    assert "arms of its ablation\n  plain     baseline_resnet, the baseline\n" in out
    told = "smoothed two_parts, adds smoothing to 'plain', the control for extra capacity is 'bare'"
    assert told in " ".join(out.split())  # wherever it is folded
    assert "to ablate   fer-bench ablate two_parts --dataset synthetic" in out
