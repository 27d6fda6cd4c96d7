"""What befell a poor photograph: the random pipeline of PSFR-GAN (Chen et al. 2021, eq. 12), as its code runs it."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from facesr_lib import devices, images, messages, randomness
from facesr_lib.degrade import opencv
from facesr_lib.degrade.downsample import check_pixels, require

REFERENCE = 512  # side of the pictures to which the paper's pixels belong
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Choices:
    """What befalls N pictures: a tensor (N,) for each choice, on the CPU. Lengths are pixels of a 512² picture."""

    grey: Tensor  # bool: whether it loses its colours; its target does too
    blur: Tensor  # int: index into `opencv.BLURS`
    extent: Tensor  # float: σ of a Gaussian, side of the kernel of the other blurs
    angle: Tensor  # float: of a motion, in degrees
    direction: Tensor  # float: how the light is spread along its line, −1 to 1 (0: evenly)
    side: Tensor  # int: to which the picture is made small
    kernel: Tensor  # int: index into `opencv.RESIZES`, how it is made small
    noise: Tensor  # float: standard deviation, where pixels are in [0, 1]; 0: none
    coloured: Tensor  # bool: whether every channel has noise of its own
    seed: Tensor  # int: of the noise
    compression: Tensor  # int: of JPEG, 1 to 100, strongest last; 0: none

    def __len__(self) -> int:
        """N."""
        return len(self.grey)

    def __getitem__(self, index: slice | list[int]) -> Choices:
        """Those of some of the pictures."""
        return Choices(*(getattr(self, each.name)[index] for each in fields(self)))

    @property
    def quality(self) -> Tensor:
        """JPEG's quality, 1 to 100, where there is compression."""
        return (1 + 99 * (1 - self.compression / 101)).round().int()

    def sides(self, size: int) -> Tensor:
        """Sides of the small pictures in pixels, where the large ones are ``size``² and not 512²."""
        return (self.side * size / REFERENCE).round().clamp_min(1).long()

    def sentences(self) -> list[str]:
        """Tell what befell each picture, in the order of the stages."""
        return [self._sentence(i) for i in range(len(self))]

    def _sentence(self, i: int) -> str:
        blur, extent, said = opencv.BLURS[self.blur[i]], float(self.extent[i]), []
        if self.grey[i]:
            said.append("made grey")
        if blur == "gaussian":
            said.append(f"Gaussian blur, σ = {extent:.1f}")
        elif blur != "none":
            at = f" at {float(self.angle[i]):.0f}°" if blur == "motion" else ""
            said.append(f"{blur} blur of {extent:.0f} pixels{at}")
        said.append(f"made small to {int(self.side[i])} of {REFERENCE} ({opencv.RESIZES[self.kernel[i]]})")
        if self.noise[i] > 0:
            colour = "coloured" if self.coloured[i] else "grey"
            said.append(f"{colour} noise of {255 * float(self.noise[i]):.1f} levels")
        if self.compression[i] > 0:
            said.append(f"JPEG of quality {int(self.quality[i])}")
        return ", ".join(said) + "."


