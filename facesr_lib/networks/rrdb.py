"""ESRGAN's networks, a generator of dense blocks and a discriminator of patches, and LSRGAN's companion encoder."""

from __future__ import annotations

import re
from itertools import pairwise
from math import log2
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib import assets, images
from facesr_lib.assets import unpickling
from facesr_lib.networks import checkpoints
from facesr_lib.networks.perceptual import imagenet_input

RESIDUAL = 0.2  # how much of a block's answer is added to what came in


class RRDBNet(nn.Module):
    """ESRGAN's generator: residual-in-residual dense blocks, no normalisation (Wang et al. 2018).

    It has so many ``blocks``, the RRDBs, ``channels`` between them, and ``growth`` more by each convolution of a dense
    block; ``scale`` is a power of two, at least 2.

    Parameter names are those of the first ESRGAN release; the paper's size has 16,697,987 parameters. Derived in
    chapter 9.
    """

    def __init__(self, blocks: int = 23, channels: int = 64, growth: int = 32, scale: int = 4):
        super().__init__()
        if scale not in (2, 4, 8, 16):
            raise ValueError(f"RRDBNet enlarges by doubling: scale is 2, 4, 8 or 16; got {scale}.")
        self.blocks, self.channels, self.growth, self.scale = blocks, channels, growth, scale
        self.conv_first = nn.Conv2d(3, channels, 3, padding=1)
        self.RRDB_trunk = nn.Sequential(*(RRDB(channels, growth) for _ in range(blocks)))
        self.trunk_conv = nn.Conv2d(channels, channels, 3, padding=1)
        for k in range(1, round(log2(scale)) + 1):
            self.add_module(f"upconv{k}", nn.Conv2d(channels, channels, 3, padding=1))
        self.HRconv = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, lowres: Tensor) -> Tensor:
        """(N, 3, h, w) in [0, 1] → (N, 3, scale · h, scale · w), about [0, 1], not clamped."""
        return self.draw(self.features(images.check_batch(lowres)))

    def features(self, lowres: Tensor) -> Tensor:
        """(N, 3, h, w) → (N, C, h, w): nearly all of the work, at the small picture's size; each place looks far."""
        x = self.conv_first(lowres)
        return x + self.trunk_conv(self.RRDB_trunk(x))

    def draw(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, 3, scale · h, scale · w): nearly all of the memory; no place looks 3 pixels far."""
        for k in range(1, round(log2(self.scale)) + 1):
            x = _leaky(getattr(self, f"upconv{k}")(F.interpolate(x, scale_factor=2)))  # nearest: 2h, 4h, …
        return self.conv_last(_leaky(self.HRconv(x)))


class RRDB(nn.Module):
    """Three dense blocks in a row, and a residual around them."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.RDB1, self.RDB2, self.RDB3 = (DenseBlock(channels, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, h, w)."""
        return x + RESIDUAL * self.RDB3(self.RDB2(self.RDB1(x)))


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the answers of all before it; a residual around them."""

    conv5: nn.Conv2d

    def __init__(self, channels: int, growth: int):
        super().__init__()
        for k in range(1, 6):
            convolution = nn.Conv2d(channels + (k - 1) * growth, channels if k == 5 else growth, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight)
            nn.init.zeros_(cast(Tensor, convolution.bias))
            with torch.no_grad():
                convolution.weight *= 0.1  # a block begins as nearly nothing (Wang et al. 2018, section 3.1)
            self.add_module(f"conv{k}", convolution)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, h, w)."""
        seen = x
        for k in range(1, 5):
            seen = torch.cat([seen, _leaky(getattr(self, f"conv{k}")(seen))], 1)  # (N, C + k·growth, h, w)
        return x + RESIDUAL * self.conv5(seen)


