"""Metrics of sets of images: distances between what a pretrained network makes of two sets, one number for both.

A number says little without the network: write "FID" for Inception's alone, and "FID (EfficientNet-Lite0)" for the
other's. Numbers of two networks cannot be compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from facesr_lib.metrics import pretrained
from facesr_lib.metrics.per_image import prepared_pair

Features = str | Callable[[Tensor], Tensor]

NETWORKS: dict[str, Callable[[Tensor], Tensor]] = {
    "inception": pretrained.inception_features,
    "efficientnet-lite0": pretrained.efficientnet_features,
}


def embed(x: Tensor, features: Features = "inception") -> Tensor:
    """Features of images; what `fid`, `kid` and `precision_recall` take in place of the images, to compute them once.

    Parameters
    ----------
    x : (N, 3, H, W)
        Images in [0, 1]; or features (N, F), which are returned as they are.
    features : str or callable
        "inception": the 2,048 features of FID's authors. "efficientnet-lite0": 1,280 features of an ImageNet
        classifier that comes with the library's packages (Apache 2.0); images are enlarged to 224×224 by MATLAB's
        bicubic, antialiased when shrinking. Both see images rounded to 8 bits. Or a network of one's own, images
        (n, 3, H, W) → (n, F), on the images' device.

    Returns
    -------
    (N, F)

    Raises
    ------
    MetricUnavailable
        If the network's weights, or the package that defines it, are not on this machine.
    ValueError
        If the network is unknown, ``x`` is no batch of finite images, or the features are not (n, F).
    """
    if isinstance(features, str) and features not in NETWORKS:
        raise ValueError(f"unknown feature network {features!r}: choose one of {', '.join(NETWORKS)}, or a callable.")
    if x.ndim == 2 and x.is_floating_point():
        return x
    prepared_pair(x, x, False, 0)
    network = NETWORKS[features] if isinstance(features, str) else features
    with torch.no_grad():
        codes = [network(part) for part in x.split(16)]  # small enough for a processor's cache
    if any(code.ndim != 2 for code in codes):
        raise ValueError(f"features are (n, F); these are {tuple(codes[0].shape)}.")
    return torch.cat(codes)


def fid(real: Tensor, fake: Tensor, features: Features = "inception") -> Tensor:
    """Fréchet inception distance between two *sets* of images (Heusel et al. 2017): one number.

    Biased upwards for small sets; use `kid` below some thousand images.

    Parameters
    ----------
    real, fake : (N, 3, H, W), (M, 3, H, W)
        At least two each; or their features, (N, F) and (M, F).
    features : str or callable
        As in `embed`. Inception is the only network whose distances may be called FID without a note.

    Returns
    -------
    ()

    Raises
    ------
    MetricUnavailable, ValueError
        As `embed`; or if a set has fewer than two images.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    return _torchmetrics(FrechetInceptionDistance, *_two_sets(real, fake, features)).compute()


def kid(
    real: Tensor,
    fake: Tensor,
    features: Features = "inception",
    *,
    subsets: int | None = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Kernel inception distance between two *sets* of images (Bińkowski et al. 2018): a mean and its spread.

    Unbiased: zero on average for two samples of one distribution, whatever their size. Other parameters and errors as
    `fid`.

    Parameters
    ----------
    subsets : int or None
        So many random subsets of min(N, M, ``subset_size``) images; the spread is the standard deviation over them.
        Where a subset is the whole of both sets they are all alike, and their standard deviation, zero, says nothing.
        ``None``: all pairs of both sets at once, of whatever sizes; the spread is the standard error of the mean by
        the jackknife (each image of either set left out once), right for small sets too. Needs three images a set.

    Returns
    -------
    (), ()
    """
    codes = _two_sets(real, fake, features)
    if subsets is None:
        return _kernel_distance(*codes)
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(real), len(fake), subset_size)
    metric = _torchmetrics(KernelInceptionDistance, *codes, subsets=subsets, subset_size=size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mean, std = metric.compute()
    return mean, std


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, features: Features = "inception") -> tuple[Tensor, Tensor]:
    """Improved precision and recall of a generator (Kynkäänniemi et al. 2019): two shares.

    A set's manifold is the union of balls, one around each of its images in feature space, that reach to the image's
    k-th nearest neighbour in the set. Precision is the share of fakes inside the reals' manifold (do they look real?),
    recall the share of reals inside the fakes' (is everything drawn?). A set twice as large has smaller balls: compare
    only numbers from sets of the same sizes.

    Parameters
    ----------
    real, fake
        As in `fid`, more than ``k`` each.
    k : int
    features
        As in `embed`; the paper's network, VGG-16, is not among them.

    Returns
    -------
    precision, recall : (), ()

    Raises
    ------
    MetricUnavailable, ValueError
        As `fid`; or if a set has no k-th neighbours.
    """
    a, b = _two_sets(real, fake, features)
    if not 1 <= k < min(len(a), len(b)):
        raise ValueError(f"k must be at least 1 and smaller than both sets, {len(a)} and {len(b)} images; got {k}.")
    distance = distances(a, b)  # (N, M)
    precision = (distance <= _reach(a, k)[:, None]).any(0).float().mean()
    recall = (distance <= _reach(b, k)).any(1).float().mean()
    return precision, recall


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances between features (N, F) and (M, F): (N, M), in double precision."""
    return torch.cdist(a.double(), b.double())  # its fast way subtracts nearly equal numbers


def _reach(code: Tensor, k: int) -> Tensor:
    """Distance from each of (N, F) to its k-th nearest neighbour among the others, (N,)."""
    return distances(code, code).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values


def _two_sets(real: Tensor, fake: Tensor, features: Features) -> tuple[Tensor, Tensor]:
    a, b = (embed(x, features) for x in (real, fake))
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a set has at least two images; got {len(a)} and {len(b)}.")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of one network are compared; got {a.shape[1]} and {b.shape[1]} of them.")
    return a, b


def _kernel_distance(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared maximum mean discrepancy with KID's kernel over all pairs, and its jackknife standard error."""
    n, m = len(a), len(b)
    if min(n, m) < 3:
        raise ValueError(f"a standard error needs three images in each set; got {n} and {m}.")
    aa, bb, ab = (((x.double() @ y.double().T) / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    of_a, of_b = aa.sum(1) - aa.diagonal(), bb.sum(1) - bb.diagonal()  # (N,), (M,): with all others of the set
    mean_a, mean_b, mean_ab = of_a.sum() / (n * (n - 1)), of_b.sum() / (m * (m - 1)), ab.mean()
    # the same three means with one image left out
    a_less = (of_a.sum() - 2 * of_a) / ((n - 1) * (n - 2)) + mean_b - 2 * (ab.sum() - ab.sum(1)) / ((n - 1) * m)
    b_less = mean_a + (of_b.sum() - 2 * of_b) / ((m - 1) * (m - 2)) - 2 * (ab.sum() - ab.sum(0)) / (n * (m - 1))
    variance = sum((len(less) - 1) * less.var(correction=0) for less in (a_less, b_less))
    return (mean_a + mean_b - 2 * mean_ab).float(), torch.as_tensor(variance).sqrt().float()


class _Given(nn.Identity):
    """Stands for a feature network where the features are already there."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def _torchmetrics(kind: Any, real: Tensor, fake: Tensor, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics, on the memory that the features take
        metric = kind(feature=_Given(real.shape[1]), **options).to(real.device)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric
