"""Section "Operating point": what it says of a study with and without a second reference."""

from __future__ import annotations

import numpy as np
import pytest

from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.render.blocks import Figure, Paragraph, TableBlock
from fer_bench.reports.sections import Context, operating_point, oracle, repeat, trust
from tests.reports.facts.test_operating_point import noisy

DERIVED = {"run_id": "f" * 16, "method": "base", "done": "0" * 64}


def derived_run(bench, seed: int, tau: float) -> str:
    shares = np.array(bench.train) / sum(bench.train)

    def edit(writer):
        writer.put("derived", {**DERIVED, "learned": {"tau": tau}})
        writer.put("seal", {"count": 0, "openings": [], "blocked": []})
        (writer.path / "test_epochs.npy").unlink()

    return bench.run("second", seed, logits=noisy(bench, 0.0, seed) - np.float32(tau) * np.log(shares), edit=edit)


@pytest.fixture
def context(bench):
    runs = [bench.run("base", s, logits=noisy(bench, 0.0, s)) for s in range(3)]
    runs += [derived_run(bench, s, tau) for s, tau in enumerate((0.5, 0.5, 1.0))]
    runs += [bench.run("half", s, logits=noisy(bench, 0.5, s + 50)) for s in range(3)]
    study = bench.study(runs, ["base", "second", "half"], second_reference="second")
    return Context(compute(load_study(bench.ledger, study), draws=50))


def of_kind(blocks, kind):
    return [b for b in blocks if isinstance(b, kind)]


def test_the_curve_the_chosen_strengths_and_every_method_are_shown(context):
    blocks = operating_point.build(context)
    how, second = of_kind(blocks, Paragraph)
    assert "nothing is chosen by it" in how.text
    assert "`second` is the second reference: the same network, with τ chosen on validation (0.5, 1)" in second.text
    (figure,) = of_kind(blocks, Figure)
    texts = [t.get_text() for t in figure.drawn.axes[0].texts]
    assert texts == ["τ = 0", "τ = 1", "τ = 0.67 (chosen)"]
    (table,) = of_kind(blocks, TableBlock)
    rows = {row[0]: row for row in table.table.rows}
    assert list(rows) == ["`base`", "`second`", "`half`"]
    assert rows["`base`"][-1] == "–"


def test_a_shift_of_the_reference_is_never_above_its_curve(context):
    """At each seed it is a point of the curve; another strength may have more recall at the same accuracy."""
    (table,) = of_kind(operating_point.build(context), TableBlock)
    distance = next(row[-1] for row in table.table.rows if row[0] == "`second`")
    assert distance.startswith(("0.0", "−")), distance


def test_precision_and_auroc_of_the_tail_are_those_of_the_class(context):
    (table,) = of_kind(operating_point.build(context), TableBlock)
    study = context.study
    logits = np.stack([r.array("test_logits") for r in study.method("half").runs]).astype(float)
    predicted = logits.argmax(2)
    precision = np.mean([(study.labels[p == 1] == 1).mean() for p in predicted])
    share = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    above = [
        (p[study.labels == 1, None] > p[None, study.labels != 1]).mean() for p in share[:, :, 1]
    ]  # the tail is one class  # fmt: skip
    row = next(row for row in table.table.rows if row[0] == "`half`")
    assert row[2] == f"{100 * precision:.1f}"
    assert row[3] == f"{100 * np.mean(above):.1f}"


def test_a_study_without_a_second_reference_says_how_to_get_one(bench):
    study = bench.study_of({"base": (40, 5, 90), "better": (40, 15, 80)}, seeds=2)
    context = Context(compute(load_study(bench.ledger, study), draws=50))
    assert context.study.second_reference is None
    text = of_kind(operating_point.build(context), Paragraph)[1].text
    assert "has no second reference" in text
    assert "Rerun its command" in text


def test_unknown_training_counts_are_said_and_a_study_without_reference_has_no_section(bench):
    data = {"counts": {"test": list(bench.test)}}
    runs = [bench.run(label, 0, (40, 5, 90), data=data) for label in ("base", "better")]
    context = Context(compute(load_study(bench.ledger, bench.study(runs, ["base", "better"])), draws=50))
    (only,) = operating_point.build(context)
    assert "because the numbers of training images" in only.text or "numbers of training images" in only.text
    study = bench.study(runs, ["base", "better"], reference=None)
    assert operating_point.build(Context(compute(load_study(bench.ledger, study), draws=50))) == []


def test_what_a_read_out_does_not_have_is_said(context):
    text = " ".join(
        b.text for b in of_kind([Paragraph(b) for b in oracle.build(context) if isinstance(b, str)], Paragraph)
    )
    assert "The oracle of `second` is not known" in text
    (bullets,) = [b for b in trust.build(context) if hasattr(b, "items")]
    assert any("`second` was read out of the stored logits of `base`" in line for line in bullets.items)
    assert not any("opened its test set 0 times" in line for line in bullets.items)
    cost = {row[0]: row[1:3] for row in repeat.cost_table(context.study).rows}
    assert cost["`second`"] == ("derived", "0.0")
