"""Metrics of sets of images: distances between what a pretrained network makes of two sets, one number for both.

A number says little without the network: write "FID" for Inception's alone, and "FID (EfficientNet-Lite0)" for the
other's. Numbers of two networks cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from facesr_lib import messages
from facesr_lib.devices import in_full
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
    if isinstance(features, str):
        features = NETWORKS[messages.choose(features, NETWORKS, "feature network")]
    if isinstance(x, Tensor) and x.ndim == 2:
        if not x.is_floating_point():
            raise ValueError(f"features are floating-point numbers, (N, F); got {x.dtype}: x.float() makes them some.")
        return x
    x, _ = prepared_pair(x, x)
    with torch.no_grad():
        codes = [features(part) for part in x.split(16)]  # small enough for a processor's cache
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
    features, and errors
        As in `embed`. Inception is the only network whose distances may be called FID without a note.
    """
    return _frechet(*_two_sets(real, fake, features)).float()


@in_full()
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
    """
    codes = _two_sets(real, fake, features)
    if subsets is None:
        return _all_pairs(*codes)
    messages.check("subsets", subsets, int, at_least=1)
    messages.check("subset_size", subset_size, int, at_least=2)
    messages.check("seed", seed, int)
    size, generator = min(*map(len, codes), subset_size), torch.Generator().manual_seed(seed)

    def subset(code: Tensor) -> Tensor:
        return code[torch.randperm(len(code), generator=generator)[:size]]

    values = torch.stack([_discrepancy(*_kernels(*map(subset, codes))) for _ in range(subsets)])
    return values.mean().float(), values.std(correction=0).float()


def pseudo_values(real: Tensor, fake: Tensor, features: Features = "inception") -> dict[str, Tensor]:
    r"""Split FID and KID among pairs of images, so that they get intervals: Tukey's jackknife.

    .. math:: \theta_i = n \, \theta - (n - 1) \, \theta_{-i}

    where the distance θ₍₋ᵢ₎ leaves pair i, a face and its restoration, out of both sets. Treat them as n measurements:
    their mean is the distance without the bias of order 1/n, its standard error s/√n. Two methods are compared by the
    differences of their pseudo-values, face by face.

    KID's have as their mean the KID that compares no face with its own restoration (k(xᵢ, yᵢ) is left out of the
    cross term's mean): unbiased for pairs, where `kid`, which is unbiased for independent sets, is a little too small.
    FID's bias is of more than the order 1/n where there are fewer images than features: compare with as many only.

    Parameters and errors as `fid`, but three pairs at least → {"fid": (N,), "kid": (N,)}.
    """
    a, b = _two_sets(real, fake, features)
    n = len(a)
    if len(b) != n or n < 3:
        raise ValueError(f"pairs of images are left out in turn, of three pairs at least; got {n} and {len(b)} images.")

    def both(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([_frechet(a, b), _discrepancy(*_kernels(a, b))])

    index = torch.arange(n, device=a.device)
    less = torch.stack([both(a[index != i], b[index != i]) for i in range(n)])  # (N, 2)
    fid, kid = (n * both(a, b) - (n - 1) * less).float().T
    return {"fid": fid, "kid": kid}


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, features: Features = "inception") -> tuple[Tensor, Tensor]:
    """Improved precision and recall of a generator (Kynkäänniemi et al. 2019): two shares.

    A set's manifold is the union of balls, one around each of its images in feature space, that reach to the image's
    k-th nearest neighbour in the set. Precision is the share of fakes inside the reals' manifold (do they look real?),
    recall the share of reals inside the fakes' (is everything drawn?). A set twice as large has smaller balls: compare
    only numbers from sets of the same sizes.

    Parameters and errors as `fid`, but more than ``k`` images each; the paper's network, VGG-16, is not among the
    ``features``.
    """
    a, b = _two_sets(real, fake, features)
    messages.check(f"k, of {len(a)} and {len(b)} images,", k, int, at_least=1, at_most=min(len(a), len(b)) - 1)
    distance = distances(a, b)  # (N, M)
    precision = (distance <= _reach(a, k)[:, None]).any(0).float().mean()
    recall = (distance <= _reach(b, k)).any(1).float().mean()
    return precision, recall


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances between features (N, F) and (M, F): (N, M), in double precision.

    A ``ValueError`` says that they are no features of one network, or not finite.
    """
    if not all(isinstance(x, Tensor) and x.ndim == 2 for x in (a, b)) or a.shape[1] != b.shape[1]:
        raise ValueError("distances are between features of one network, (N, F) and (M, F): `embed` makes them.")
    a, b = (_of_set(name, x) for name, x in {"first": a, "second": b}.items())
    return torch.cdist(a.double(), b.double())  # its fast way subtracts nearly equal numbers


