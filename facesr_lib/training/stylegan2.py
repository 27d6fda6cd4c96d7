"""Train a face prior: StyleGAN2's losses and penalties, on a CPU, a GPU or several.

Karras et al. 2020, with ADA's treatment of small data (Karras et al. 2020b) or fixed differentiable augmentation.
The appendix "Growing a prior" shows what each part does.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib import data, images
from facesr_lib.networks import checkpoints
from facesr_lib.networks.stylegan2 import Discriminator, Generator
from facesr_lib.prior import FacePrior
from facesr_lib.training import loop
from facesr_lib.training.adversarial import adam, follow
from facesr_lib.training.augment import augment
from facesr_lib.training.base import Training
from facesr_lib.training.capture import Captured
from facesr_lib.training.config import Checked, within
from facesr_lib.training.processes import Processes, launch

PRIOR = "prior.safetensors"


@dataclass(frozen=True)
class Config(Checked):
    """Every choice of a training; the defaults made ``faces-64``."""

    resolution: int = within(64, among=(8, 16, 32, 64, 128, 256, 512, 1024))
    z_dim: int = within(128, at_least=1)
    w_dim: int = within(128, at_least=1)
    mapping_layers: int = within(8, at_least=1)
    channel_base: int = within(2048, at_least=1)
    channel_max: int = within(256, at_least=1)
    """The networks' sizes, as in `networks.stylegan2.Generator`."""
    lr: float = within(2.5e-3, at_least=0)
    """Adam's learning rate, with β = (0, 0.99); corrected for lazy regularisation."""
    r1_gamma: float = within(0.1, at_least=0)
    r1_interval: int = within(16, at_least=1)
    """Weight of the discriminator's gradient penalty, and on which steps it is computed ("lazy")."""
    path_weight: float = within(2.0, at_least=0)
    path_interval: int = within(8, at_least=1)
    """Weight of the path-length penalty, and on which steps."""
    mixing: float = within(0.9, at_least=0, at_most=1)
    """Probability that two codes share an image."""
    ema_images: int = within(10_000, at_least=0)
    ema_rampup: float = within(0.05, at_least=0)
    """Half-life of the moving average in images: at most the first, and this share of those seen."""
    augment: float = within(1.0, at_most=1)
    """Probability of each augmentation; negative: adaptive, so that D's mean sign on real images stays at
    ``target``."""
    target: float = within(0.6, at_least=-1, at_most=1)
    """Of the adaptive augmentation."""
    batch: int = within(32, at_least=1)

    def __post_init__(self) -> None:
        """Check every field, and that every resolution has channels."""
        super().__post_init__()
        if self.channel_base < self.resolution:
            raise ValueError(
                f"channel_base must be at least the resolution, {self.resolution}; got {self.channel_base}."
            )

    def generator(self) -> Generator:
        """A new generator of these sizes."""
        return Generator(
            self.z_dim, self.w_dim, self.resolution, self.channel_base, self.channel_max, self.mapping_layers
        )


