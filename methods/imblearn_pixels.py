"""Any sampler of imbalanced-learn on the pixels, before the training."""

from __future__ import annotations

import numpy as np
import torch

from fer_bench import Method, MethodCard, Param, Resampled, Stage, TrainView

from ._shared.resampling import NEIGHBOURS, RESAMPLERS, resampled

card = MethodCard(
    name="imblearn_pixels",
    title="Resampled images (imbalanced-learn on pixels)",
    paper="Chawla et al., SMOTE: Synthetic Minority Over-sampling Technique, JAIR 16, 2002; Lemaître et al., "
    "Imbalanced-learn, JMLR 18(17), 2017",
    year=2002,
    url="https://doi.org/10.1613/jair.953",
    family="resampling",
    changes="the training images are resampled once as vectors of pixels, by default with SMOTE, which blends each "
    "image of a smaller class with a near one of its class; then the usual training",
    deviations=(
        "synthetic images are rounded to 8 bit",
        "votes and people of the images are lost if the sampler synthesises any; a sampler that only chooses images "
        "keeps them",
        "the number of neighbours is at most the smallest class's number of images less one; a class with one image is "
        "doubled for samplers that look for neighbours within classes",
        "where kmeans_smote finds no dense cluster of a class, or adasyn nothing to start from, smote takes its place, "
        "with a warning; a class that a cleaning sampler would empty stays as it is",
        "an epoch goes through the resampled images, so it has more or fewer steps than one of plain training",
    ),
    also_known={"pixel_smote": ""},
    needs=("memory",),
    params={"sampler": Param("smote", "sampler of imbalanced-learn", choices=RESAMPLERS), **NEIGHBOURS},
)


class ImblearnPixels(Method):
    """Other images, then plain cross-entropy."""

    card = card

    def stages(self) -> list[Stage]:
        """Resample once, then train."""
        return [Stage(name="resample", kind="resample"), Stage()]

    def resample(self, stage: Stage, view: TrainView) -> Resampled:
        """The images chosen, or chosen and synthesised."""
        rows = view.images.flatten(1).cpu().numpy().astype(np.float32)
        new, labels, taken = resampled(
            self.params["sampler"], rows, view.labels, neighbours=self.params["neighbours"],
            seed=int(self.ctx.numpy_rng("resample").integers(2**31 - 1)),
        )  # fmt: skip
        if taken is not None:
            return Resampled(index=taken)
        images = torch.from_numpy(np.rint(new).clip(0, 255).astype(np.uint8)).reshape(-1, *view.images.shape[1:])
        return Resampled(images=images, labels=labels)