def _reach(code: Tensor, k: int) -> Tensor:
    """Distance from each of (N, F) to its k-th nearest neighbour among the others, (N,)."""
    return distances(code, code).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values


def _two_sets(real: Tensor, fake: Tensor, features: Features) -> tuple[Tensor, Tensor]:
    a, b = (_of_set(name, x, features) for name, x in {"real": real, "fake": fake}.items())
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a set has at least two images; got {len(a)} and {len(b)}.")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of one network are compared; got {a.shape[1]} and {b.shape[1]} of them.")
    return a, b


def _of_set(name: str, x: Tensor, features: Features = "inception") -> Tensor:
    """One set's features, fit for linear algebra: LAPACK ends the whole process where it is given a NaN."""
    try:
        code = embed(x, features)
    except ValueError as error:
        raise ValueError(f"the {name} set: {error}") from error
    if not code.float().isfinite().all():  # what float32 cannot hold overflows when it is squared
        raise ValueError(f"the {name} set: a feature is NaN or infinite: look at the network or at what it was given.")
    return code


def _frechet(a: Tensor, b: Tensor) -> Tensor:
    """Fréchet distance of the Gaussians with the means and covariances of features (N, F) and (M, F)."""
    # |μ_a − μ_b|² + tr Σ_a + tr Σ_b − 2 tr (Σ_a Σ_b)^½. With Σ = XᵀX the last trace is the sum of X_a X_bᵀ's singular
    # values, which needs no matrix of F × F; R of X = QR gives the same, and has at most F rows.
    a, b = a.double(), b.double()
    means = (a.mean(0) - b.mean(0)).square().sum()
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (a, b))
    root = torch.linalg.svdvals(torch.linalg.qr(a, mode="r").R @ torch.linalg.qr(b, mode="r").R.T).sum()
    return means + a.square().sum() + b.square().sum() - 2 * root


def _kernels(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """KID's kernel (x·y / F + 1)³ within sets, (N, N) and (M, M), zero for an image with itself; between, (N, M)."""
    a, b = a.double() / a.shape[1] ** 0.5, b.double() / b.shape[1] ** 0.5
    aa, bb, ab = ((x @ y.T + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    return aa.fill_diagonal_(0), bb.fill_diagonal_(0), ab


def _discrepancy(aa: Tensor, bb: Tensor, ab: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, unbiased."""
    n, m = ab.shape
    return aa.sum() / (n * (n - 1)) + bb.sum() / (m * (m - 1)) - 2 * ab.mean()


def _all_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """KID of all pairs, and its jackknife standard error."""
    n, m = len(a), len(b)
    if min(n, m) < 3:
        raise ValueError(f"a standard error needs three images in each set; got {n} and {m}.")
    aa, bb, ab = _kernels(a, b)
    mean_a, mean_b, of_a, of_b = aa.sum() / (n * (n - 1)), bb.sum() / (m * (m - 1)), aa.sum(1), bb.sum(1)
    # the same three means with one image left out
    a_less = (aa.sum() - 2 * of_a) / ((n - 1) * (n - 2)) + mean_b - 2 * (ab.sum() - ab.sum(1)) / ((n - 1) * m)
    b_less = mean_a + (bb.sum() - 2 * of_b) / ((m - 1) * (m - 2)) - 2 * (ab.sum() - ab.sum(0)) / (n * (m - 1))
    variance = (n - 1) * a_less.var(correction=0) + (m - 1) * b_less.var(correction=0)
    return _discrepancy(aa, bb, ab).float(), variance.sqrt().float()
