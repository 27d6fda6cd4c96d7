"""Forward operators, HR → LR, and what of them a picture must fit."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from facesr_lib import images

KERNELS = ("bicubic", "box", "bilinear")


class Downsample(nn.Module):
    """Make an image smaller by a whole factor, as MATLAB's ``imresize`` does: linear and differentiable.

    Parameters
    ----------
    scale : int
        How many times smaller.
    kernel : {"bicubic", "box", "bilinear"}
        The filter, widened by ``scale``.

    Raises
    ------
    ValueError
        If the scale is not a positive whole number, the kernel is unknown, or, when called, the image's sides are no
        multiples of the scale.
    """

    def __init__(self, scale: int, kernel: str = "bicubic"):
        super().__init__()
        require(scale >= 1 and scale % 1 == 0, f"scale must be a whole number, at least 1; got {scale}.")
        if kernel not in KERNELS:
            near = get_close_matches(str(kernel), KERNELS) or KERNELS
            raise ValueError(f"there is no kernel {kernel!r}; did you mean {' or '.join(near)}?")
        self.scale, self.kernel = int(scale), kernel

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 3, H / scale, W / scale), not clamped."""
        height, width = image.shape[-2:]
        if height % self.scale or width % self.scale:
            raise ValueError(
                f"a {height}×{width} image cannot be made {self.scale} times smaller: crop it to multiples of "
                f"{self.scale}, or choose a scale that divides both sides."
            )
        return images.resize(image, (height // self.scale, width // self.scale), self.kernel)

    def upsample(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) → (N, 3, h · scale, w · scale) by the same kernel: the baseline that every method must beat."""
        height, width = image.shape[-2:]
        return images.resize(image, (height * self.scale, width * self.scale), self.kernel)

    def extra_repr(self) -> str:
        """Scale and kernel."""
        return f"scale={self.scale}, kernel={self.kernel!r}"


def check_lowres(operator: Callable[[Tensor], Tensor], lowres: Tensor, resolution: int) -> Tensor:
    """Check that a low-resolution batch can be explained by faces of ``resolution`` through ``operator``.

    Returns
    -------
    (N, 3, h, w)
        ``lowres`` itself.

    Raises
    ------
    ValueError
        If its shape is not what the operator gives, or a pixel is NaN, infinite or outside [0, 1] by more than 0.25: a
        bicubic kernel overshoots by up to 0.21, at scale 2.
    """
    if lowres.ndim != 4 or lowres.shape[1] != 3 or not lowres.numel():
        raise ValueError(f"low-resolution images are (N, 3, h, w), at least one; got {tuple(lowres.shape)}.")
    if not lowres.isfinite().all():
        raise ValueError("the low-resolution image has NaN or infinite pixels; repair or drop it.")
    if lowres.min() < -0.25 or lowres.max() > 1.25:
        raise ValueError(
            f"the low-resolution image ranges from {lowres.min():.2f} to {lowres.max():.2f}; pixels are in [0, 1]. "
            "Divide by 255 if they are bytes."
        )
    with torch.no_grad():
        expected = operator(lowres.new_zeros(1, 3, resolution, resolution)).shape[2:]
    if lowres.shape[2:] != expected:
        (h, w), (eh, ew), side = lowres.shape[2:], expected, min(lowres.shape[2:])
        name = f"Downsample(scale={operator.scale})" if isinstance(operator, Downsample) else "the operator"
        ways = f"Crop it square and resize it to {eh}×{ew}"
        if resolution % side == 0 and side != eh:
            ways += f", or choose scale={resolution // side} for {side}×{side}"
        raise ValueError(
            f"the low-resolution image is {h}×{w}, but {name} of a {resolution}×{resolution} generator gives "
            f"{eh}×{ew}. {ways}."
        )
    return lowres


class Chain(nn.Module):
    """Operators one after the other, as one operator with their common ``scale``."""

    def __init__(self, *operators: Callable[[Tensor], Tensor]):
        super().__init__()
        require(len(operators) > 0, "a chain needs at least one operator.")
        for operator in operators:
            require(callable(operator), f"a chain takes operators, Chain(first, second); got {operator!r}.")
        self.operators = operators
        self.scale = 1
        for operator in operators:
            self.scale *= getattr(operator, "scale", 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 3, H / scale, W / scale)."""
        for operator in self.operators:
            image = operator(image)
        return image


def require(condition: bool, message: str) -> None:
    """Raise a ``ValueError`` with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)
