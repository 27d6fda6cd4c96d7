"""The discriminator as a judge of content: distances between what its blocks see."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from facesr_lib.degrade import check_pixels
from facesr_lib.networks.stylegan2 import Discriminator


class SemanticLoss:
    r"""Distance between two small pictures as the last blocks of a discriminator see them.

    .. math:: L_s = \sum_{i=1}^{b} \lVert D^{(i)}(\tilde y{\downarrow}) - D^{(i)}(x) \rVert_1

    Parameters
    ----------
    discriminator, lowres
        D, frozen; x, (N, 3, h, w) in [0, 1].
    blocks : int
        b, counted from the coarse end; at least 1. Where a picture passes fewer, those count.
    enter : callable
        How a small picture enters D: (N, 3, h, w) → D's image (N, 3, R, R) in [0, 1], or, with a fitted `Entrance`,
        the feature map of the block at its own resolution.

    Notes
    -----
    Source: equation 4 of the paper on discriminator-semantic exploration, which does not say how x enters D. Derived in
    chapter 4.
    """

    def __init__(
        self, discriminator: Discriminator, lowres: Tensor, blocks: int, enter: Callable[[Tensor], Tensor] | Entrance
    ):
        if blocks < 1:
            raise ValueError(f"the semantic loss compares at least one block; got {blocks}.")
        self._discriminator, self._blocks, self._enter = discriminator, blocks, enter
        with torch.no_grad():
            self._target = self.features(lowres)

    def features(self, lowres: Tensor) -> list[Tensor]:
        """D's view of a small picture: the outputs of its last blocks, (N, C, r, r) each."""
        x = self._enter(lowres)
        if isinstance(self._enter, Entrance):
            return self._discriminator.features(x, at=self._enter.resolution)[-self._blocks :]
        return self._discriminator.features(2 * x - 1)[-self._blocks :]

    def __call__(self, lowres: Tensor) -> Tensor:
        """(N, 3, h, w) → (N,): Σ_{i≤b} ‖D⁽ⁱ⁾(ỹ↓) − D⁽ⁱ⁾(x)‖₁."""
        pairs = zip(self.features(lowres), self._target, strict=True)
        return torch.stack([(ours - theirs).abs().sum((1, 2, 3)) for ours, theirs in pairs]).sum(0)


class Entrance:
    """A "fromRGB" for pictures smaller than the discriminator's: the feature map that its block expects.

    The "resnet" discriminator has one fromRGB, at full resolution. This one is the linear map, one for all pixels, that
    best predicts a block's input from the colours of the small picture: least squares over ``faces``, (M, 3, R, R) in
    [0, 1], which are ``lowres``, (M, 3, h, h), made small. ``resolution`` is h, ``explained`` the share of the feature
    map's variance that colour explains, 1 if nothing is lost. A ``ValueError`` says what D takes.
    """

    def __init__(self, discriminator: Discriminator, faces: Tensor, lowres: Tensor):
        check_pixels(faces)
        self.resolution = check_pixels(lowres).shape[-1]
        if self.resolution not in discriminator.resolutions[1:] or lowres.shape[2] != self.resolution:
            sides = ", ".join(f"{r}²" for r in discriminator.resolutions[1:])
            came = tuple(lowres.shape[2:])
            raise ValueError(f"feature maps enter the discriminator at {sides}; the picture is {came}.")
        with torch.no_grad():
            depth = discriminator.resolutions.index(self.resolution) - 1
            features = discriminator.features(2 * faces - 1)[depth].movedim(1, -1).flatten(0, 2)  # (M h², C)
            colours = _colours(lowres).flatten(0, 2)  # (M h², 4)
            self._matrix = torch.linalg.lstsq(colours.double(), features.double()).solution.float()  # (4, C)
            error = (features - colours @ self._matrix).var(0).sum()
            self.explained = float(1 - error / features.var(0).sum())

    def __call__(self, lowres: Tensor) -> Tensor:
        """(N, 3, h, h) in [0, 1] → (N, C, h, h)."""
        return (_colours(lowres) @ self._matrix).movedim(-1, 1)


def _colours(lowres: Tensor) -> Tensor:
    """(N, 3, h, w) → (N, h, w, 4): the colours in [−1, 1] and a one."""
    x = (2 * lowres - 1).movedim(1, -1)
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)
