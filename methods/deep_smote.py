"""DeepSMOTE: SMOTE between the codes of an autoencoder, decoded to new images of the rarer classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fer_bench import (
    Augment,
    Batch,
    Classifier,
    Float,
    LossOut,
    Method,
    MethodCard,
    Param,
    Resampled,
    Stage,
    StreamSpec,
    TrainView,
    Trunk,
)

from ._shared.autoencoder import PIXELS, Autoencoder, eight_bit, resized
from ._shared.resampling import NEIGHBOURS, resampled

card = MethodCard(
    name="deep_smote",
    title="DeepSMOTE",
    paper="Dablain et al., DeepSMOTE: Fusing Deep Learning and SMOTE for Imbalanced Data, IEEE TNNLS 2022",
    year=2022,
    url="https://arxiv.org/abs/2105.02340",
    family="generative",
    changes="an autoencoder is trained first. SMOTE between the codes of a class's images gives new codes, and the "
    "decoder makes images of them, until every class is as large as the largest; then the usual training on all",
    deviations=(
        "the second term of the autoencoder's loss is that of the released code (dd1github/DeepSMOTE 13b0063): codes "
        "of a batch of one class and its images are permuted alike, so it is the reconstruction of such a batch. There "
        "the codes are detached, so that the term never reaches the encoder; detach=true does the same",
        "the autoencoder is trained with the recipe's optimiser and schedule for a share of its epochs, not with Adam "
        "at 2e-4 for 200 epochs, and its last state is taken, not the one with the lowest training loss",
        "its layers are half as wide as the code's and suited to any side: three halvings and doublings, smallest map "
        "an 8th of the side; the code has four halvings, and a decoder for 28 pixels",
        "an epoch of the classifier has C n_max images, as in the paper: on FER2013 1.76 times the steps of the other "
        "methods, after the autoencoder's",
        "new images are rounded to 8 bit; votes and people of all images are lost",
        "the number of neighbours is at most the smallest class's number of images less one; a class with one image is "
        "doubled",
    ),
    needs=("memory",),
    params={
        "autoencoder.epochs": Param(
            0.5, "length of the autoencoder's training as a share of the recipe's epochs, on top of them", low=0.01,
            high=10.0,
        ),
        "autoencoder.lr": Param(
            1.0, "factor on the recipe's learning rate for the autoencoder", low=1e-4, high=10.0,
            space=Float(0.05, 2.0, log=True),
        ),
        "width": Param(32, "channels of its first layer; 64 in the code, at four times the cost", low=4, high=128),
        "codes": Param(300, "length of a code; 300 in the code for MNIST, 600 for colour images", low=2, high=1024),
        "detach": Param(False, "whether codes of the second term are detached, as in the code"),
        **NEIGHBOURS,
    },
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OneClassBatches:
    """Positions such that each batch of `size` holds images of one class, drawn uniformly."""

    size: int

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64, as many batches as the fold has."""
        present = np.flatnonzero(view.counts)
        parts = []
        for c in rng.choice(present, size=max(1, len(view) // self.size)):
            members = np.flatnonzero(view.labels == c)
            parts.append(rng.choice(members, size=self.size, replace=len(members) < self.size))
        return np.concatenate(parts).astype(np.int64)


class DeepSmote(Method):
    """Autoencoder, new images, classifier."""

    card = card

    def stages(self) -> list[Stage]:
        """The classifier's stage bears the name of the usual training."""
        share, factor = self.params["autoencoder.epochs"], self.params["autoencoder.lr"]
        return [
            Stage(name="autoencoder", epochs=share, freeze=("trunk", "head"), lr_scale=factor),
            Stage(name="generate", kind="generate"),
            Stage(freeze=("coder",)),
        ]

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier, with an autoencoder beside it."""
        model = Classifier(backbone(), self.ctx.num_classes)
        model.coder = Autoencoder(self.ctx.image_shape, self.params["width"], self.params["codes"])
        return model

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The autoencoder sees images as they are, and batches of one class beside them."""
        if stage.name != "autoencoder":
            return {"main": StreamSpec()}
        alike = OneClassBatches(size=self.ctx.batch_size)
        return {"main": StreamSpec(augment=Augment()), "alike": StreamSpec(sampler=alike, augment=Augment())}

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Reconstruction of a batch, and of one of a single class from permuted codes; then cross-entropy."""
        if self.moment[0] != "autoencoder":
            return Method.training_step(self, model, batch)
        coder: Any = model.coder
        whole = F.mse_loss(coder.decode(coder.encode(batch.x)).float(), batch.x)
        alike = batch.aux["alike"].x
        codes = coder.encode(alike)
        codes = codes.detach() if self.params["detach"] else codes
        permuted = F.mse_loss(coder.decode(codes.roll(-1, 0)).float(), alike.roll(-1, 0))
        return LossOut(total=whole + permuted, parts={"whole": whole, "permuted": permuted})

    @torch.no_grad()
    def generate(self, stage: Stage, model: nn.Module, view: TrainView) -> Resampled:
        """All images and, of each smaller class, decoded ones up to the size of the largest."""
        coder: Any = model.coder
        coder.eval()
        inner, outer = coder.shape[1:], view.images.shape[2:]
        parts = [resized(part.float() / 127.5 - 1, inner) * PIXELS for part in view.images.split(512)]
        codes = torch.cat([coder.encode(part).cpu() for part in parts]).numpy()
        seed, n = int(self.ctx.numpy_rng("smote").integers(2**31 - 1)), len(view)
        rows, labels, _ = resampled("smote", codes, view.labels, neighbours=self.params["neighbours"], seed=seed)
        new = torch.from_numpy(rows[n:].astype(np.float32)).to(view.images.device)
        images = [eight_bit(resized(coder.decode(part) / PIXELS, outer)) for part in new.split(512)]
        return Resampled(images=torch.cat([view.images, *images]), labels=np.concatenate([view.labels, labels[n:]]))
