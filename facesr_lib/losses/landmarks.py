"""Losses that look where the landmarks are: heatmaps as attention, and heatmaps compared."""

from __future__ import annotations

from torch import Tensor


def normalise_heatmaps(heatmaps: Tensor) -> Tensor:
    """Spread each image's heatmaps over [0, 1], all of its points together: h = (H − min H) / (max H − min H).

    (N, P, H, W), one for each of P points → the same; zero where all of an image's values are the same.

    Source: Kim et al. 2019, section 3.2. The release takes the minimum of the *target's* heatmaps for both, by a typo.
    """
    if heatmaps.ndim != 4:
        raise ValueError(f"heatmaps are (N, P, H, W), one for each point; got {tuple(heatmaps.shape)}.")
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
    attention = normalise_heatmaps(heatmaps.detach()).amax(1, keepdim=True)  # M* (N, 1, H, W)
    if attention.shape != x[:, :1].shape or x.shape != y.shape:
        raise ValueError(
            f"heatmaps {tuple(heatmaps.shape)} do not fit images {tuple(x.shape)} and {tuple(y.shape)}: resize them to "
            f"{x.shape[3]}×{x.shape[2]}, or make the images as large as the landmark network's."
        )
    return (attention * (y - x).abs()).mean((1, 2, 3))


def heatmap_loss(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean squared difference of the normalised heatmaps of a restored face and of its target.

    .. math:: L_{heatmap} = \frac{1}{r^2NWH} \sum_{n,x,y} (M^n_{x,y} - \tilde M^n_{x,y})^2

    Heatmaps (N, P, H, W) of restored faces and of their targets → (N,); gradients pass through both.

    Source: Kim et al. 2019, equation 5. Derived in chapter 8.
    """
    if x.shape != y.shape:
        raise ValueError(
            f"heatmaps {tuple(x.shape)} and {tuple(y.shape)} cannot be compared: give the landmark network images of "
            "one size."
        )
    return (normalise_heatmaps(x) - normalise_heatmaps(y)).square().mean((1, 2, 3))