class PriorTraining(Training[Config]):
    """StyleGAN2 in training: one turn of D, one of G, the moving average.

    A ``ValueError`` says that the images are not of the configured resolution or fewer than a batch, that the processes
    do not divide it, or that the prior to begin with has no discriminator or other sizes.

    Parameters
    ----------
    pixels : (N, R, R, 3)
        Training images, uint8 (`data.prepared`).
    start : FacePrior, optional
        Whose networks it begins with; default: random ones.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        config: Config,
        processes: Processes,
        start: FacePrior | None = None,
        bf16: bool = False,
    ):
        c, begun = config, None
        if pixels.shape[1:] != (c.resolution, c.resolution, 3):
            raise ValueError(f"images are {pixels.shape[2]}×{pixels.shape[1]}; {c.resolution}² were configured.")
        if len(pixels) < c.batch:
            raise ValueError(f"{len(pixels)} images, batches of {c.batch}: there must be at least one batch of images.")
        with c.seeded():  # the same start in every process
            generator = c.generator()
            discriminator = Discriminator(c.resolution, c.channel_base, c.channel_max)
        if start is not None:
            begun = nn.ModuleList([start.generator, start.require_discriminator("a training that goes on with it")])
            for ours, theirs in zip((generator, discriminator), begun, strict=True):
                checkpoints.fill(ours, theirs.state_dict(), f"the prior {start.name!r}").train()
        super().__init__(c, processes, bf16, seed=1000 * c.seed, faces=pixels, start=begun)
        self._pixels = pixels
        self.average = deepcopy(generator).eval().requires_grad_(False).to(self.device)
        self.generator, self.discriminator = generator.to(self.device), discriminator.to(self.device)
        generator.synthesis.precision = discriminator.precision = torch.bfloat16 if bf16 else torch.float32
        self.g_optimizer = adam(generator, c.lr, c.path_interval)
        self.d_optimizer = adam(discriminator, c.lr, c.r1_interval)
        self.path_mean, self.sign, self.augment_p = torch.zeros(3, device=self.device)
        self.augment_p.fill_(max(c.augment, 0.0))
        learning, measured = ("generator", "discriminator", "average"), ("path_mean", "sign", "augment_p")
        self.parts = {name: getattr(self, name) for name in (*learning, "g_optimizer", "d_optimizer", *measured)}
        both = (False, True)  # D's penalty and G's, on or off
        self._learn = {kind: Captured(partial(self.learn, *kind), self) for kind in product(both, both)}

    def step(self) -> dict[str, Tensor]:
        """One turn of D and one of G."""
        c, done = self._c, self.images_seen // self.batch
        losses = self._learn[done % c.r1_interval == 0, done % c.path_interval == 0](self.real())
        self.images_seen += c.batch
        follow(self.average, self.generator, c.batch, c.ema_images, self.images_seen, c.ema_rampup)
        if c.augment < 0:
            # ADA: towards full strength within half a million images while D is too sure of the real ones
            step = torch.where(self.sign > c.target, c.batch / 500_000, -c.batch / 500_000)
            self.augment_p.add_(step).clamp_(0, 1)
        return losses

    def learn(self, penalise_d: bool, penalise_g: bool, real: Tensor) -> dict[str, Tensor]:
        """Both turns on one batch, (n, 3, R, R)."""
        with self.turn(self.d_optimizer):
            losses = self.discriminate(real, penalise_d)
        with self.turn(self.g_optimizer, frozen=self.discriminator):
            return losses | self.generate(penalise_g)

    def discriminate(self, real: Tensor, penalise: bool) -> dict[str, Tensor]:
        """D's gradients: real (n, 3, R, R) from drawn, by the logistic loss, and the penalty R1."""
        with torch.no_grad():
            fake, _ = self._fake(self.share)
        real = real.detach().requires_grad_(penalise)
        fake_logits, real_logits = self._logits(fake), self._logits(real)
        loss = F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()
        self.sign.lerp_(self.processes.mean(real_logits.detach().sign().mean()), 0.05)
        losses = {"D": loss.detach(), "D sign": self.sign.clone()}
        if penalise:  # R1: the gradient at real images, squared (Mescheder et al. 2018)
            (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
            loss = loss + penalty * (self._c.r1_gamma / 2 * self._c.r1_interval)
        loss.backward()
        return losses

    def generate(self, penalise: bool) -> dict[str, Tensor]:
        """G's gradients: what D takes for real, and the penalty on path lengths."""
        fake, _ = self._fake(self.share)
        loss = F.softplus(-self._logits(fake)).mean()
        loss.backward()
        if penalise:
            # a step of fixed length in w should change the image by a fixed amount (Karras et al. 2020, eq. 4)
            fake, ws = self._fake(max(1, self.share // 2))
            direction = self.normal(*fake.shape) / sqrt(fake.shape[2] * fake.shape[3])
            (gradient,) = torch.autograd.grad((fake * direction).sum(), ws, create_graph=True)
            length = gradient.square().sum(2).mean(1).sqrt()  # (N / 2,)
            self.path_mean.lerp_(self.processes.mean(length.detach().mean()), 0.01)
            penalty = (length - self.path_mean).square().mean()
            (penalty * (self._c.path_weight * self._c.path_interval)).backward()
        return {"G": loss.detach(), "path length": self.path_mean.clone()}

    def _logits(self, image: Tensor) -> Tensor:
        return self.discriminator(augment(image, self.augment_p, self.noise))

    def _fake(self, n: int) -> tuple[Tensor, Tensor]:
        """Images (n, 3, R, R) and their codes (n, L, d), with style mixing and fresh noise."""
        mapping, layers = self.generator.mapping, self.generator.num_ws
        z, other = self.normal(2, n, self._c.z_dim)
        noise = [self.normal(n, 1, *layer.noise_const.shape) for layer in self.generator.synthesis.layers]
        w = mapping(z)
        mapping.w_avg.lerp_(self.processes.mean(w.detach().mean(0)), 0.005)
        cutoff = torch.randint(1, layers, (), generator=self.noise, device=w.device)
        mixed = torch.rand((), generator=self.noise, device=w.device) < self._c.mixing
        others = mixed & (torch.arange(layers, device=w.device) >= cutoff)  # (L,)
        ws = torch.where(others[:, None], mapping(other)[:, None], w[:, None])
        return self.generator.synthesis(ws, noise=noise), ws

    def real(self) -> Tensor:
        """A batch of training images in [−1, 1], each mirrored with probability one half."""
        index = torch.randint(len(self._pixels), (self.share,), generator=self.random)
        batch = torch.from_numpy(self._pixels[index.numpy()]).permute(0, 3, 1, 2)
        mirrored = torch.rand(self.share, generator=self.random) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        return batch.to(self.device, non_blocking=True).float() / 127.5 - 1

    def prior(self) -> FacePrior:
        """The moving average as a `FacePrior`."""
        return FacePrior("training", deepcopy(self.average), deepcopy(self.discriminator), device=self.device)

    def snapshot(self, folder: Path) -> None:
        """Write the average and 36 of its samples, always of the same z: ``samples-<images>.png``."""
        prior = self.prior()
        prior.save(folder / PRIOR, {"images_seen": str(self.images_seen)})
        faces, _ = prior.sample(36, seed=self._c.seed)
        images.write(images.grid(faces.cpu(), columns=9), folder / f"samples-{self.images_seen:09d}.png")


def train(
    faces: str | Path,
    folder: str | Path,
    config: Config,
    *,
    start: FacePrior | None = None,
    device: str = "auto",
    devices: int = 1,
    bf16: bool = False,
    **budget: Any,
) -> loop.Report:
    """Train a prior on a folder of aligned faces (`data.prepared`), as `PriorTraining`; its budget is `loop.fit`'s.

    The run's folder gets samples and ``prior.safetensors``, for `FacePrior.load`. It begins with the networks of
    ``start``, or random ones, in so many processes as ``devices`` says, one per GPU if there are GPUs; ``bf16``:
    convolutions in bfloat16. Errors are those of the functions that are named here, and of `launch`.
    """
    loop.check_budget(budget.get("hours"), budget.get("steps"))
    work = partial(_train, faces=faces, config=config, start=start, bf16=bf16, folder=folder, **budget)
    return launch(work, device=device, count=devices)


def _train(
    processes: Processes, faces: str | Path, config: Config, start: FacePrior | None, bf16: bool, **run: Any
) -> loop.Report:
    trainee = PriorTraining(data.prepared(faces, config.resolution), config, processes, start, bf16)
    return loop.fit(trainee, **run)
