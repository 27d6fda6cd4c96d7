"""The networks of progressive face super-resolution: ×8 in three steps of ×2, each new one faded in.

Kim et al. 2019, figure 1, in the official release's details and under its parameter names.
"""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib import images, messages
from facesr_lib.networks import checkpoints
from facesr_lib.networks.supervised import Enlarger

CHANNELS = (512, 256, 128, 64)
"""At 16², 32², 64² and 128², at full width."""


class ProgressiveGenerator(Enlarger):
    """The super-resolution network G, 8,969,097 parameters at width 1, the factor on every number of channels.

    Source: the official release; the paper's figure 1 and section 3.1. Derived in chapter 8.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        c0, c1, c2, c3 = channels(width)
        self.width = width
        self.to_rgb = nn.ModuleList(nn.Conv2d(c, 3, 1) for c in (c1, c2, c3))
        self.step1 = nn.Sequential(nn.Conv2d(3, c0, 3, padding=1), nn.BatchNorm2d(c0), nn.ReLU(), *_up(c0, c1))
        self.step2 = nn.Sequential(*_up(c1, c2))
        self.step3 = nn.Sequential(*_up(c2, c3))

    def forward(self, x: Tensor, step: int = 3, alpha: float | Tensor = -1.0) -> Tensor:
        """Make faces larger by 2^step.

        (N, 3, h, w) in [−1, 1], the official range; the paper's are 16² → (N, 3, h · 2^step, w · 2^step), about there,
        not clamped. ``alpha`` says how far the last step has been faded in, from 0 (the step before, its pixels
        doubled) to 1; negative, as in the official code: all of it. The first step has nothing to fade from. A tensor
        () is taken as it is.
        """
        faded = _check(step, alpha)
        before, h = x, self.step1(images.check_batch(x))  # (N, c1, 2h, 2w)
        for block in (self.step2, self.step3)[: step - 1]:
            before, h = h, block(h)
        image = self.to_rgb[step - 1](h)
        if faded is None:
            return image
        # (1 − α) f(G^{N−1}(I)) + α G^N(I), f nearest neighbour
        small = self.to_rgb[step - 2](before)
        return (1 - faded) * F.interpolate(small, scale_factor=2.0, mode="nearest") + faded * image


class ProgressiveDiscriminator(nn.Module):
    """The critic D, the generator's mirror image; 8,065,537 parameters at full width.

    Parameters and errors as `ProgressiveGenerator`'s.
    """

    def __init__(self, width: float = 1.0):
        super().__init__()
        c0, c1, c2, c3 = channels(width)
        self.from_rgb = nn.ModuleList(nn.Conv2d(3, c, 1) for c in (c1, c2, c3))
        self.step1 = nn.Sequential(_pair(c1, c0), nn.AvgPool2d(2))
        self.step2 = nn.Sequential(_pair(c2, c1), nn.AvgPool2d(2))
        self.step3 = nn.Sequential(_pair(c3, c2), nn.AvgPool2d(2))
        self.equal_conv = _equalised(c0 + 1, c0)
        self.linear = nn.Linear(c0, 4 * c0)
        self.linear2 = nn.Linear(4 * c0, 1)

    def forward(self, x: Tensor, step: int = 3, alpha: float | Tensor = -1.0) -> Tensor:
        """Judge faces of 16 · 2^step pixels: (N, 3, S, S) in [−1, 1] → (N,), higher for real ones.

        ``step``, ``alpha`` and errors as `ProgressiveGenerator.forward`'s; also a ``ValueError`` if the faces are not
        of the step's size.
        """
        faded, side = _check(step, alpha), 16 * 2**step
        messages.check_tensors(f"faces of step {step}", f"(N, 3, {side}, {side})", x)
        blocks = (self.step1, self.step2, self.step3)
        h = blocks[step - 1](self.from_rgb[step - 1](x))
        if faded is not None:
            h = (1 - faded) * self.from_rgb[step - 2](F.avg_pool2d(x, 2)) + faded * h
        for block in blocks[: step - 1][::-1]:
            h = block(h)
        h = torch.cat([h, spread(x).to(h).expand(len(h), 1, *h.shape[2:])], 1)  # (N, c0 + 1, 16, 16)
        h = self.equal_conv(h).mean((2, 3))  # (N, c0)
        return self.linear2(self.linear(h))[:, 0]  # as released: no activation after the last three layers


def spread(x: Tensor) -> Tensor:
    """How much the images of a batch differ: the standard deviation of each pixel over the batch, averaged.

    One image alone differs from nothing: 0, where the official code has NaN. The small number keeps the slope finite
    where all images agree.
    """
    if len(x) == 1:
        return x.new_zeros(())
    return (x.float().var(0) + 1e-8).sqrt().mean()


def channels(width: float) -> list[int]:
    """Numbers of channels at 16², 32², 64² and 128²; a ``ValueError`` if a width leaves none."""
    messages.check("width", width, at_least=1 / CHANNELS[-1], at_most=8)
    return [round(c * width) for c in CHANNELS]


def load(path: str | Path) -> ProgressiveGenerator:
    """Read a generator that `training.progressive` wrote: frozen, in evaluation mode.

    Errors as `checkpoints.load`'s; a ``ValueError`` also if it did not reach the last step.
    """

    def generator(_: object, about: checkpoints.About) -> ProgressiveGenerator:
        if about["step"] != "3":
            raise ValueError(f"it was trained up to step {about['step']} of 3; go on with its run (--resume)")
        return ProgressiveGenerator(float(about["width"]))

    what = "generator of progressive super-resolution whose metadata give its width and its last step"
    return checkpoints.load(path, what, generator).requires_grad_(False)


class ResidualBlock(nn.Module):
    """h + conv(h), two convolutions deep: (N, C, H, W) → (N, C, H, W)."""

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Sequential(
            *(_equalised(c, c), nn.BatchNorm2d(c), nn.ReLU()), *(_equalised(c, c), nn.BatchNorm2d(c), nn.ReLU())
        )

    def forward(self, h: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return h + self.conv(h)


class EqualisedConvolution(nn.Module):
    """A 3×3 convolution that multiplies its weights by √(2 / fan-in) when it runs, so that all learn at one rate."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.weight_orig = nn.Parameter(torch.randn(n_out, n_in, 3, 3))

    def forward(self, h: Tensor) -> Tensor:
        """(N, n_in, H, W) → (N, n_out, H, W)."""
        return F.conv2d(h, self.weight_orig * sqrt(2 / self.weight_orig[0].numel()), self.bias, padding=1)


