"""Landmark networks: a face in, one heatmap for each of its 68 points out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib import images, messages
from facesr_lib.networks import checkpoints

POINTS = 68
_PAIRS = [(0, 16), (17, 26), (31, 35), (48, 54), (55, 59), (60, 64), (65, 67)]  # runs that the mirror reverses
_EYES = {36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46}
_SWAPPED = {i: first + last - i for first, last in _PAIRS for i in range(first, last + 1)}
_SWAPPED |= _EYES | {right: left for left, right in _EYES.items()}
MIRRORED = torch.tensor([_SWAPPED.get(i, i) for i in range(POINTS)])
"""Which of the 68 points each becomes in the mirror."""


class LandmarkNetwork(nn.Module):
    """Faces (N, 3, S, S) in [0, 1] → heatmaps (N, 68, 64, 64), where S is the ``side`` of those it has learnt from."""

    side: int

    def heatmaps(self, faces: Tensor) -> Tensor:
        """Look at faces of another size: (N, 3, R, R) in [0, 1] → (N, 68, 64, 64).

        Larger ones are made small by means of blocks; smaller ones are enlarged bilinearly, as for FAN in the authors'
        release.
        """
        mode = "bilinear" if images.check_batch(faces).shape[3] < self.side else "area"
        return self(F.interpolate(faces, (self.side, self.side), mode=mode))


class DistilledFAN(LandmarkNetwork):
    """The small landmark network that progressive face super-resolution distils from FAN (Kim et al. 2019).

    Five convolutions at full resolution and nothing else, 321,412 parameters where FAN-4 has 23,820,176. Parameter
    names are the authors'.

    Source: the official release; the paper's table 1 gives the parameters' number. Derived in chapter 7.
    """

    side = 64

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 5, padding=2)  # no activation follows
        parts: list[nn.Module] = []
        for n_in, n_out in ((32, 64), (64, 128), (128, 128)):
            parts += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.01)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(128, POINTS, 3, padding=1), nn.LeakyReLU(0.01))

    def forward(self, image: Tensor) -> Tensor:
        """Faces (N, 3, 64, 64) in [0, 1] → heatmaps (N, 68, 64, 64), peaks near 1, about 0 elsewhere."""
        return self.layers(self.conv(images.check_batch(image)))


class FAN(LandmarkNetwork):
    """Face alignment network, 2DFAN-4: four hourglasses, each of which sees what the one before it made of the face.

    23,820,176 parameters; their names are those of the authors' package face-alignment. It is the teacher of
    `DistilledFAN`.

    Source: Bulat & Tzimiropoulos 2017, sections 3 and 5.
    """

    side = 256

    def __init__(self, stacks: int = 4) -> None:
        super().__init__()
        self.stacks = stacks
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = _Pyramid(64, 128), _Pyramid(128, 128), _Pyramid(128, 256)
        block = partial(_Pyramid, 256, 256)
        for i in range(stacks):
            self.add_module(f"m{i}", Hourglass(block, 4, "b{branch}_{level}", "b2_plus_1", nn.AvgPool2d(2)))
            self.add_module(f"top_m_{i}", block())
            self.add_module(f"conv_last{i}", nn.Conv2d(256, 256, 1))
            self.add_module(f"bn_end{i}", nn.BatchNorm2d(256))
            self.add_module(f"l{i}", nn.Conv2d(256, POINTS, 1))
            if i < stacks - 1:
                self.add_module(f"bl{i}", nn.Conv2d(256, 256, 1))
                self.add_module(f"al{i}", nn.Conv2d(POINTS, 256, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Faces (N, 3, 256, 256) in [0, 1] → the last hourglass's heatmaps (N, 68, 64, 64); or multiples of 64."""
        x = F.relu(self.bn1(self.conv1(images.check_batch(image))))
        x = self.conv4(self.conv3(F.avg_pool2d(self.conv2(x), 2)))  # (N, 256, 64, 64)
        for i in range(self.stacks):
            names = ("m{}", "top_m_{}", "conv_last{}", "bn_end{}", "l{}")
            hourglass, top, last, normalise, heat = (self.get_submodule(name.format(i)) for name in names)
            seen = F.relu(normalise(last(top(hourglass(x)))))
            heatmaps = heat(seen)
            if i < self.stacks - 1:
                x = x + self.get_submodule(f"bl{i}")(seen) + self.get_submodule(f"al{i}")(heatmaps)
        return heatmaps


