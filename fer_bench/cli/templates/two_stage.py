"""Two stages: a representation first, then a new classifier on balanced batches."""

from __future__ import annotations

import numpy as np

from fer_bench import Float, Method, MethodCard, Param, Stage, StreamSpec, TrainView, shuffle

card = MethodCard(
    name="new_method",
    title="New method",
    paper="Kang et al., Decoupling representation and classifier for long-tailed recognition, ICLR 2020",
    year=2020,
    url="https://arxiv.org/abs/1910.09217",
    family="two-stage",
    changes="after the usual training, a fresh classifier is trained on class-balanced batches, on a frozen trunk",
    params={
        "share": Param(
            0.1,
            "length of the second stage as a share of the recipe's epochs; 0.1 as in the authors' ImageNet-LT recipe",
            low=0.01,
            high=1.0,
            space=Float(0.05, 0.5),
        )
    },
)


class NewMethod(Method):
    """The second stage sees another stream. Names in `freeze` and `reinit` are prefixes of parameter names."""

    card = card

    def stages(self) -> list[Stage]:
        """`epochs` is a number (int), a share of the recipe's epochs (float), or None for all of them."""
        second = Stage(name="classifier", epochs=self.params["share"], freeze=("trunk",), reinit=("head",))
        return [Stage(name="representation"), second]

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Natural frequencies first, balanced ones for the classifier."""
        return {"main": StreamSpec(sampler=balanced if stage.name == "classifier" else shuffle)}


def balanced(view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
    """As many draws as there are images [N]: first a class, then one of its images."""
    present = np.flatnonzero(view.counts)
    classes = rng.choice(present, size=len(view))
    order = np.argsort(view.labels, kind="stable")
    first = np.cumsum(view.counts) - view.counts
    return order[first[classes] + (rng.random(len(view)) * view.counts[classes]).astype(int)]
