"""Forward operators, HR → LR, and what of them a picture must fit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import isfinite
from numbers import Real

import torch
from torch import Tensor, nn

from facesr_lib import images, messages

KERNELS = tuple(images.KERNELS)
PART, REACH = 512, 2
"""Small pixels: what is made at once, at most; and how far a kernel looks around one."""


class Downsample(nn.Module):
    """Make an image ``scale`` times smaller, as MATLAB's ``imresize`` does: linear and differentiable.

    The kernel, "bicubic", "bilinear" or "box", is widened by the scale, a whole number that divides the sides of the
    image; else a ``ValueError``. Numbers of any range will do, as to every operator: gradients, or what a search tries.
    """

    def __init__(self, scale: int, kernel: str = "bicubic"):
        super().__init__()
        whole = isinstance(scale, Real) and scale >= 1 and scale % 1 == 0
        require(whole, f"scale must be a whole number, at least 1; got {scale!r}.")
        self.scale, self.kernel = int(scale), messages.choose(kernel, KERNELS, "kernel")

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 3, H / scale, W / scale), not clamped."""
        height, width = images.check_batch(image).shape[-2:]
        require(
            height % self.scale == 0 and width % self.scale == 0,
            f"a {width}×{height} image cannot be made {self.scale} times smaller: crop it to multiples of "
            f"{self.scale}, or choose a scale that divides both sides.",
        )
        h, w, s = height // self.scale, width // self.scale, self.scale
        if max(h, w) <= PART:
            return images.resize(image, (h, w), self.kernel)
        small = image.new_empty(*image.shape[:2], h, w)  # part by part: no matrix is as long as the picture
        for top, left in product(range(0, h, PART), range(0, w, PART)):
            y, x = max(top - REACH, 0), max(left - REACH, 0)
            part = image[:, :, s * y : s * (top + PART + REACH), s * x : s * (left + PART + REACH)]
            seen = images.resize(part, (part.shape[2] // s, part.shape[3] // s), self.kernel)
            small[:, :, top : top + PART, left : left + PART] = seen[:, :, top - y :, left - x :][:, :, :PART, :PART]
        return small

    def upsample(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) → (N, 3, h · scale, w · scale) by the same kernel: the baseline that every method must beat."""
        height, width = images.check_batch(image).shape[-2:]
        return images.resize(image, (height * self.scale, width * self.scale), self.kernel)

    def extra_repr(self) -> str:
        """Scale and kernel."""
        return f"scale={self.scale}, kernel={self.kernel!r}"


class Chain(nn.Module):
    """Operators one after the other, as one operator with their common ``scale``."""

    def __init__(self, *operators: Callable[[Tensor], Tensor]):
        super().__init__()
        require(len(operators) > 0, "a chain needs at least one operator.")
        self.operators, self.scale = operators, 1
        for operator in operators:
            require(callable(operator), f"a chain takes operators, Chain(first, second); got {operator!r}.")
            self.scale *= getattr(operator, "scale", 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 3, H / scale, W / scale)."""
        for operator in self.operators:
            image = operator(image)
        return image


def halvings(times: int) -> Chain:
    """Halve a picture so often, bilinearly each time: the progressive paper's 128 → 64 → 32 → 16.

    One step of the same scale differs: it sees each pixel of the large picture through a wider, simpler tent.

    Source: the official code of Kim et al. 2019, which rounds to 8 bits between the steps; here nothing is rounded.
    """
    return Chain(*(Downsample(2, "bilinear") for _ in range(times)))


def halved(scale: int) -> Chain:
    """As `halvings`, until a picture is so many times smaller; a ``ValueError`` unless that is 2, 4, 8, … or 512."""
    messages.check("scale, where pictures are halved,", scale, int, among=[2**times for times in range(1, 10)])
    return halvings(int(scale).bit_length() - 1)


def check_pixels(lowres: Tensor) -> Tensor:
    """Check that a batch holds pictures, of whatever size; errors as `check_lowres`."""
    require(images.check_batch(lowres).numel() > 0, f"expected at least one picture; got {tuple(lowres.shape)}.")
    low, high = (bound.item() for bound in lowres.aminmax())  # `isfinite` would copy a large photograph
    require(isfinite(low) and isfinite(high), "a picture has NaN or infinite pixels; repair or drop it.")
    require(
        low >= -0.25 and high <= 1.25,
        f"a picture ranges from {low:.2f} to {high:.2f}; pixels are in [0, 1]. Divide by 255 what was bytes, map "
        "[−1, 1] by (x + 1) / 2, or clamp what a network drew beyond black and white.",
    )
    return lowres


def check_lowres(operator: Callable[[Tensor], Tensor], lowres: Tensor, resolution: int) -> Tensor:
    """Return a low-resolution batch (N, 3, h, w) that faces of ``resolution`` can explain through ``operator``.

    A ``ValueError`` says that its shape is not what the operator gives, or that this gives no pictures; or that a pixel
    is NaN, infinite or outside [0, 1] by more than 0.25: a bicubic kernel overshoots by up to 0.21, at scale 2.
    """
    height, width = check_pixels(lowres).shape[2:]
    require(callable(operator), f"an operator makes large pictures small when it is called; got {operator!r}.")
    scale, side = getattr(operator, "scale", None), min(height, width)
    through = "through this operator" if scale is None else f"at scale {scale}"
    explains = f"the picture is {width}×{height}; {through} faces of {resolution}×{resolution} explain"
    fits = side < resolution and resolution % side == 0
    better = f"choose scale {resolution // side} for {side}×{side}, or " if fits else ""
    if scale and resolution % scale:
        raise ValueError(f"{explains} nothing: {better}choose a scale that divides {resolution}.")
    with torch.no_grad():
        small: object = operator(lowres.new_zeros(1, 3, resolution, resolution))
    pictures = isinstance(small, Tensor) and small.is_floating_point() and small.ndim == 4 and small.shape[:2] == (1, 3)
    came = tuple(small.shape) if isinstance(small, Tensor) else type(small).__name__
    require(pictures, f"an operator makes small float pictures (N, 3, h, w) of large ones; {operator!r} gives {came}.")
    h, w = small.shape[2:]  # type: ignore[attr-defined]
    if (height, width) != (h, w):
        better = better if side != min(h, w) else ""
        raise ValueError(f"{explains} pictures of {w}×{h}: {better}crop it square and resize it to {w}×{h}.")
    return lowres


def check_gradient(operator: Callable[[Tensor], Tensor], resolution: int, device: torch.device | str = "cpu") -> None:
    """Raise a ``ValueError`` unless a search can go through ``operator``, which is by its gradient."""
    with torch.enable_grad():
        image = torch.full((1, 3, resolution, resolution), 0.5, device=device, requires_grad=True)
        small = operator(image)
        learns = small.requires_grad and torch.autograd.grad(small.sum(), image, allow_unused=True)[0] is not None
    require(
        learns,
        f"a search follows the operator's gradient, and {operator!r} gives none: write it in torch, without detach, "
        "no_grad and NumPy.",
    )


def require(condition: bool, message: str) -> None:
    """Raise a ``ValueError`` with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)
