"""Label-occurrence-balanced mixup: both images of a mixture come from class-balanced streams."""

from __future__ import annotations

from fer_bench import Batch, Float, Method, MethodCard, Param, Stage, StreamSpec

from ._shared.compose import WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.mixing import beta, blended, cut_to
from ._shared.samplers import Power

card = MethodCard(
    name="label_occurrence_balanced_mixup",
    title="Label-Occurrence-Balanced Mixup",
    paper="Zhang et al., Label-Occurrence-Balanced Mixup for Long-tailed Recognition, ICASSP 2022",
    year=2022,
    url="https://arxiv.org/abs/2110.04964",
    family="mixing",
    changes="two independent class-balanced streams are mixed, λx + (1-λ)x', and so are their labels; λ ~ Beta(α, α)",
    deviations=(
        "from the paper's abstract; no code of the authors was found to compare with",
        "one λ a batch, and α = 1, which the paper may set otherwise for each data set",
        "the images of a class are drawn with replacement",
    ),
    params={
        **WEIGHTS,
        "alpha": Param(
            1.0,
            "both parameters α of the Beta distribution of the share; 1 is uniform",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        ),
    },
)


class LabelOccurrenceBalancedMixup(ComposableCrossEntropy, Method):
    """Cross-entropy on mixtures of two balanced streams."""

    card = card

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Two streams that draw every class alike."""
        return {"main": StreamSpec(sampler=Power(q=0.0)), "partner": StreamSpec(sampler=Power(q=0.0))}

    def on_batch(self, batch: Batch) -> Batch:
        """The main batch, mixed with the other one."""
        share = beta(self.params["alpha"], self.params["alpha"], batch.generator)
        other = cut_to(batch.aux["partner"], len(batch.y))
        return blended(batch, other, self.ctx.num_classes, share, share).with_(aux={})
