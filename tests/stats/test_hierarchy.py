"""The hierarchy of claims against the graphical procedure of Bretz et al., written out, and its error rate."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from fer_bench.stats.hierarchy import Hierarchy

ALPHA = Fraction(1, 20)


def graphical(p: list[Fraction], weights: list[Fraction], edges: list[list[Fraction]]) -> set[int]:
    """Hypotheses rejected by algorithm 1 of Bretz et al. (2009), with < in place of <=."""
    left, rejected = set(range(len(p))), set()
    weights, edges = list(weights), [list(row) for row in edges]
    while found := [j for j in left if p[j] < ALPHA * weights[j]]:
        j = found[0]
        left.remove(j)
        rejected.add(j)
        old = [list(row) for row in edges]
        for k in left:
            weights[k] += weights[j] * old[j][k]
            for m in left - {k}:
                loop = old[k][j] * old[j][k]
                edges[k][m] = (old[k][m] + old[k][j] * old[j][m]) / (1 - loop) if loop < 1 else Fraction(0)
    return rejected


def gatekeeping_graph(methods: int, secondary: int) -> tuple[list[Fraction], list[list[Fraction]]]:
    """Weights and edges; a method's primary hypothesis comes before its secondary ones."""
    size = methods * (1 + secondary)
    weights, edges = [Fraction(0)] * size, [[Fraction(0)] * size for _ in range(size)]
    for first in range(0, size, 1 + secondary):
        weights[first] = Fraction(1, methods)
        for k in range(secondary):
            edges[first][first + 1 + k] = Fraction(1, secondary)
    return weights, edges


def claimed(p: list[float], methods: int, secondary: int) -> set[int]:
    """Hypotheses whose adjusted p-value lies below alpha."""
    hierarchy, out = Hierarchy(methods=methods, secondary=secondary), set()
    for first in range(0, len(p), 1 + secondary):
        adjusted = [hierarchy.adjusted_primary(p[first])]
        adjusted += [hierarchy.adjusted_secondary(p[first], p[first + 1 + k]) for k in range(secondary)]
        out |= {first + k for k, value in enumerate(adjusted) if value < float(ALPHA)}
    return out


@pytest.mark.parametrize(("methods", "secondary"), [(1, 1), (1, 4), (2, 1), (2, 2), (4, 0)])
def test_claims_are_those_of_the_graphical_procedure(methods, secondary):
    # Below, at and above the limits alpha / M and alpha / (M K), for every combination.
    first, second = ALPHA / methods, ALPHA / (methods * max(1, secondary))
    values = sorted({second / 2, second, (first + second) / 2, first, 2 * first})
    weights, edges = gatekeeping_graph(methods, secondary)
    for p in itertools.product(values, repeat=methods * (1 + secondary)):
        assert claimed([float(v) for v in p], methods, secondary) == graphical(list(p), weights, edges)


@given(st.lists(st.floats(0, 0.2), min_size=9, max_size=9))
def test_any_p_values_give_the_claims_of_the_graphical_procedure(p):
    weights, edges = gatekeeping_graph(3, 2)
    exact = [Fraction(v) for v in p]
    limits = [ALPHA / 3, ALPHA / 6]
    if min(abs(v - limit) for v in exact for limit in limits) > Fraction(1, 10**12):  # else floats decide otherwise
        assert claimed(p, 3, 2) == graphical(exact, weights, edges)


def test_levels_and_adjusted_p_values_by_hand():
    four = Hierarchy(methods=4, secondary=8)
    assert (four.primary_alpha, four.secondary_alpha) == (0.0125, 0.0015625)
    assert four.adjusted_primary(0.01) == pytest.approx(0.04)
    assert four.adjusted_primary(0.3) == 1.0
    assert four.adjusted_secondary(0.001, 0.001) == pytest.approx(0.032)
    assert four.adjusted_secondary(0.01, 0.0001) == pytest.approx(0.04)  # no smaller than that of the gate
    assert four.adjusted_secondary(0.001, 0.5) == 1.0
    assert four.adjusted_primary(float("nan")) == four.adjusted_secondary(0.0, float("nan")) == 1.0


@pytest.mark.parametrize("gates", ["open", "null"])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_false_claims_come_in_at_most_five_studies_of_a_hundred(gates, correlation):
    methods, secondary, studies = 3, 4, 4000
    rng = np.random.default_rng(1)
    common, own = rng.normal(size=(studies, 1)), rng.normal(size=(studies, methods * (1 + secondary)))
    z = correlation**0.5 * common + (1 - correlation) ** 0.5 * own
    p = 2 * scipy_stats.norm.sf(abs(z))
    if gates == "open":  # true differences in all primary endpoints, none behind them: the whole level is passed on
        p[:, :: 1 + secondary] = 0.0
    true = set(range(0, p.shape[1], 1 + secondary)) if gates == "open" else set()
    wrong = np.mean([bool(claimed(row.tolist(), methods, secondary) - true) for row in p])
    assert wrong <= 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
    if correlation == 0:
        tests = methods * (secondary if gates == "open" else 1)
        assert wrong == pytest.approx(1 - (1 - 0.05 / tests) ** tests, abs=0.011)
