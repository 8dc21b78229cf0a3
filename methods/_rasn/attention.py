"""Attention gates. A gate maps features [B, C, H, W] to factors in (0, 1) that broadcast over them.

CBAM: Woo et al. 2018 (arXiv 1807.06521), eqs. 1-3. SE: Hu et al. 2018 (arXiv 1709.01507), eqs. 2-4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fer_bench import SpecError, Trunk

STAGES = ("layer1", "layer2", "layer3", "layer4")


def _squeeze_mlp(channels: int, reduction: int) -> nn.Sequential:
    """Two-layer perceptron C -> C/reduction -> C as 1x1 convolutions, so that it reads [B, C, 1, 1]."""
    hidden = max(1, channels // reduction)
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))


class SEGate(nn.Module):
    """Channel gate [B, C, 1, 1] = σ(MLP(average over the map))."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.mlp = _squeeze_mlp(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Factors for `x` [B, C, H, W]."""
        return torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)))


class ChannelGate(SEGate):
    """CBAM's channel gate [B, C, 1, 1] = σ(MLP(average) + MLP(maximum)), one MLP for both."""

    def forward(self, x: Tensor) -> Tensor:
        """Factors for `x` [B, C, H, W]."""
        return torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True)))


class SpatialGate(nn.Module):
    """CBAM's spatial gate [B, 1, H, W] = σ(conv7x7[mean over channels; maximum over channels])."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Factors for `x` [B, C, H, W]."""
        return torch.sigmoid(self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)))


class CBAMGate(nn.Module):
    """M(F) = M_c(F) ⊙ M_s(F ⊙ M_c(F)), [B, C, H, W]."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.channel, self.spatial = ChannelGate(channels, reduction), SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """Factors for `x` [B, C, H, W]."""
        channel = self.channel(x)
        return channel * self.spatial(x * channel)


def make_gate(kind: str, channels: int, reduction: int) -> nn.Module | None:
    """The gate named `kind` ("cbam", "se", "spatial"), or None for "none"."""
    match kind:
        case "cbam":
            return CBAMGate(channels, reduction)
        case "se":
            return SEGate(channels, reduction)
        case "spatial":
            return SpatialGate()
    return None


class Attend(nn.Module):
    """Residual attention F' = F + F ⊙ M(F)."""

    def __init__(self, gate: nn.Module):
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Attended features, the shape of `x` [B, C, H, W]."""
        return x + x * self.gate(x)


def attend_every_block(trunk: Trunk, kind: str, reduction: int) -> None:
    """Put residual attention behind every residual block of a trunk with ``layer1`` to ``layer4``, in place.

    Blocks are wrapped, not hooked: a hook in a deep copy of the model (weight averaging) would still call the original.

    Raises
    ------
    SpecError
        The trunk is not a ResNet.
    """
    if not all(isinstance(getattr(trunk.body, stage, None), nn.Sequential) for stage in STAGES):
        raise SpecError(
            f"attn.place=every_block needs a trunk with residual stages, not {type(trunk.body).__name__}",
            where="method rasn",
            hint="a ResNet backbone, or attn.place=after_layer4",
        )
    for stage in (getattr(trunk.body, name) for name in STAGES):
        for i, block in enumerate(stage):
            gate = make_gate(kind, _block_width(block), reduction)
            if gate is not None:
                stage[i] = nn.Sequential(block, Attend(gate))


def _block_width(block: nn.Module) -> int:
    """Channels that a residual block puts out: those of its last convolution outside the shortcut."""
    convs = [m for name, m in block.named_modules() if isinstance(m, nn.Conv2d) and name.startswith("conv")]
    return convs[-1].out_channels
