"""ARM's readout: rearranged channels and one large de-albino kernel (Shi et al. 2021, arXiv 2103.10189)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import SpecError

SMALLEST_SIDE = 3  # below it the kernel has one position, and the readout one number


def arrangement(channels: int) -> int:
    """PixelShuffle factor: the largest power of two r <= 16 with r² dividing `channels` (512 -> 16, as in ARM).

    Raises
    ------
    SpecError
        Not even r = 2 divides.
    """
    for factor in (16, 8, 4, 2):
        if channels % factor**2 == 0:
            return factor
    raise SpecError(
        f"the de-albino head can't rearrange {channels} channels: PixelShuffle needs a multiple of 4",
        hint="a ResNet backbone, or, in rasn, head=gap",
    )


class DeAlbino(nn.Module):
    """Map [B, D, h, w] -> de-albino maps [B, D/r², 2h - 3, 2w - 3]; ARM's 512x7x7 -> 2x112x112 -> 2x11x11.

    ARM's kernel of 32 and stride of 8 at r = 16 are two cells and half a cell of the backbone's map. Other maps keep
    these proportions, kernel 2r and stride r/2 [I]; ARM's own sizes for small inputs are not published.

    Parameters
    ----------
    shape : (D, h, w)
    enlarge : bool
        Stretch a map with a side below 3 to 3 (bilinear), instead of refusing it with a SpecError.
    """

    def __init__(self, shape: tuple[int, int, int], *, enlarge: bool = False):
        super().__init__()
        channels, *sides = shape
        height, width = (max(side, SMALLEST_SIDE) for side in sides) if enlarge else sides
        self.stretched = (height, width) if [height, width] != sides else None
        if min(height, width) < SMALLEST_SIDE:
            raise SpecError(
                f"the de-albino head needs a last map of at least 3x3, and this backbone's is {height}x{width}",
                hint="resnet18_small, larger images, or head=gap",
            )
        factor = arrangement(channels)
        self.arrange = nn.PixelShuffle(factor)
        self.conv = nn.Conv2d(1, 1, 2 * factor, stride=factor // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels // factor**2)
        self.out_shape = (channels // factor**2, 2 * height - 3, 2 * width - 3)

    def forward(self, x: Tensor) -> Tensor:
        """De-albino maps of `x`; one single-channel kernel serves all maps."""
        if self.stretched:
            x = F.interpolate(x, size=self.stretched, mode="bilinear", align_corners=False)
        arranged = self.arrange(x)
        each = arranged.reshape(-1, 1, *arranged.shape[2:])
        return self.norm(self.conv(each).reshape(len(x), *self.out_shape))
