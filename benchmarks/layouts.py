"""Which memory layout, and whether to compile: training steps of each backbone in four ways, side by side in one run.

A step is forward, backward and AdamW on a batch of grey images that lies ready. The four ways, channels first or last,
as it is or with the trunk compiled (as ``fer-bench run --compile`` does), take turns, so that a machine whose speed
drifts slows all alike. Printed as Markdown: images a second of the default (channels last, not compiled), then the
median ratio of each way to it (least to most), turn by turn, and what compiling takes at the start. On a CPU the ratios
are of CPU seconds, so that other programs hardly count; on a GPU of wall-clock seconds.

    python benchmarks/layouts.py [BACKBONE ...] [--side 48] [--batch 128] [--precision fp32] [--device auto]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from loop import CLASSES, Clock, data  # beside this file
from torch.nn import functional as F

from fer_bench.base.process import cores
from fer_bench.contract.backbones import Classifier, build_trunk
from fer_bench.training.dataplane import prepare
from fer_bench.training.evaluate import autocast
from fer_bench.training.recipe import Recipe

BACKBONES = ("resnet10_tiny", "resnet18", "resnet18_small", "mobilenetv3_small_100", "convnext_atto")
WAYS = {
    "channels last": (torch.channels_last, False),
    "channels first": (torch.contiguous_format, False),
    "channels last, compiled": (torch.channels_last, True),
    "channels first, compiled": (torch.contiguous_format, True),
}
DEFAULT = "channels last"


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES, metavar="BACKBONE")
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way, after one that is not counted")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def turns(
    backbone: str, way: str, options: argparse.Namespace, device: torch.device, clock: Callable[[], float]
) -> Iterator[float]:
    """Seconds of one turn after another; the first includes compiling."""
    layout, compiled = WAYS[way]
    recipe = Recipe(batch_size=options.batch, precision=options.precision)
    model = Classifier(build_trunk(backbone, in_chans=1, image_size=options.side), CLASSES)
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if compiled:
        model.trunk.compile_features()
    images, labels = data(options.batch, device, options.side)
    x, y = prepare(images, 0).contiguous(memory_format=layout), torch.as_tensor(labels, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, fused=device.type == "cuda")
    while True:
        start = clock()
        for _ in range(options.steps):
            with autocast(recipe, device):
                loss = F.cross_entropy(model(x).logits, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        yield clock() - start


def row(backbone: str, options: argparse.Namespace, device: torch.device) -> str:
    """A line of the table."""
    clock = Clock(device)
    torch.manual_seed(0)
    ways = {way: turns(backbone, way, options, device, clock) for way in WAYS}
    first = {}
    for way, turn in ways.items():
        began = time.perf_counter()
        next(turn)
        first[way] = time.perf_counter() - began
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, turn in ways.items():
            taken[way].append(next(turn))
    cells = [backbone, f"{options.steps * options.batch / statistics.median(taken[DEFAULT]):,.0f}"]
    for way in list(WAYS)[1:]:
        faster = [default / this for default, this in zip(taken[DEFAULT], taken[way], strict=True)]
        cells.append(f"{statistics.median(faster):.2f} ({min(faster):.2f} to {max(faster):.2f})")
    compiling = max(first[way] for way, (_, compiled) in WAYS.items() if compiled)
    return f"| {' | '.join([*cells, f'{compiling:.0f}'])} |"


def main() -> None:
    """Measure every backbone and print the table."""
    options = arguments()
    torch.set_num_threads(options.threads or cores())
    name = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    unit = "images/s" if device.type == "cuda" else "images/CPU second"
    print(f"{options.side} pixels, {options.precision}, batches of {options.batch}; {where}; {options.rounds} turns.\n")
    print(f"| backbone | {DEFAULT}, {unit} | {' | '.join(list(WAYS)[1:])} | compiling, s |")
    print(f"| --- | {' | '.join(['---:'] * (len(WAYS) + 1))} |")
    for backbone in options.backbones:
        print(row(backbone, options, device), flush=True)


if __name__ == "__main__":
    main()
