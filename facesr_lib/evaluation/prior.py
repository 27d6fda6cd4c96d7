"""How good a prior is: whether its faces look like new ones, whether they are copies, how Gaussian its codes are.

`fidelity` judges its images, `gaussianisation` its codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facesr_lib import data, metrics, randomness
from facesr_lib.messages import check
from facesr_lib.metrics.gaussianity import Gaussianity
from facesr_lib.metrics.sets import Features
from facesr_lib.prior import FacePrior


@dataclass(frozen=True)
class Score:
    """Samples at one truncation against one set of faces."""

    psi: float  # truncation; 1 is none
    faces: str  # "held-out" or "training", and how many
    kid: float  # over all pairs of both sets
    kid_error: float  # its standard error: jackknife over both sets
    fid: float  # biased upwards the more, the fewer the faces: compare within one set and number of samples
    precision: float  # of k-NN manifolds, which depend on the sets' sizes as FID does
    recall: float


@dataclass(frozen=True)
class Fidelity:
    """What `fidelity` found."""

    features: str  # the network that all distances are in; name it beside every number
    scores: list[Score]  # per truncation: held-out faces, then training faces
    codes: Tensor  # (n, L, d), of the samples at the first truncation: ``prior.synthesise`` draws them again
    nearest: Tensor  # (n,), each of these samples' nearest training face, as an index into ``data.faces("train")``,
    distance: Tensor  # (n,), and how far it is
    held_out_distance: Tensor  # (M,), the same of the held-out faces: what learning by heart would fall below

    @property
    def closer(self) -> float:
        """Probability that a sample is nearer to the training faces than a held-out face is: about ½, or copies."""
        return (self.distance[:, None] < self.held_out_distance).float().mean().item()


def fidelity(
    prior: FacePrior,
    *,
    samples: int = 1000,
    psis: Sequence[float] = (1.0, 0.85, 0.7, 0.5),
    features: Features = "efficientnet-lite0",
    k: int = 3,
    seed: int = 0,
    held_out: Tensor | None = None,
    training: Tensor | None = None,
) -> Fidelity:
    """Measure samples against the faces that the prior was trained on and those that it was not.

    Parameters
    ----------
    samples : int
        Faces drawn at each truncation; the same z at all of them.
    psis : sequence of float
        Truncations to measure. The first, usually 1, is also searched for copies of training faces.
    features, k
        As in `metrics.embed` and `metrics.precision_recall`; errors, too.
    held_out, training : (M, 3, R, R), (N, 3, R, R), optional
        By default the 50 and the 900 faces that `data.faces` keeps; errors as its.
    """
    check("samples", samples, int, at_least=2)
    if not psis:
        raise ValueError("at least one truncation is measured; got none.")
    held_out = data.faces("test", prior.resolution) if held_out is None else held_out
    training = data.faces("train", prior.resolution) if training is None else training
    faces = {"held-out": held_out, "training": training}
    for name, x in faces.items():
        if x.shape[2:] != (prior.resolution, prior.resolution):
            raise ValueError(
                f"the prior draws {prior.resolution}² pixels; the {name} faces are {tuple(x.shape)}: resize them."
            )
    real = {f"{name}, {len(x)}": metrics.embed(x.to(prior.device), features) for name, x in faces.items()}
    scores, codes = [], {}
    for psi in psis:
        codes[psi] = prior.sample_w(samples, seed, psi)
        fake = torch.cat([metrics.embed(prior.synthesise(part), features) for part in codes[psi].split(32)])
        for name, code in real.items():
            kid, manifolds = metrics.kid(code, fake, subsets=None), metrics.precision_recall(code, fake, k)
            values = (*kid, metrics.fid(code, fake), *manifolds)
            scores.append(Score(psi, name, *(value.item() for value in values)))
        if psi == psis[0]:
            unseen, seen = real.values()
            nearest, of_held_out = (metrics.distances(code, seen).cpu().min(1) for code in (fake, unseen))
    return Fidelity(
        features if isinstance(features, str) else getattr(features, "__name__", type(features).__name__),
        scores,
        codes[psis[0]].cpu(),
        nearest.indices,
        nearest.values.float(),
        of_held_out.values.float(),
    )


@torch.no_grad()
def gaussianisation(prior: FacePrior, *, samples: int = 10_000, seed: int = 1_000_000) -> list[Gaussianity]:
    """Measure how Gaussian codes are after each Gaussianisation that the prior has.

    Z itself (the yardstick: what a true Gaussian of that many draws scores), W with each dimension standardised, by as
    many other codes, PULSE's fit, and the flow if there is one. The default seed's draws neither of them has seen.
    """
    check("samples", samples, int, at_least=2)

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        z = randomness.normal(randomness.generators(seed, samples), prior.z_dim).to(prior.device)
        return z, prior.generator.mapping(z)

    (z, w), (_, others) = draw(seed), draw(seed + 1)
    spaces = {"Z": z, "W, standardised": (w - others.mean(0)) / others.std(0), "PULSE": prior.pulse_gaussian.forward(w)}
    if prior.flow is not None:
        spaces["flow"] = torch.cat([prior.flow.gaussianise(part) for part in w.split(1000)])
    return [Gaussianity.of(space, v) for space, v in spaces.items()]
