"""The parsing network of PSFR-GAN: a poor face in, what each pixel belongs to and a better face out."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from itertools import pairwise
from math import log2
from pathlib import Path

from torch import Tensor, nn

from facesr_lib import images
from facesr_lib.networks import checkpoints

UNDECIDED = 255
"""Stands in label maps where nobody knows."""

CLASSES = (
    *("background", "skin", "nose", "eyeglass", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"),
    *("mouth", "u_lip", "l_lip", "hair", "hat", "earring", "necklace", "neck", "cloth"),
)
"""What a pixel can belong to, in CelebAMask-HQ's order; left and right are the person's own."""


class ConvLayer(nn.Module):
    """[nearest ×2] → 3×3 convolution, borders reflected → [batch norm] → [leaky ReLU], under the official names."""

    def __init__(self, n_in: int, n_out: int, scale: str = "same", norm: bool = True, activation: bool = True):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2) if scale == "up" else nn.Identity()
        stride = 2 if scale == "down" else 1
        self.conv2d = nn.Conv2d(n_in, n_out, 3, stride, padding=1, padding_mode="reflect", bias=not norm)
        self.norm = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(n_out)) if norm else OrderedDict())
        self.activation = nn.LeakyReLU(0.2) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) → (N, n_out, H', W')."""
        return self.activation(self.norm(self.conv2d(self.up(x))))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, of which the first enlarges or the second makes small; nothing follows."""

    def __init__(self, n_in: int, n_out: int, scale: str = "same"):
        super().__init__()
        plain = scale == "same" and n_in == n_out
        self.shortcut_func = nn.Identity() if plain else ConvLayer(n_in, n_out, scale, norm=False, activation=False)
        self.conv1 = ConvLayer(n_in, n_out, "up" if scale == "up" else "same")
        self.conv2 = ConvLayer(n_out, n_out, "down" if scale == "down" else "same", activation=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, H, W) → (N, n_out, H', W')."""
        return self.shortcut_func(x) + self.conv2(self.conv1(x))


class ParsingNetwork(nn.Module):
    """FPN: encoder, residual blocks at the bottleneck, decoder, and two heads (Chen et al. 2021, Fig. 9).

    The defaults are the paper's: from 512² in four halvings to 32², 21,303,254 parameters. Parameter names are the
    official code's.

    Parameters
    ----------
    size, bottleneck : int
        Side of the pictures it is meant for, and of what the residual blocks see: their quotient, a power of two, tells
        how often sides are halved. The network itself is fully convolutional.
    width, max_width : int
        Channels at full size; they double with each halving, up to the second number.
    depth : int
        Residual blocks at the bottleneck.
    classes : int

    Notes
    -----
    Source: Chen et al. 2021, appendix A.1, and the official code, which differs from the text: the first convolution
    and the heads have neither norm nor activation, and the second convolution of a block has no activation. Derived in
    chapter 11.
    """

    def __init__(
        self,
        *,
        size: int = 512,
        bottleneck: int = 32,
        width: int = 64,
        max_width: int = 256,
        depth: int = 10,
        classes: int = len(CLASSES),
    ):
        super().__init__()
        self.sizes = {"size": size, "bottleneck": bottleneck, "width": width, "max_width": max_width}
        self.sizes |= {"depth": depth, "classes": classes}
        if min(self.sizes.values()) < 1 or max_width < width:
            raise ValueError(f"sizes are whole numbers from 1 on, and max_width at least width; got {self.sizes}.")
        self.factor = size // bottleneck  # by how much the bottleneck is smaller
        if size % bottleneck or self.factor & (self.factor - 1):
            raise ValueError(
                f"size must be bottleneck times a power of two; got {size} and {bottleneck}: for pictures of 128², "
                "choose 8, 16 or 32."
            )
        halvings = int(log2(self.factor))
        channels = [min(width * 2**i, max_width) for i in range(halvings + 1)]  # 64, 128, 256, 256, 256
        down, up = list(pairwise(channels)), channels[::-1]
        self.encoder = nn.Sequential(
            ConvLayer(3, width, norm=False, activation=False), *(ResidualBlock(*pair, "down") for pair in down)
        )
        self.body = nn.Sequential(*(ResidualBlock(up[0], up[0]) for _ in range(depth)))
        self.decoder = nn.Sequential(*(ResidualBlock(*pair, "up") for pair in pairwise(up)))
        self.out_img_conv = ConvLayer(width, 3, norm=False, activation=False)
        self.out_mask_conv = ConvLayer(width, classes, norm=False, activation=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Parse and restore faces (N, 3, H, W) in [0, 1]; poor ones are enlarged to the network's size first.

        → logits (N, classes, H, W), and faces (N, 3, H, W), not clamped, so that a loss sees what lies outside.
        """
        height, width = images.check_batch(image).shape[2:]
        if height % self.factor or width % self.factor or min(height, width) < 2 * self.factor:
            raise ValueError(
                f"this network takes pictures whose sides are multiples of {self.factor}, from {2 * self.factor} on; "
                f"got {width}×{height}: resize them, best to {self.sizes['size']}²."
            )
        x = self.encoder(2 * image - 1)  # the official network thinks in [−1, 1]
        x = self.decoder(x + self.body(x))
        return self.out_mask_conv(x), (self.out_img_conv(x) + 1) / 2


def save(network: ParsingNetwork, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a network with its sizes, under the official names: weights in half precision, vectors in single."""
    checkpoints.save(network, path, dict(metadata) | {"sizes": json.dumps(network.sizes)})


def load(path: str | Path) -> ParsingNetwork:
    """Read what `save` wrote, in evaluation mode; errors as `checkpoints.load`'s."""
    what = "parsing network whose metadata give its sizes"
    return checkpoints.load(path, what, lambda _, about: ParsingNetwork(**json.loads(about["sizes"])))
