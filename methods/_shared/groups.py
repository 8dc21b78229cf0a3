"""Groups of the optimiser with learning rates of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn


def scaled_groups(
    model: nn.Module, scales: Mapping[str, float], decay: float, spared: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Parameter groups in which parts of a model learn at a multiple of the recipe's rate.

    Weights decay; biases, norms and other vectors do not, as in the harness's own groups.

    Parameters
    ----------
    scales : mapping of str to float
        Prefix of parameter names, such as "head" -> factor on the learning rate; what no prefix fits has factor 1.
    decay : float
        The recipe's weight decay.
    spared : names
        Parameters that do not decay, though they are no vectors.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = next((s for prefix, s in scales.items() if name.startswith(f"{prefix}.")), 1.0)
            groups.setdefault((scale, parameter.ndim > 1 and name not in spared), []).append(parameter)
    return [
        {"params": members, "lr_scale": scale, "weight_decay": decay if decays else 0.0}
        for (scale, decays), members in groups.items()
    ]
