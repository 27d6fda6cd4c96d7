"""Distances between images as VGG16 sees them; its ImageNet weights are an asset ("vgg16")."""

from __future__ import annotations

from torch import Tensor

from facesr_lib.networks import perceptual

_SMALLEST = 16


def lpips_vgg(x: Tensor, y: Tensor) -> Tensor:
    """LPIPS v0.1 on VGG16, differentiable: BRGM's perceptual term.

    Parameters
    ----------
    x, y : (N, 3, H, W)
        In [0, 1], at least 16 × 16.

    Returns
    -------
    (N,)

    Raises
    ------
    assets.AssetMissing
        If VGG16's weights are not on this machine.
    ValueError
        If the images are too small.

    Notes
    -----
    Source: Zhang et al. 2018, the package lpips.
    """
    _large_enough(x)
    return perceptual.lpips_vgg_network().to(x.device)(x, y, normalize=True).flatten()


def vgg_l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of VGG16's last features: mGANprior's perceptual term. As `lpips_vgg` otherwise."""
    _large_enough(x)
    network = perceptual.lpips_vgg_network().to(x.device)
    ours, theirs = (network.net(network.scaling_layer(2 * image - 1))[-1] for image in (x, y))
    return (ours - theirs).abs().mean((1, 2, 3))


def _large_enough(x: Tensor) -> None:
    if min(x.shape[2:]) < _SMALLEST:
        raise ValueError(
            f"VGG16 needs at least {_SMALLEST}×{_SMALLEST} pixels; got {x.shape[2]}×{x.shape[3]}. A search with "
            "perceptual=None goes without it, which is another method."
        )
