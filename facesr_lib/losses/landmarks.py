"""Losses that look where the landmarks are: heatmaps as attention, and heatmaps compared."""

from __future__ import annotations

import torch
from torch import Tensor

from facesr_lib.messages import check_tensors


def normalise_heatmaps(heatmaps: Tensor) -> Tensor:
    """Spread each image's heatmaps over [0, 1], all of its points together: h = (H − min H) / (max H − min H).

    (N, P, H, W), one for each of P points → the same; zero where all of an image's values are the same.

    Source: Kim et al. 2019, section 3.2. The release takes the minimum of the *target's* heatmaps for both, by a typo.
    """
    check_tensors("heatmaps, one for each point,", "(N, P, H, W)", heatmaps)
    low, high = heatmaps.amin((1, 2, 3), keepdim=True), heatmaps.amax((1, 2, 3), keepdim=True)
    return (heatmaps - low) / (high - low).clamp_min(1e-12)


def attention_loss(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    r"""Facial attention: the absolute difference of two images, weighed by where the target's landmarks are.

    .. math:: L_{attention} = \frac{1}{r^2WH} \sum_{x,y} M^*_{x,y} \cdot |I^{HR}_{x,y} - G(I^{LR})_{x,y}|

    M* is the largest of the target's normalised ``heatmaps`` (N, P, H, W) at each pixel; no gradient passes through it,
    and normalising them twice changes nothing. x and y are restored and target (N, 3, H, W), in [0, 1] → (N,); in
    [−1, 1], where the release takes it, the loss is twice as large.

    Source: Kim et al. 2019, equation 1; averaged over the colours too, as released. Derived in chapter 8.
    """
    check_tensors("restored and target pictures", "(N, 3, H, W)", x, y)
    with torch.no_grad():
        attention = normalise_heatmaps(heatmaps).amax(1, keepdim=True)  # M* (N, 1, H, W)
    if attention.shape != x[:, :1].shape:
        raise ValueError(
            f"heatmaps {tuple(heatmaps.shape)} do not fit pictures {tuple(x.shape)}: resize them to "
            f"{x.shape[3]}×{x.shape[2]}, or make the pictures as large as the landmark network's."
        )
    return (attention * (y - x).abs()).mean((1, 2, 3))


def heatmap_loss(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean squared difference of the normalised heatmaps of a restored face and of its target.

    .. math:: L_{heatmap} = \frac{1}{r^2NWH} \sum_{n,x,y} (M^n_{x,y} - \tilde M^n_{x,y})^2

    Heatmaps (N, P, H, W) of restored faces and of their targets → (N,); gradients pass through both.

    Source: Kim et al. 2019, equation 5. Derived in chapter 8.
    """
    check_tensors("heatmaps", "(N, P, H, W)", x, y)
    return (normalise_heatmaps(x) - normalise_heatmaps(y)).square().mean((1, 2, 3))
