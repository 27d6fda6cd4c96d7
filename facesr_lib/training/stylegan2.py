"""Train a face prior: StyleGAN2's losses and schedules, on Lightning Fabric (CPU, one GPU or several).

Karras et al. 2020, with ADA's treatment of small data (Karras et al. 2020b) or fixed differentiable augmentation.
The appendix "Growing a prior" shows what each part does.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib import data, images
from facesr_lib.networks.stylegan2 import Discriminator, Generator
from facesr_lib.prior import FacePrior
from facesr_lib.training import loop
from facesr_lib.training.augment import augment

PRIOR = "prior.safetensors"


@dataclass(frozen=True)
class Config:
    """Every choice of a training; the defaults made ``faces-64``.

    Attributes
    ----------
    resolution, z_dim, w_dim, mapping_layers, channel_base, channel_max
        The networks' sizes, as in `networks.stylegan2.Generator`.
    batch : int
        Images per step, over all processes.
    lr, d_interval_correction
        Adam's learning rate, β = (0, 0.99); both networks' are corrected for lazy regularisation.
    r1_gamma, r1_interval
        Weight of the discriminator's gradient penalty, and on which steps it is computed ("lazy").
    path_weight, path_interval
        Weight of the path-length penalty, and on which steps.
    mixing : float
        Probability that two codes share an image.
    ema_images, ema_rampup
        Half-life of the moving average in images: at most the first, and this share of those seen.
    augment : float
        Probability of each augmentation; negative: adaptive, so that D's mean sign on real images stays at ``target``.
    target : float
        Of the adaptive augmentation.
    seed : int
    """

    resolution: int = 64
    z_dim: int = 128
    w_dim: int = 128
    mapping_layers: int = 8
    channel_base: int = 2048
    channel_max: int = 256
    batch: int = 32
    lr: float = 2.5e-3
    r1_gamma: float = 0.1
    r1_interval: int = 16
    path_weight: float = 2.0
    path_interval: int = 8
    mixing: float = 0.9
    ema_images: int = 10_000
    ema_rampup: float = 0.05
    augment: float = 1.0
    target: float = 0.6
    seed: int = 0


class PriorTraining:
    """StyleGAN2 in training: one `step` for D, one for G, the moving average.

    Parameters
    ----------
    pixels : (N, R, R, 3)
        Training images, uint8 (`data.prepared`).
    config : Config
    fabric : lightning_fabric.Fabric
        Device and processes.
    precision : torch.dtype
        Of the convolutions; ``torch.bfloat16`` where the hardware has it.

    Raises
    ------
    ValueError
        If the images are not of the configured resolution, or fewer than a batch.
    """

    finished = False  # a GAN has no loss that says so

    def __init__(self, pixels: np.ndarray, config: Config, fabric: Any, precision: torch.dtype = torch.float32):
        if pixels.shape[1:] != (config.resolution, config.resolution, 3):
            raise ValueError(f"images are {pixels.shape[1]}×{pixels.shape[2]}; {config.resolution}² were configured.")
        if config.batch % fabric.world_size or len(pixels) < config.batch:
            raise ValueError(
                f"{len(pixels)} images, batches of {config.batch}, {fabric.world_size} processes: there must be at "
                "least one batch of images, and the processes must divide it."
            )
        self.config = asdict(config)
        self._c, self._pixels, self._fabric = config, pixels, fabric
        self._n = config.batch // fabric.world_size
        self.images_seen = 0
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)  # the same start in every process
            generator = Generator(
                config.z_dim,
                config.w_dim,
                config.resolution,
                config.channel_base,
                config.channel_max,
                config.mapping_layers,
            )
            discriminator = Discriminator(config.resolution, config.channel_base, config.channel_max)
        self.average = deepcopy(generator).eval().requires_grad_(False).to(fabric.device)
        self._generator, self._discriminator = generator.to(fabric.device), discriminator.to(fabric.device)
        generator.synthesis.precision = discriminator.precision = precision
        self._g_optimizer = self._adam(generator, config.path_interval)
        self._d_optimizer = self._adam(discriminator, config.r1_interval)
        self._path_mean = torch.zeros((), device=fabric.device)
        self._sign = torch.zeros((), device=fabric.device)
        self.augment_p = max(config.augment, 0.0)
        self._random = torch.Generator().manual_seed(config.seed * 1000 + fabric.global_rank)

    def _adam(self, network: nn.Module, interval: int) -> torch.optim.Adam:
        # A penalty on every k-th step counts k-fold there; Adam is told of k + 1 updates in k steps.
        ratio = interval / (interval + 1)
        return torch.optim.Adam(network.parameters(), lr=self._c.lr * ratio, betas=(0.0, 0.99**ratio))

    def start_from(self, prior: FacePrior) -> None:
        """Begin with another prior's networks; a ``ValueError`` if it has no discriminator or other sizes."""
        if prior.discriminator is None:
            raise ValueError(f"the prior {prior.name!r} has no discriminator to go on with.")
        try:
            for network in (self._generator, self.average):
                network.load_state_dict(prior.generator.state_dict())
            self._discriminator.load_state_dict(prior.discriminator.state_dict())
        except RuntimeError as error:
            raise ValueError(f"the prior {prior.name!r} is of another size than configured: {error}") from error

    def step(self) -> dict[str, Tensor]:
        """One step of D and one of G."""
        index = self.images_seen // self._c.batch
        losses = self._discriminator_step(penalise=index % self._c.r1_interval == 0)
        losses |= self._generator_step(penalise=index % self._c.path_interval == 0)
        self.images_seen += self._c.batch
        self._update_average()
        if self._c.augment < 0:
            # ADA: towards full strength within half a million images while D is too sure of the real ones
            direction = 1 if losses["D sign"] > self._c.target else -1
            self.augment_p = min(max(self.augment_p + direction * self._c.batch / 500_000, 0.0), 1.0)
        return losses

    def _discriminator_step(self, penalise: bool) -> dict[str, Tensor]:
        self._d_optimizer.zero_grad()
        with torch.no_grad():
            fake, _ = self._fake(self._n)
        real = self._real().requires_grad_(penalise)
        fake_logits, real_logits = self._logits(fake), self._logits(real)
        loss = F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()
        self._sign.lerp_(self._mean(real_logits.detach().sign().mean()), 0.05)
        losses = {"D": loss.detach(), "D sign": self._sign.clone()}
        if penalise:  # R1: the gradient at real images, squared (Mescheder et al. 2018)
            (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
            loss = loss + penalty * (self._c.r1_gamma / 2 * self._c.r1_interval)
        loss.backward()
        self._descend(self._discriminator, self._d_optimizer)
        return losses

    def _generator_step(self, penalise: bool) -> dict[str, Tensor]:
        self._g_optimizer.zero_grad()
        self._discriminator.requires_grad_(False)
        fake, _ = self._fake(self._n)
        loss = F.softplus(-self._logits(fake)).mean()
        loss.backward()
        self._discriminator.requires_grad_(True)
        if penalise:
            # a step of fixed length in w should change the image by a fixed amount (Karras et al. 2020, eq. 4)
            fake, ws = self._fake(max(1, self._n // 2))
            direction = self._normal(*fake.shape) / sqrt(fake.shape[2] * fake.shape[3])
            (gradient,) = torch.autograd.grad((fake * direction).sum(), ws, create_graph=True)
            length = gradient.square().sum(2).mean(1).sqrt()  # (N / 2,)
            self._path_mean.lerp_(self._mean(length.detach().mean()), 0.01)
            penalty = (length - self._path_mean).square().mean()
            (penalty * (self._c.path_weight * self._c.path_interval)).backward()
        self._descend(self._generator, self._g_optimizer)
        return {"G": loss.detach(), "path length": self._path_mean.clone()}

    def _descend(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Average the gradients over the processes, then step."""
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad = self._mean(parameter.grad)
        optimizer.step()

    def _mean(self, x: Tensor) -> Tensor:
        """Average over the processes, so that all of them hold the same networks and statistics."""
        return x if self._fabric.world_size == 1 else self._fabric.all_reduce(x, reduce_op="mean")

    @torch.no_grad()
    def _update_average(self) -> None:
        half_life = min(self._c.ema_images, self.images_seen * self._c.ema_rampup)
        beta = 0.5 ** (self._c.batch / max(half_life, 1e-8))
        for average, live in zip(self.average.parameters(), self._generator.parameters(), strict=True):
            average.lerp_(live, 1 - beta)
        for kept, buffer in zip(self.average.buffers(), self._generator.buffers(), strict=True):
            kept.copy_(buffer)

    def _logits(self, image: Tensor) -> Tensor:
        return self._discriminator(augment(image, self.augment_p, self._random))

    def _fake(self, n: int) -> tuple[Tensor, Tensor]:
        """Images (n, 3, R, R) and their codes (n, L, d), with style mixing and fresh noise."""
        mapping, layers = self._generator.mapping, self._generator.num_ws
        z, other = self._normal(2, n, self._c.z_dim)
        noise = [self._normal(n, 1, *layer.noise_const.shape) for layer in self._generator.synthesis.layers]
        w = mapping(z)
        mapping.w_avg.lerp_(self._mean(w.detach().mean(0)), 0.005)
        ws = w[:, None].expand(-1, layers, -1)
        if torch.rand((), generator=self._random).item() < self._c.mixing:
            cutoff = int(torch.randint(1, layers, (), generator=self._random))
            ws = torch.cat([ws[:, :cutoff], mapping(other)[:, None].expand(-1, layers - cutoff, -1)], 1)
        return self._generator.synthesis(ws, noise=noise), ws

    def _real(self) -> Tensor:
        """A batch of training images in [−1, 1], each mirrored with probability one half."""
        index = torch.randint(len(self._pixels), (self._n,), generator=self._random)
        batch = torch.from_numpy(self._pixels[index.numpy()]).permute(0, 3, 1, 2)
        mirrored = torch.rand(self._n, generator=self._random) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        return batch.to(self._fabric.device, non_blocking=True).float() / 127.5 - 1

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._random).to(self._fabric.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, statistics and the random state."""
        return {
            "generator": self._generator.state_dict(),
            "discriminator": self._discriminator.state_dict(),
            "average": self.average.state_dict(),
            "g_optimizer": self._g_optimizer.state_dict(),
            "d_optimizer": self._d_optimizer.state_dict(),
            "path_mean": self._path_mean,
            "sign": self._sign,
            "augment_p": self.augment_p,
            "images_seen": self.images_seen,
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called."""
        self._generator.load_state_dict(state["generator"])
        self._discriminator.load_state_dict(state["discriminator"])
        self.average.load_state_dict(state["average"])
        self._g_optimizer.load_state_dict(state["g_optimizer"])
        self._d_optimizer.load_state_dict(state["d_optimizer"])
        self._path_mean.copy_(state["path_mean"])
        self._sign.copy_(state["sign"])
        self.augment_p, self.images_seen = state["augment_p"], state["images_seen"]
        if self._fabric.world_size == 1:
            self._random.set_state(state["random"])
        else:  # one state was kept for all processes: go on with numbers that none of them has drawn
            self._random.manual_seed(self._c.seed * 1000 + self._fabric.global_rank + 7919 * self.images_seen)

    def prior(self) -> FacePrior:
        """The moving average as a `FacePrior`."""
        return FacePrior("training", deepcopy(self.average), deepcopy(self._discriminator), device=self._fabric.device)

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
    hours: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start: FacePrior | None = None,
    devices: int = 1,
    bf16: bool = False,
    progress: bool = True,
) -> loop.Report:
    """Train a prior on a folder of aligned faces.

    Parameters
    ----------
    faces : path
        Pictures of any size; they are cropped square and resized.
    folder : path
        Of the run: checkpoint, log, samples, and ``prior.safetensors`` for `FacePrior.load`.
    config : Config
    hours, steps, resume
        As in `loop.fit`.
    start : FacePrior, optional
        Networks to begin with instead of random ones.
    devices : int
        Processes, one per GPU if there are GPUs.
    bf16 : bool
        Convolutions in bfloat16.
    progress : bool
        Show a progress bar.

    Raises
    ------
    FileNotFoundError, ValueError, Diverged, OSError
        As `data.prepared`, `PriorTraining` and `loop.fit`.
    """
    from lightning_fabric import Fabric

    pixels = data.prepared(faces, config.resolution)
    fabric = Fabric(accelerator="auto", devices=devices)
    fabric.launch()
    trainee = PriorTraining(pixels, config, fabric, precision=torch.bfloat16 if bf16 else torch.float32)
    if start is not None:
        trainee.start_from(start)
    return loop.fit(trainee, folder, hours=hours, steps=steps, resume=resume, fabric=fabric, progress=progress)