def _equalised(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(OrderedDict(conv=EqualisedConvolution(n_in, n_out)))  # the official name is …conv.weight_orig


def _up(n_in: int, n_out: int) -> tuple[nn.Module, ...]:
    """A step of G: residual block, then twice the size."""
    transposed = nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1)
    return ResidualBlock(n_in), transposed, nn.BatchNorm2d(n_out), nn.ReLU()


def _pair(n_in: int, n_out: int) -> nn.Module:
    """Two convolutions of D; ``conv`` is again the official name."""
    layers = (_equalised(n_in, n_out), nn.LeakyReLU(0.2), _equalised(n_out, n_out), nn.LeakyReLU(0.2))
    return nn.Sequential(OrderedDict(conv=nn.Sequential(*layers)))


def _check(step: int, alpha: float | Tensor) -> float | Tensor | None:
    """How far the step counts, from 0 to 1; ``None``: it is all there."""
    if step not in (1, 2, 3) or not isinstance(step, int):
        raise ValueError(f"step must be 1 (32²), 2 (64²) or 3 (128²); got {step!r}.")
    if not isinstance(alpha, Tensor):
        if not messages.is_number(alpha) or not alpha <= 1:
            raise ValueError(f"alpha must be at most 1, where the step is faded in; got {alpha!r}.")
        if alpha < 0 or alpha == 1:
            return None
    return None if step == 1 else alpha
