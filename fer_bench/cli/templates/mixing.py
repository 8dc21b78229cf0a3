"""A change of each batch: images and labels are mixed."""

from __future__ import annotations

import numpy as np
import torch

from fer_bench import Batch, Float, Method, MethodCard, Param, to_device

card = MethodCard(
    name="new_method",
    title="New method",
    paper="Zhang et al., Mixup: Beyond empirical risk minimization, ICLR 2018",
    year=2018,
    url="https://arxiv.org/abs/1710.09412",
    family="mixing",
    changes="each image becomes λ x + (1 - λ) x' with another one of its batch, and so does its label; λ ~ Beta(α, α)",
    params={
        "alpha": Param(
            0.2,
            "α of the Beta distribution; 0.2 is the paper's for ImageNet",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        )
    },
)


class NewMethod(Method):
    """One λ for a whole batch, as in the authors' code."""

    card = card

    def on_batch(self, batch: Batch) -> Batch:
        """The mixed batch. Random draws come from ``batch.generator`` alone, so that a resumed run repeats them."""
        seed = int(torch.randint(2**31, (), generator=batch.generator))
        share = float(np.random.default_rng(seed).beta(self.params["alpha"], self.params["alpha"]))
        order = to_device(torch.randperm(len(batch.y), generator=batch.generator), batch.y.device)
        target = batch.soft_target(self.ctx.num_classes)
        images = [share * view + (1 - share) * view[order] for view in batch.views]
        return batch.with_(views=images, soft=share * target + (1 - share) * target[order])
