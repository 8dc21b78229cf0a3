"""What a step of every built-in method costs beside one of plain cross-entropy; writes methods/_costs.json.

Each method is measured in turn with plain cross-entropy (:func:`fer_bench.conformance.cost.cost`), on the small network
and the small images of the conformance kit, on one thread. Bytes are exact. Times are ratios of CPU seconds: they say
little of a GPU, and a small network makes the work outside of it look large.

    python benchmarks/costs.py                 every method
    python benchmarks/costs.py NAME...         these methods; the other entries stay
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from fer_bench.conformance.cost import ROUNDS, cost
from fer_bench.conformance.promise import DoesNotApply
from fer_bench.contract.costs import FILE
from fer_bench.contract.plugins import plugins

MEASURED = "measured on the conformance kit's small ResNet, on a CPU, by benchmarks/costs.py"

DIGITS = {"time": 1}  # two measurements of one method differ by a few hundredths


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    available = plugins()
    built_in = {name: p for name, p in sorted(available.methods.items()) if p.origin == "built in"}
    file = next(iter(built_in.values())).tree.root / FILE
    before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["costs"] if file.exists() else {}
    costs = {name: before[name] for name in before if name in built_in}
    for name in given.names or built_in:
        costs.pop(name, None)
        try:
            made = cost(available.method(name), available, rounds=given.rounds).to_dict()
        except DoesNotApply as reason:
            print(f"{name}: nothing to measure, {reason}")
            continue
        costs[name] = {key: round(value, DIGITS.get(key, 2)) for key, value in made.items()}
        print(f"{name}: {costs[name]}", flush=True)
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(costs[name])}" for name in sorted(costs))
    file.write_text(f'{{\n  "measured": {json.dumps(MEASURED)},\n  "costs": {{\n{lines}\n  }}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
