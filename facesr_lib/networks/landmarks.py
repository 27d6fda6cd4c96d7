"""Landmark networks: a face in, one heatmap for each of its 68 points out."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib.assets import unpickling

POINTS = 68


class DistilledFAN(nn.Module):
    """The small landmark network that progressive face super-resolution distils from FAN (Kim et al. 2019).

    Five convolutions at full resolution and nothing else, 321,412 parameters where FAN-4 has 23,820,176. Parameter
    names are the authors'.

    Notes
    -----
    Source: the official release; the paper's section 3.3 gives the parameters' number. Derived in chapter 7.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 5, padding=2)  # no activation follows
        parts: list[nn.Module] = []
        for n_in, n_out in ((32, 64), (64, 128), (128, 128)):
            parts += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.01)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(128, POINTS, 3, padding=1), nn.LeakyReLU(0.01))

    def forward(self, image: Tensor) -> Tensor:
        """Faces (N, 3, 64, 64) in [0, 1] → heatmaps (N, 68, 64, 64), peaks near 1, about 0 elsewhere."""
        return self.layers(self.conv(image))


def load(path: str | Path) -> DistilledFAN:
    """Read a landmark network, ours (``.safetensors``) or the official one (``.pth``): frozen, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is damaged, another network's, or wants to run something.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no landmark network at {path}: check the path.")
    network = DistilledFAN()
    try:
        ours = path.suffix == ".safetensors"
        state = load_file(path) if ours else unpickling.state_dict(unpickling.load(path))
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or another network's: {error}") from error
    if unexpected or not all(name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"{path} is another network's: its names are {', '.join(sorted(state)[:3])}, ….")
    return network.eval().requires_grad_(False)


def peaks(heatmaps: Tensor) -> Tensor:
    """Where each heatmap is highest, to a fraction of a pixel: (N, P, H, W) → (x, y), (N, P, 2).

    The top of the parabola through the logarithms of the maximum and its two neighbours, which is exact for a Gaussian;
    (0, 0) is the centre of the top-left pixel.
    """
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
    at = torch.arange(size, device=points.device)
    x, y = (torch.exp(-((at - points[..., i, None]) ** 2) / (2 * sigma**2)) for i in (0, 1))  # (N, P, size)
    return y[..., :, None] * x[..., None, :]