class PatchDiscriminator(nn.Module):
    """ESRGAN's discriminator of patches, after VGG: five pairs of convolutions, each halving the side.

    The first pair has so many ``channels``; ``size`` is the patches' side, a multiple of 32. The defaults, the paper's,
    make 14,499,401 parameters; their names are those of ESRGAN's Discriminator_VGG_128.
    """

    def __init__(self, channels: int = 64, size: int = 128):
        super().__init__()
        if size < 32 or size % 32:
            raise ValueError(f"the discriminator halves a patch five times: its side is a multiple of 32; got {size}.")
        self.channels, self.size = channels, size
        widths = (3, channels, 2 * channels, 4 * channels, 8 * channels, 8 * channels)
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            self.add_module(f"conv{i}_0", nn.Conv2d(n_in, n_out, 3, padding=1, bias=i == 0))
            if i > 0:
                self.add_module(f"bn{i}_0", nn.BatchNorm2d(n_out))
            self.add_module(f"conv{i}_1", nn.Conv2d(n_out, n_out, 4, stride=2, padding=1, bias=False))
            self.add_module(f"bn{i}_1", nn.BatchNorm2d(n_out))
        self.linear1 = nn.Linear(8 * channels * (size // 32) ** 2, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Patches (N, 3, size, size) in [0, 1] → logits (N, 1), higher for real ones."""
        if images.check_batch(image).shape[2:] != (self.size, self.size):
            came = f"{image.shape[3]}×{image.shape[2]}"
            raise ValueError(f"this discriminator judges patches of {self.size}×{self.size}; got {came}: crop them.")
        x = image
        for i in range(5):
            for j in (0, 1):
                x = getattr(self, f"conv{i}_{j}")(x)  # (N, C, S / 2^(i + j), …)
                x = _leaky(getattr(self, f"bn{i}_{j}")(x) if i or j else x)
        return self.linear2(_leaky(self.linear1(x.flatten(1))))


class CompanionEncoder(nn.Module):
    """LSRGAN's L, which takes large pictures back to the space of the small ones (Zhong & Zhou 2020, section 3.1).

    VGG16 without batch normalisation up to its third pooling, at an eighth of the side; then one doubling and two
    convolutions, to the small picture's size and its three channels. The paper says "the first few layers" and "a few
    upscaling layers"; their number is ours. ``width`` is the channels of the first layers, 64 in VGG16, which have
    torchvision's names.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.width, w = width, width
        layers: list[nn.Module] = []
        channels = 3
        for stage in ((w, w), (2 * w, 2 * w), (4 * w, 4 * w, 4 * w)):
            for n_out in stage:
                convolution = nn.Conv2d(channels, n_out, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight)
                layers += [convolution, nn.ReLU(inplace=True)]
                channels = n_out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.upconv = nn.Conv2d(4 * w, w, 3, padding=1)
        self.conv_last = nn.Conv2d(w, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides multiples of 8 → (N, 3, H / 4, W / 4), not clamped."""
        if images.check_batch(image).shape[2] % 8 or image.shape[3] % 8:
            came = f"{image.shape[3]}×{image.shape[2]}"
            raise ValueError(f"the encoder takes pictures whose sides are multiples of 8; got {came}: crop them.")
        x = self.features(imagenet_input(image))  # (N, 4w, H / 8, W / 8)
        return self.conv_last(_leaky(self.upconv(F.interpolate(x, scale_factor=2))))

    def start_from_vgg16(self) -> None:
        """Take over VGG16's first layers; ``assets.AssetMissing`` if its weights are not on this machine."""
        if self.width != 64:
            raise ValueError(f"VGG16's first layers are 64 wide; this encoder is {self.width}: choose width=64.")
        theirs = unpickling.state_dict(unpickling.load(assets.checked("vgg16")))
        self.features.load_state_dict({k: theirs[f"features.{k}"] for k in self.features.state_dict()})


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


# Files


def load(path: str | Path) -> RRDBNet:
    """Read a generator: ours, ESRGAN's or Real-ESRGAN's release, under either one's names; its size follows.

    Names may bear a prefix (``params_ema``); of several generators a moving average is taken. It is in evaluation mode.
    Errors as `checkpoints.load`'s.
    """
    return checkpoints.load(path, "RRDBNet", _empty, _generator)


def load_encoder(path: str | Path) -> CompanionEncoder:
    """Read a companion encoder that `training.esrgan` has written; otherwise as `load`."""

    def encoder(state: checkpoints.State, _: object) -> CompanionEncoder:
        return CompanionEncoder(len(checkpoints.part(state, "upconv.bias")["upconv.bias"]))

    return checkpoints.load(path, "companion encoder", encoder)


def _generator(tensors: checkpoints.State) -> checkpoints.State:
    return {_original(name): value for name, value in checkpoints.part(tensors, "conv_first.weight").items()}


def _empty(state: checkpoints.State, _: object) -> RRDBNet:
    channels, n_in = state["conv_first.weight"].shape[:2]
    if n_in != 3:
        raise ValueError(
            f"it reads {n_in} channels, pictures folded by pixel-unshuffling, as Real-ESRGAN's ×2 and ×1 releases do; "
            "give a release that enlarges ×4"
        )
    growth = state.get("RRDB_trunk.0.RDB1.conv1.bias", torch.empty(1)).numel()
    blocks = len({name.split(".")[1] for name in state if name.startswith("RRDB_trunk.")})
    doublings = sum(bool(re.fullmatch(r"upconv\d+\.weight", name)) for name in state)
    network = RRDBNet(blocks, channels, growth, 2**doublings)
    return network.to(memory_format=torch.channels_last)  # an eighth faster


def _original(name: str) -> str:
    """Real-ESRGAN's (BasicSR's) name of a parameter → ESRGAN's."""
    for theirs, ours in (
        (r"^body\.(\d+)\.rdb", r"RRDB_trunk.\1.RDB"),
        (r"^conv_body\.", "trunk_conv."),
        (r"^conv_up(\d)\.", r"upconv\1."),
        (r"^conv_hr\.", "HRconv."),
    ):
        name = re.sub(theirs, ours, name)
    return name
