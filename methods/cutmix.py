"""CutMix: a rectangle of another image pasted onto each."""

from __future__ import annotations

from fer_bench import Batch, Float, Method, MethodCard, Param

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.mixing import CUTMIX_P, cutmix

card = MethodCard(
    name="cutmix",
    title="CutMix",
    paper="Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, "
    "ICCV 2019",
    year=2019,
    url="https://arxiv.org/abs/1905.04899",
    family="mixing",
    changes="in a share p of the batches a rectangle of another image of the batch is pasted onto each image; labels "
    "are mixed by the area",
    deviations=(
        "one rectangle a batch, as in the authors' code (clovaai/CutMix-PyTorch)",
        "with weights, a mixed image has the expected weight of its labels",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "p": Param(
            CUTMIX_P,
            "share of the batches that are mixed: 0.5 as on CIFAR in the authors' code. Parts of two faces in "
            "different poses do not make a face, so higher values are doubtful here",
            low=0.0,
            high=1.0,
            space=Float(0.1, 1.0),
        ),
        "alpha": Param(
            1.0,
            "both parameters of the Beta distribution of the share that stays: 1 (uniform), as in the paper",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        ),
    },
)


class CutMix(ComposableCrossEntropy, Method):
    """Cross-entropy on images with a pasted rectangle."""

    card = card

    def on_batch(self, batch: Batch) -> Batch:
        """The batch, pasted or as it is."""
        return cutmix(batch, self.ctx.num_classes, self.params["alpha"], self.params["p"])
