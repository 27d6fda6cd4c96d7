"""Networks that enlarge a face eight times in one pass: VDSR, URDGN, FSRNet, and the critics of URDGN and FSRGAN.

The progressive paper measures itself against these four. Each stands here with its paper's layers; ``width`` multiplies
all channels, for machines and budgets that are smaller than theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib import images, messages
from facesr_lib.networks import checkpoints
from facesr_lib.networks.landmarks import POINTS, Hourglass

SCALE = 8
CLASSES = 11  # Helen's


class Enlarger(nn.Module):
    """What all of them can do, and the progressive generator."""

    def enlarge(self, lowres: Tensor) -> Tensor:
        """Faces (N, 3, h, w) in [0, 1] → (N, 3, 8h, 8w), not clamped; by default `forward` thinks in [−1, 1]."""
        return (self(2 * images.check_batch(lowres) - 1) + 1) / 2


def upsample(lowres: Tensor) -> Tensor:
    """Enlarge by bicubic interpolation, (N, 3, h, w) → (N, 3, 8h, 8w): what VDSR and FSRNet begin with."""
    height, width = images.check_batch(lowres).shape[2:]
    return images.resize(lowres, (SCALE * height, SCALE * width))


def _channels(n: int, width: float) -> int:
    return max(1, round(n * width))


def _pairs(width: float, *channels: int) -> Iterable[tuple[int, int]]:
    """Channels in and out of each layer, from a picture's three on."""
    return pairwise([3, *(_channels(n, width) for n in channels)])


class VDSR(Enlarger):
    """Twenty convolutions that see the luminance, enlarged by bicubic interpolation, and add what it lacks.

    664,704 parameters. Names are those of the re-implementation twtygqyy/pytorch-vdsr.

    Source: Kim, Lee & Lee 2016, section 3. Colour stays bicubic.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        n = _channels(64, width)
        layers = (OrderedDict(conv=_conv(n, n), relu=nn.ReLU(inplace=True)) for _ in range(20 - 2))
        self.residual_layer = nn.Sequential(*map(nn.Sequential, layers))
        self.input, self.output = _conv(1, n), _conv(n, 1)
        for parameter in self.parameters():
            nn.init.kaiming_normal_(parameter, mode="fan_out")

    def forward(self, y: Tensor) -> Tensor:
        """Luminance (N, 1, H, W) in [0, 1], already enlarged → the same, sharper."""
        # ŷ = y + f(y)
        return y + self.output(self.residual_layer(F.relu(self.input(y))))

    def enlarge(self, lowres: Tensor) -> Tensor:
        """Faces (N, 3, h, w) in [0, 1] → (N, 3, 8h, 8w), not clamped."""
        large = upsample(lowres)
        y = images.luma(large)
        # Cb and Cr stay where R, G and B rise together; white is 219 of 255 steps above black in Y
        return large + (self(y) - y) * (255 / 219)


class URDGN(Enlarger):
    """Generator of "Ultra-resolving by discriminative generative networks": 16² → 128², 1,054,243 parameters.

    Source: Yu & Porikli 2016 and the authors' code, whose "deconvolutions" are enlargements by the nearest neighbour,
    then convolutions.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        layers: list[nn.Module] = []
        for (n_in, n_out), kernel in zip(_pairs(width, 16, 64, 128, 256), (3, 3, 5, 5), strict=True):
            layers += _normalised(nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2))
            layers.append(nn.Upsample(scale_factor=2))
        self.layers = nn.Sequential(*layers[:-1], nn.Conv2d(n_out, 3, 5, padding=2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) → (N, 3, 8h, 8w), in [−1, 1]; nothing keeps them there."""
        return self.layers(x)


class URDGNDiscriminator(nn.Module):
    """Critic of URDGN for 128² pictures: 6,859,425 parameters."""

    def __init__(self, width: float = 1.0):
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in _pairs(width, 32, 64, 128, 96):
            layers += [nn.Conv2d(n_in, n_out, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Dropout2d(0.2)]
        hidden = _channels(1024, width)
        layers += [nn.Flatten(), nn.Linear(8 * 8 * n_out, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 128, 128) in [−1, 1] → logits (N, 1), positive for what it takes for real."""
        return self.layers(x)


class FSRNet(Enlarger):
    """A coarse picture, then landmarks and a parsing estimated from it, then a fine picture made with their help.

    3,262,272 parameters, under the names of the re-implementation cydiachen/FSRNET_pytorch, and two 1×1 convolutions
    that read the priors off the features (``prior_conv1``: landmarks, 8,772; ``prior_conv2``: parsing, 1,419).

    Source: Chen et al. 2018. The paper's own code is a test script; the layers are the re-implementation's.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        n, m = _channels(64, width), 2 * _channels(64, width)
        inside = partial(_Bottleneck, m, m)
        hourglass = partial(Hourglass, inside, 3, "res{level}_{branch}", "res_center", nn.MaxPool2d(2))
        self.coarse_SR_Encoder = nn.Sequential(
            *_reflected(3, n), nn.BatchNorm2d(n), nn.ReLU(inplace=True), *_blocks(n, 3), *_reflected(n, 3), nn.Tanh()
        )
        self.fine_SR_Encoder = nn.Sequential(
            *_normalised(_conv(3, n, stride=2)), *_blocks(n, 12), *_reflected(n, n), nn.Tanh()
        )
        self.prior_Estimation_Network = nn.Sequential(
            *_normalised(nn.Conv2d(3, n, 7, stride=2, padding=3, bias=False)),
            _Bottleneck(n, m),
            *_blocks(m, 2),
            hourglass(),
            hourglass(),
        )
        self.fine_SR_Decoder = nn.Sequential(
            *_normalised(_conv(n + m, n)),
            *_normalised(nn.ConvTranspose2d(n, n, 3, stride=2, padding=1, output_padding=1, bias=False)),
            *_blocks(n, 3),
            *_reflected(n, 3),
            nn.Tanh(),
        )
        self.prior_conv1, self.prior_conv2 = nn.Conv2d(m, POINTS, 1), nn.Conv2d(m, CLASSES, 1)
        for layer in self.modules():  # torch's own start lets the priors' losses grow hundreds of times larger
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(layer.weight, 0, 0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1, 0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Enlarged faces (N, 3, H, W) in [−1, 1], H and W multiples of 16.

        Returns
        -------
        coarse, priors, fine : (N, 3, H, W), (N, 68 + 11, H/2, W/2), (N, 3, H, W)
            In [−1, 1]; a heatmap per landmark and a map per class of the parsing are about there.
        """
        coarse = self.coarse_SR_Encoder(x)
        features, prior = self.fine_SR_Encoder(coarse), self.prior_Estimation_Network(coarse)  # (N, 64 | 128, H/2, W/2)
        fine = self.fine_SR_Decoder(torch.cat([features, prior], 1))
        return coarse, torch.cat([self.prior_conv1(prior), self.prior_conv2(prior)], 1), fine

    def enlarge(self, lowres: Tensor) -> Tensor:
        """Faces (N, 3, h, w) in [0, 1], h and w even → (N, 3, 8h, 8w) in [0, 1]."""
        _, _, fine = self(2 * upsample(lowres) - 1)
        return (fine + 1) / 2


class FSRGANDiscriminator(nn.Module):
    """Critic of FSRGAN, which judges patches: 4,693,697 parameters, under SRGAN's usual names.

    Source: the re-implementation cs-giung/FSRNet-pytorch.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in _pairs(width, 64, 128, 256, 512):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), *[nn.BatchNorm2d(n_out)] * (n_in != 3), nn.LeakyReLU(0.2)]
            layers += [nn.Conv2d(n_out, n_out, 3, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, nn.Conv2d(n_out, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [−1, 1] → logits (N, 1, H/16, W/16), positive for what it takes for real."""
        return self.model(x)


class _ResidualBlock(nn.Module):
    def __init__(self, n: int):
        super().__init__()
        first, second = (nn.Sequential(*_reflected(n, n), nn.BatchNorm2d(n)) for _ in range(2))
        self.conv_block = nn.Sequential(*first, nn.ReLU(inplace=True), *second)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x).add_(x)


