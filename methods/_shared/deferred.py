"""Parameters of a loss whose paper defers class weights to the last epochs."""

from __future__ import annotations

from fer_bench import Choice, Param

from .compose import COMPOSE

DEFERRED = {
    **COMPOSE,
    "weights": Param(
        "effective",
        "weight of each image by its class, as in Cao et al. 2019: effective is Cui et al. 2019 with β=0.9999, sum C; "
        "none leaves the loss alone; inverse is N/(C n_c); sqrt is ∝ n_c^(-1/2). The weighted sum is divided by B",
        choices=("none", "inverse", "sqrt", "effective"),
        space=Choice(("none", "effective")),
    ),
    "weights.from": Param(
        0.8,
        "share of the epochs after which the weights count: 0.8 is the deferred re-weighting (DRW) of Cao et al. 2019 "
        "(160 of 200 epochs); 0 from the start. No effect with weights=none",
        low=0.0,
        high=1.0,
    ),
}
"""As :data:`fer_bench.methods._shared.compose.COMPOSE`, with deferred re-weighting (DRW) by default."""
