"""The corruptions that test how robust a method is: noise, of pictures in [0, 1], and blurs, of any numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from facesr_lib import images, messages, randomness
from facesr_lib.degrade.downsample import check_pixels, require
from facesr_lib.devices import in_full


def _check(image: Tensor) -> None:
    """Make sure of pictures in [0, 1], but for those on their way through a search, which may lie anywhere."""
    if not images.check_batch(image).requires_grad:
        check_pixels(image)


@dataclass(frozen=True)
class GaussianNoise:
    """Additive white Gaussian noise of standard deviation ``std``; image i draws from (seed, i)."""

    std: float
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:  # noqa: D105
        messages.check("std", self.std, at_least=0)

    @in_full()
    def __call__(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N, 3, H, W), clamped to [0, 1]; a ``ValueError`` if a picture is none."""
        _check(image)
        noise = randomness.normal(randomness.generators(self.seed, len(image)), *image.shape[1:])
        return (image + self.std * noise.to(image)).clamp(0, 1)


@dataclass(frozen=True)
class SaltAndPepper:
    """A share ``amount`` of the pixels becomes black or white; image i draws from (seed, i)."""

    amount: float
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:  # noqa: D105
        messages.check("amount", self.amount, at_least=0, at_most=1)

    @in_full()
    def __call__(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N, 3, H, W); a ``ValueError`` if a picture is none."""
        _check(image)
        draws = randomness.generators(self.seed, len(image))
        dice = torch.stack([torch.rand(1, *image.shape[2:], generator=g) for g in draws])  # (N, 1, H, W)
        dice = dice.to(image.device)
        image = torch.where(dice < self.amount / 2, 0.0, image)
        return torch.where(dice > 1 - self.amount / 2, 1.0, image)


@dataclass(frozen=True)
class GaussianBlur:
    """Gaussian blur of standard deviation ``sigma`` pixels (0: none), borders reflected."""

    sigma: float

    def __post_init__(self) -> None:  # noqa: D105
        messages.check("sigma", self.sigma, at_least=0)

    @in_full()
    def __call__(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 3, H, W)."""
        images.check_batch(image)
        if self.sigma == 0:
            return image
        from kornia.filters import gaussian_blur2d

        size = 2 * min(round(4 * self.sigma) or 1, min(image.shape[2:]) - 1) + 1
        return gaussian_blur2d(image, (size, size), (self.sigma, self.sigma), "reflect")


@dataclass(frozen=True)
class MotionBlur:
    """Blur along a line of ``size`` pixels (odd) at ``angle`` degrees, borders reflected."""

    size: int
    angle: float = 0.0

    def __post_init__(self) -> None:  # noqa: D105
        odd = isinstance(self.size, Integral) and self.size >= 3 and self.size % 2 == 1
        require(odd, f"size must be odd and at least 3; got {self.size!r}.")
        messages.check("angle", self.angle)

    @in_full()
    def __call__(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 3, H, W)."""
        height, width = images.check_batch(image).shape[-2:]
        require(
            min(height, width) > self.size // 2,
            f"a line of {self.size} pixels is too long for a {width}×{height} image, whose border cannot be reflected "
            f"by {self.size // 2}: choose a smaller size.",
        )
        from kornia.filters import motion_blur

        return motion_blur(image, int(self.size), float(self.angle), 0.0, "reflect")