@dataclass
class CameraPipeline:
    r"""Make poor photographs of faces: I_L = ((I_H ⊗ k_ϱ)↓_r + n_δ)_JPEG_q, each at random.

    Grey (the target too) → one of four blurs → small → noise → JPEG → enlarged again; each stage rounds to 8 bits.
    Lengths are pixels of a 512² picture, as in the paper; on another size they shrink or grow with it: a blur's kernel
    is drawn for 512² and carried over by area, the median's side and the small picture's are rounded.

    A ``ValueError`` names a range or a probability that makes no sense. After a call, ``choices`` says what befell the
    pictures.

    Source: Chen et al. 2021, appendix B, and the official code, which is what imgaug and OpenCV do: the text names
    neither grey pictures nor probabilities, and blurs, makes noise and compresses always. Derived in chapter 10.
    """

    seed: randomness.Seed = 0  # image i draws from (seed, i): see `randomness.generators`
    gaussian: tuple[float, float] = (3.0, 15.0)  # σ of the Gaussian blur, evenly between the two
    average: tuple[int, int] = (3, 15)  # side of the kernel, both ends included
    median: tuple[int, int] = (3, 15)  # the same; an even side becomes one more
    motion: tuple[int, int] = (5, 25)  # as the median's
    side: tuple[int, int] = (32, 256)  # the last excluded, as in the official code, which never draws the paper's 256
    noise: tuple[float, float] = (0.0, 0.1)  # its standard deviation, in [0, 1]
    compression: tuple[float, float] = (10.0, 65.0)  # JPEG's, cut to a whole number: qualities of 90 to 37
    grey_p: float = 0.3  # probability of each; the paper gives none
    blur_p: float = 0.5
    noise_p: float = 0.2
    coloured_p: float = 0.5
    jpeg_p: float = 0.7

    def __post_init__(self) -> None:
        """Check every range."""
        self.choices: Choices | None = None
        bounds = {"gaussian": (0.1, 100), "average": (1, 255), "median": (1, 255), "motion": (2, 255)}
        bounds |= {"side": (1, REFERENCE + 1), "noise": (0, 1), "compression": (1, 101)}
        for name, (least, most) in bounds.items():
            ends, whole = getattr(self, name), int if name in ("average", "median", "motion", "side") else float
            fits = isinstance(ends, Sequence) and len(ends) == 2 and all(messages.is_number(end, whole) for end in ends)
            fits = fits and least <= ends[0] <= ends[1] <= most and (name != "side" or ends[0] < ends[1])
            kind = "whole numbers" if whole is int else "numbers"
            require(fits, f"{name} is a range, two {kind} between {least} and {most}, first end first; got {ends!r}.")
        for name in ("grey_p", "blur_p", "noise_p", "coloured_p", "jpeg_p"):
            messages.check(f"the probability {name}", getattr(self, name), at_least=0, at_most=1)

    def __call__(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Faces (N, 3, S, S) in [0, 1] → poor photographs, and the faces, grey where these are; multiples of 1/255."""
        self.choices = choices = self.choose(len(images.check_batch(faces)))  # another thread may draw its own
        at = stages(faces, choices)
        return at["enlarged"], at["grey"]

    @devices.undisturbed()
    def choose(self, n: int) -> Choices:
        """Draw what befalls ``n`` pictures."""
        require(n > 0, "there is no picture to make poor: give at least one.")
        draws = randomness.generators(self.seed, n)
        u = torch.stack([torch.rand(14, generator=each, dtype=torch.float64) for each in draws], 1)  # (14, N)

        def between(ends: tuple[float, float], dice: Tensor) -> Tensor:
            return ends[0] + (ends[1] - ends[0]) * dice

        def whole(ends: tuple[int, int], dice: Tensor) -> Tensor:
            return (ends[0] + (ends[1] - ends[0] + 1) * dice).floor()

        odd = [whole(ends, u[3]) // 2 * 2 + 1 for ends in (self.median, self.motion)]
        extents = [torch.zeros_like(u[3]), between(self.gaussian, u[3]), whole(self.average, u[3]), *odd]
        blur = torch.where(u[1] < self.blur_p, 1 + (4 * u[2]).long(), 0)
        return Choices(
            grey=u[0] < self.grey_p,
            blur=blur,
            extent=torch.stack(extents).gather(0, blur[None])[0],
            angle=360 * u[4],
            direction=2 * u[5] - 1,
            side=whole((self.side[0], self.side[1] - 1), u[6]).long(),
            kernel=(4 * u[7]).long(),
            noise=torch.where(u[8] < self.noise_p, between(self.noise, u[9]), 0),
            coloured=u[10] < self.coloured_p,
            seed=(2**48 * u[11]).long(),
            compression=torch.where(u[12] < self.jpeg_p, between(self.compression, u[13]).long(), 0),
        )


@devices.undisturbed()
@torch.no_grad()
def stages(faces: Tensor, choices: Choices) -> dict[str, Tensor]:
    """Let choices befall pictures, stage by stage.

    Faces (N, 3, S, S) in [0, 1] and N choices, drawn by `CameraPipeline.choose` or made by hand → "grey", "blurred",
    "small", "noisy", "compressed", "enlarged": pictures in [0, 1], whole multiples of 1/255. The small ones, of
    different sides, lie in the top left corner of equal squares: see `Choices.sides`. A ``ValueError`` says that these
    are no pictures, not square, or not as many as choices.
    """
    n, _, size, width = check_pixels(faces).shape
    square = size == width and n == len(choices)
    require(square, f"{len(choices)} choices need as many squares; got {n} {width}×{size}.")
    device, sides = faces.device, choices.sides(size)
    x = _levels(255 * faces.float())
    grey = _levels((x * x.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True))
    x = torch.where(choices.grey.to(device).view(-1, 1, 1, 1), grey, x)
    done = {"grey": x}
    done["blurred"] = x = _blur(x, choices)
    full, each, largest = torch.full((n,), size, device=device), sides.to(device), int(sides.max())
    down = opencv.resizing(full, each, size, largest, choices.kernel.to(device))  # (N, 1, largest, S)
    done["small"] = x = _levels(down @ x @ down.mT)
    done["noisy"] = x = _levels(x + _noise(choices, sides, largest).to(device))
    done["compressed"] = x = _compress(x, choices, sides)
    cubic = torch.full_like(each, opencv.RESIZES.index("cubic"))
    up = opencv.resizing(each, full, largest, size, cubic)  # (N, 1, S, largest)
    done["enlarged"] = _levels(up @ x @ up.mT)
    return {name: value / 255 for name, value in done.items()}


def _levels(x: Tensor) -> Tensor:
    """As 8 bits keep it."""
    return x.round().clamp(0, 255)


def _blur(x: Tensor, choices: Choices) -> Tensor:
    """(N, 3, S, S) in levels, some of them blurred."""
    x, size = x.clone(), x.shape[2]
    names = [opencv.BLURS[b] for b in choices.blur.tolist()]
    convolved = [i for i, name in enumerate(names) if name not in ("none", "median")]
    if convolved:
        c = choices[convolved]
        kernels = opencv.blur_kernels(c.blur, c.extent, c.angle, c.direction)
        kernels = opencv.carried_over(kernels, size / REFERENCE).to(x)  # (n, k, k)
        border = kernels.shape[1] // 2
        padded = F.pad(x[convolved], (border,) * 4, "reflect").transpose(0, 1)  # (3, n, ·, ·): a group is a picture
        x[convolved] = _levels(F.conv2d(padded, kernels[:, None], groups=len(convolved)).transpose(0, 1))
    windows: dict[int, list[int]] = {}
    for i in (i for i, name in enumerate(names) if name == "median"):
        half = round((float(choices.extent[i]) * size / REFERENCE - 1) / 2)  # of an odd side, as near as can be
        windows.setdefault(half, []).append(i)
    for half, same in windows.items():
        x[same] = opencv.median(x[same], half) if half > 0 else x[same]
    return x


def _noise(choices: Choices, sides: Tensor, largest: int) -> Tensor:
    """Whole levels (N, 3, largest, largest), each picture's from its own seed."""
    field = torch.zeros(len(choices), 3, largest, largest)
    for i in choices.noise.nonzero()[:, 0].tolist():
        side, draws = int(sides[i]), Generator().manual_seed(int(choices.seed[i]))
        white = torch.randn(3 if choices.coloured[i] else 1, side, side, generator=draws)
        field[i, :, :side, :side] = (255 * float(choices.noise[i]) * white).round()
    return field


def _compress(x: Tensor, choices: Choices, sides: Tensor) -> Tensor:
    """JPEG itself, as libjpeg compresses: (N, 3, ·, ·) in levels, by a pool of threads on the CPU."""
    levels, quality = x.to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy(), choices.quality.tolist()

    def compress(i: int) -> None:
        corner, file = levels[i, : sides[i], : sides[i]], io.BytesIO()
        Image.fromarray(np.ascontiguousarray(corner)).save(file, "JPEG", quality=quality[i])
        corner[:] = np.asarray(Image.open(file))

    list(_pool(os.getpid()).map(compress, choices.compression.nonzero()[:, 0].tolist()))
    return torch.from_numpy(levels).permute(0, 3, 1, 2).to(x)


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: one that was forked has none of its parent's, and would wait for ever."""
    return ThreadPoolExecutor(devices.cores())
