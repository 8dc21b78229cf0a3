"""A training as public FER2013 code bases write it: ImageFolder, DataLoader with worker processes, torchvision, a loop.

One of the contenders of ``peers.py``, which starts it. Nothing of fer-bench takes part.

    python benchmarks/peers_plain.py FOLDER --epochs 3 [--device cuda] [--workers 2]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import timm
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

NORMALISE = [transforms.ToTensor(), transforms.Normalize([0.5], [0.25])]


def loader(folder: Path, options: argparse.Namespace, *, training: bool) -> DataLoader:
    """Batches of the images below a folder, augmented in training."""
    steps = [transforms.RandomCrop(48, padding=4), transforms.RandomHorizontalFlip(), transforms.RandomRotation(10)]
    chosen = [transforms.Grayscale(), *(steps if training else ()), *NORMALISE]
    return DataLoader(
        ImageFolder(folder, transforms.Compose(chosen)), batch_size=options.batch_size, shuffle=training,
        drop_last=training, num_workers=options.workers, pin_memory=options.device == "cuda",
    )  # fmt: skip


def main() -> None:
    """Train, and print the seconds of every epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options = parser.parse_args()
    train, val = (loader(options.folder / part, options, training=part == "train") for part in ("train", "val"))
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    model = timm.create_model(options.backbone, in_chans=1, num_classes=len(train.dataset.classes)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")
    best = -1.0
    for _ in range(options.epochs):
        began = time.perf_counter()
        model.train()
        total = 0.0
        for images, labels in train:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            with autocast:
                loss = F.cross_entropy(model(images).float(), labels, label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            total += loss.item()
        model.eval()
        right = 0
        with torch.no_grad(), autocast:
            for images, labels in val:
                right += (model(images.to(device)).argmax(1) == labels.to(device)).sum().item()
        schedule.step()
        if right / len(val.dataset) > best:
            best = right / len(val.dataset)
            torch.save(model.state_dict(), options.folder / "best.pt")
        print(f"epoch {time.perf_counter() - began:.4f}", flush=True)


if __name__ == "__main__":
    main()
