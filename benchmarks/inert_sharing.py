"""What additive sharing can and can't do, in numbers: the two derivations of docs/rasn.md on networks of this machine.

First, at inference: how far the shift that sharing gives the logits is from one constant vector, for each form.
Second, in training: the gradient that comes back through the affinity is α/B times the gradient of the head's bias,
projected by the head's weights, and becomes small beside the images' own as the number of images grows.

    python benchmarks/inert_sharing.py
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fer_bench.contract.backbones import build_trunk
from fer_bench.contract.batch import Batch, Context
from fer_bench.methods.rasn import RASN

BARE = {"attn.type": "none"}
RECALLING = BARE | {"share.source": "class_prototypes", "share.fusion": "attend"}
FORMS: dict[str, dict[str, Any]] = {
    "the default: attention and add_alpha": {},
    "add_alpha": BARE,
    "add_alpha on pooled features": BARE | {"share.level": "pooled"},
    "concat": BARE | {"share.fusion": "concat"},
    "de-albino head": BARE | {"head": "arm_dealbino"},
    "ARM": BARE | {"share.level": "arm", "head": "arm_dealbino"},
    "gate": BARE | {"share.fusion": "gate"},
    "learned gate on the mean": BARE | {"share.fusion": "attend"},
    "mean before the last stage": BARE | {"share.level": "layer3"},
    "class prototypes": RECALLING,
    "class prototypes before the last stage": RECALLING | {"share.level": "layer3"},
    "dictionary": BARE | {"share.source": "dictionary", "share.fusion": "attend"},
}
CLASSES, SIDE = 7, 48


def method_of(params: dict[str, Any]) -> RASN:
    """RASN with these switches, for made-up data of seven classes."""
    method = RASN(RASN.card.resolve(params))
    method.ctx = Context(
        classes=tuple("abcdefg"), counts=np.full(CLASSES, 100), image_shape=(1, SIDE, SIDE), seed=0, epochs=1,
        batch_size=64, device=torch.device("cpu"), recipe={},
    )  # fmt: skip
    return method


def images(n: int, seed: int) -> Batch:
    """Noise around one picture for each class, with labels."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    y = torch.randint(0, CLASSES, (n,), generator=generator)
    x = 0.3 * pictures[y] + torch.randn(n, 1, SIDE, SIDE, generator=generator)
    return Batch(views=[x], y=y, index=torch.arange(n), generator=generator)


def trained(params: dict[str, Any], steps: int) -> tuple[RASN, Any]:
    """Method and network after `steps` steps."""
    torch.manual_seed(0)
    method = method_of(params)
    model = method.build_model(lambda: build_trunk("resnet10_tiny", in_chans=1, image_size=SIDE)).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        optimiser.zero_grad()
        method.training_step(model, images(64, step + 1)).total.backward()
        optimiser.step()
    return method, model


@torch.no_grad()
def at_inference(steps: int) -> None:
    """Print, for each form, the shift of the logits and how much of it depends on the image."""
    print(f"\nThe shift that sharing gives the logits of 64 images, after {steps} steps: its size (root mean square)")
    print("and what of it differs between images (standard deviation); all but the first form are without attention")
    print(f"\n{'':40}{'size':>12}{'differs':>12}")
    x = images(64, 999).x
    for name, params in FORMS.items():
        with torch.enable_grad():
            method, model = trained(params, steps)
        model.eval()
        shift = method.predict(model, x).logits.double()
        if params.get("share.fusion") == "gate":  # with α = 0 it halves the features: that is not sharing
            model.sharing.share_in_evaluation = False
        model.sharing.alpha.zero_()
        shift -= method.predict(model, x).logits.double()
        size, differs = shift.square().mean().sqrt(), shift.std(0).square().mean().sqrt()
        print(f"{name:40}{size:12.1e}{differs:12.1e}")


def in_training(steps: int, sizes: tuple[int, ...] = (128, 1024, 8192)) -> None:
    """Print how the gradient that sharing adds compares with that of the head's bias, and with the images' own."""
    _, model = trained(BARE | {"share.level": "pooled"}, steps)
    model.train()
    print(f"\nThe gradient that reaches an image's features through the affinity, after {steps} steps\n")
    print(f"{'images':>8}{'shared / own':>16}{'α/B Wᵀ ∂L/∂b, deviation':>28}")
    for size in sizes:
        batch = images(size, 12345)
        with torch.no_grad():
            features = model.shareable(batch.x)[1]
        f = features.clone().requires_grad_()
        z = model.sharing(f, batch.y)  # the network's own code: it would show what is changed there
        z.retain_grad()
        logits = model.classify(z.flatten(1))
        model.zero_grad()
        F.cross_entropy(logits, batch.y).backward()
        own = z.grad  # ∂L/∂z_i: what an image would receive without sharing
        shared = f.grad - own
        expected = model.sharing.alpha.detach() / size * (model.head.bias.grad @ model.head.weight.detach())
        off = (shared[:, :, 0, 0] - expected).abs().max() / shared.abs().max()
        ratio = shared.flatten(1).norm(dim=1).mean() / own.flatten(1).norm(dim=1).mean()
        print(f"{size:8d}{float(ratio):16.3f}{float(off):28.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="steps of training before either is measured")
    given = parser.parse_args()
    torch.set_num_threads(1)
    at_inference(given.steps)
    in_training(given.steps)