class _Pyramid(nn.Module):
    """Three 3×3 convolutions, each on the one before, whose outputs stand side by side; the input is added."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        widths = (n_in, n_out // 2, n_out // 4, n_out // 4)
        for i in (1, 2, 3):
            self.add_module(f"bn{i}", nn.BatchNorm2d(widths[i - 1]))
            self.add_module(f"conv{i}", nn.Conv2d(widths[i - 1], widths[i], 3, padding=1, bias=False))
        layers = nn.BatchNorm2d(n_in), nn.ReLU(), nn.Conv2d(n_in, n_out, 1, bias=False)
        self.downsample = nn.Identity() if n_in == n_out else nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for i in (1, 2, 3):
            normalise, convolve = self.get_submodule(f"bn{i}"), self.get_submodule(f"conv{i}")
            outputs.append(convolve(F.relu(normalise(outputs[-1]))))
        return torch.cat(outputs[1:], 1) + self.downsample(x)


class Hourglass(nn.Module):
    """See a feature map at ``depth`` more resolutions, each half of the one before, and add up what was seen.

    Its parts, which ``block`` makes, are named by their level and one of three branches, and one is the ``centre``;
    ``pool`` halves a map.
    """

    def __init__(self, block: Callable[[], nn.Module], depth: int, name: str, centre: str, pool: nn.Module):
        super().__init__()
        self.depth, self.name, self.centre, self.pool = depth, name, centre, pool
        for level, branch in product(range(depth, 0, -1), (1, 2)):
            self.add_module(name.format(level=level, branch=branch), block())
        self.add_module(centre, block())
        for level in range(1, depth + 1):
            self.add_module(name.format(level=level, branch=3), block())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W), sides multiples of 2^depth."""
        return self._level(x, self.depth)

    def _level(self, x: Tensor, level: int) -> Tensor:
        if level == 0:
            return self.get_submodule(self.centre)(x)
        kept, down, up = (self.get_submodule(self.name.format(level=level, branch=branch)) for branch in (1, 2, 3))
        low = self._level(down(self.pool(x)), level - 1)
        return kept(x) + F.interpolate(up(low), scale_factor=2)


def load(path: str | Path) -> LandmarkNetwork:
    """Read a landmark network, frozen and in evaluation mode.

    Ours (``.safetensors``), the official distilled one (``.pth``), or FAN as the package face-alignment has it (a
    state dict, or TorchScript whose program is not run).

    Errors as `checkpoints.load`'s.
    """

    def network(state: checkpoints.State, _: object) -> LandmarkNetwork:
        stacks = sum(name.endswith(".b2_plus_1.bn1.weight") for name in state)  # hourglasses
        return FAN(stacks) if stacks else DistilledFAN()

    return checkpoints.load(path, "landmark network", network).requires_grad_(False)


def peaks(heatmaps: Tensor) -> Tensor:
    """Where each heatmap is highest, to a fraction of a pixel: (N, P, H, W) → (x, y), (N, P, 2).

    The top of the parabola through the logarithms of the maximum and its two neighbours, which is exact for a Gaussian;
    (0, 0) is the centre of the top-left pixel.
    """
    messages.check_tensors("heatmaps, one for each point,", "(N, P, H, W)", heatmaps)
    width = heatmaps.shape[3]
    top = heatmaps.flatten(2).argmax(2)  # (N, P)
    y, x = top // width, top % width
    padded = F.pad(heatmaps.clamp_min(1e-6).log(), (1, 1, 1, 1), mode="replicate").flatten(2)

    def at(down: int, right: int) -> Tensor:
        index = (y + 1 + down) * (width + 2) + x + 1 + right
        return padded.gather(2, index[..., None])[..., 0]

    def offset(before: Tensor, after: Tensor) -> Tensor:
        return ((after - before) / (2 * (2 * at(0, 0) - before - after).clamp_min(1e-6))).clamp(-0.5, 0.5)

    return torch.stack([x + offset(at(0, -1), at(0, 1)), y + offset(at(-1, 0), at(1, 0))], 2)


def draw(points: Tensor, size: int, sigma: float = 2.0) -> Tensor:
    """Points as heatmaps: a Gaussian of height 1 at each, (N, P, 2) in pixels → (N, P, size, size)."""
    messages.check_tensors("points", "(..., 2)", points)
    at = torch.arange(size, device=points.device)
    x, y = (torch.exp(-((at - points[..., i, None]) ** 2) / (2 * sigma**2)) for i in (0, 1))  # (N, P, size)
    return y[..., :, None] * x[..., None, :]