class _Bottleneck(nn.Module):
    """Normalised and rectified before each convolution: 1×1 to half the channels, 3×3, 1×1."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        half = n_out // 2
        parts: list[nn.Module] = []
        for a, b, kernel in ((n_in, half, 1), (half, half, 3), (half, n_out, 1)):
            parts += [nn.BatchNorm2d(a), nn.ReLU(inplace=True), nn.Conv2d(a, b, kernel, padding=kernel // 2)]
        self.convBlock = nn.Sequential(*parts)
        self.skipConv = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skipConv(x) + self.convBlock(x)


def _conv(n_in: int, n_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)


def _reflected(n_in: int, n_out: int) -> tuple[nn.Module, ...]:
    return nn.ReflectionPad2d(1), nn.Conv2d(n_in, n_out, 3, bias=False)


def _blocks(n: int, count: int) -> list[nn.Module]:
    return [_ResidualBlock(n) for _ in range(count)]


NETWORKS: dict[str, type[Enlarger]] = {"vdsr": VDSR, "urdgn": URDGN, "fsrnet": FSRNet, "fsrgan": FSRNet}


def load(path: str | Path, name: str | None = None) -> Enlarger:
    """Read a network that `training.supervised` wrote: frozen, in evaluation mode.

    Errors as `checkpoints.load`'s; a ``ValueError`` also if it holds not ``name``, such as "vdsr".
    """

    def network(_: object, about: checkpoints.About) -> Enlarger:
        held = messages.choose(about.get("network"), NETWORKS, "supervised network")
        if name not in (held, None):
            raise ValueError(f"the file holds {held}, not {name}: give another file, or choose {held}")
        return NETWORKS[held](float(about["width"]))

    what = f"{name or 'network'} that `facesr train supervised` wrote"
    return checkpoints.load(path, what, network).requires_grad_(False)
