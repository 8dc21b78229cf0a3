"""What `shared`, the parameter of the built-in faces, holds fixed: ``python benchmarks/shared_units.py``.

First, how well expressions can be told apart if their action units are known: recall of a logistic regression on true
intensities, all classes equally frequent. Then, for each unit of disgust and its stand-in, how much it changes a
picture, and how much of the variance of its intensity a small network reads from 32-pixel pictures (R squared).
``--picture FILE`` draws the first faces of disgust in train at 0, 0.5 and 1, a row each.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from fer_bench.datasets._synthetic.action_units import (
    EXCLUSIVE,
    EXPRESSIONS,
    MINORITY,
    SHARED,
    UNITS,
    draw_units,
    prototypes,
    shared_mass,
)
from fer_bench.datasets._synthetic.faces import CAPTURE, IDENTITY, draw_faces, draw_values
from fer_bench.datasets.synthetic import Synthetic

RARE = list(EXPRESSIONS).index(MINORITY)


def intensities(shared: float, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 2 units] of equally frequent expressions, intensity and presence, and labels [n]."""
    labels = np.repeat(np.arange(len(EXPRESSIONS)), per_class)
    units = draw_units(labels, np.random.default_rng(seed), shared)
    return np.concatenate([units / 100, units > 0], 1), labels


def separability(shared: float, per_class: int) -> tuple[float, float, float]:
    """Recall and precision of the minority, and mean recall of the others, on fresh faces."""
    model = LogisticRegression(C=10, max_iter=300).fit(*intensities(shared, per_class, 0))
    features, labels = intensities(shared, per_class, 1)
    predicted = model.predict(features)
    recall = [(predicted[labels == k] == k).mean() for k in range(len(EXPRESSIONS))]
    precision = (labels[predicted == RARE] == RARE).mean()
    return recall[RARE], precision, float(np.mean(np.delete(recall, RARE)))


def change(unit: int, shown: int, n: int) -> float:
    """Mean root of the summed squared change of pixels (0 to 1) that `shown` makes at the intensities of `unit`."""
    rng = np.random.default_rng(0)
    clean = {"noise": np.full(n, -1.0), "cover": np.full(n, -1.0)}
    who, how = draw_values(IDENTITY, n, rng), draw_values(CAPTURE, n, rng) | clean
    units = draw_units(np.full(n, RARE), rng)
    without, amount = units.copy(), units[:, UNITS.index(unit)]
    without[:, UNITS.index(unit)] = 0
    with_unit = without.copy()
    with_unit[:, UNITS.index(shown)] = amount
    one, other = (draw_faces(u, who, how, rng)[amount > 0] / 255 for u in (without, with_unit))
    return float(np.sqrt(((one - other) ** 2).sum((1, 2, 3))).mean())


def random_faces(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised pictures [n, 1, 32, 32] that show each unit with probability 0.2, and intensities [n, units]."""
    rng = np.random.default_rng(0)
    who, how = draw_values(IDENTITY, n, rng), draw_values(CAPTURE, n, rng)
    amount = rng.uniform(0.3, 1, (n, 1)) * rng.uniform(0.7, 1.3, (n, len(UNITS)))
    units = np.rint(100 * (rng.random((n, len(UNITS))) < 0.2) * np.clip(amount, 0, 1)).astype(np.int64)
    images = torch.from_numpy(draw_faces(units, who, how, rng, 32)).float()
    spread, mean = torch.std_mean(images, (2, 3), keepdim=True)
    return (images - mean) / (spread + 0.1), torch.from_numpy(units / 100).float()


def block(inside: int, outside: int, stride: int) -> nn.Sequential:
    """Two convolutions of width `outside`."""
    first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    return nn.Sequential(*first, nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


def explained(n: int, epochs: int, batch: int = 64) -> dict[int, float]:
    """Share of the variance of each unit's intensity that a small network explains on a sixth of `n` faces."""
    torch.manual_seed(0)
    images, units = random_faces(n)
    layers = block(1, 16, 1), block(16, 32, 2), block(32, 64, 2)
    net, kept = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4096, len(UNITS))), n - n // 6
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=epochs * (kept // batch))
    for _ in range(epochs):
        for rows in torch.randperm(kept)[: kept // batch * batch].view(-1, batch):
            shift = torch.randint(-1, 2, (2,)).tolist()
            loss = nn.functional.mse_loss(net(images[rows].roll(shift, (2, 3))), units[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    net.eval()
    with torch.no_grad():
        wrong = net(images[kept:]) - units[kept:]
    return dict(zip(UNITS, (1 - wrong.square().mean(0) / units[kept:].var(0)).tolist(), strict=True))


def sheet(path: Path, columns: int = 10, size: int = 72) -> None:
    """The same faces of the minority, in the same order, at three values of `shared`."""
    rows = []
    for shared in (0.0, 0.5, 1.0):
        faces = Synthetic({"shared": shared, "image_size": size})
        chunks = list(islice(faces.read(None).chunks(), 2))
        found = np.concatenate([chunk.images[chunk.labels == RARE, 0] for chunk in chunks])
        rows.append(np.concatenate(list(found[:columns]), 1))
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, default=10_000)
    parser.add_argument("--faces", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=6, help="of the small network, on 9,000 faces; two minutes")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        sheet(options.picture)
    print(f"shared  mass   recall of {MINORITY}  its precision  mean recall of the others, %")
    for shared in (0.0, 0.15, 0.3, 0.5, 0.75, 1.0):
        mass = shared_mass(MINORITY, prototypes(shared))
        recall, precision, others = (100 * x for x in separability(shared, options.per_class))
        print(f"{shared:6.2f}  {mass:.3f}  {recall:17.1f}  {precision:13.1f}  {others:25.1f}")
    found = explained(9000, options.epochs)
    print("\nunit  stand-in   change of pixels   R squared")
    for unit, other in (EXCLUSIVE | SHARED).items():
        own, theirs = (change(unit, shown, options.faces) for shown in (unit, other))
        print(f"{unit:4}  {other:8}   {own:6.2f}  {theirs:6.2f}   {found[unit]:6.2f}  {found[other]:6.2f}")


if __name__ == "__main__":
    main()
