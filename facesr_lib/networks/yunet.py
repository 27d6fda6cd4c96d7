"""YuNet, a face detector of 75,856 parameters: a photograph in, boxes, five points and scores out."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facesr_lib.networks import checkpoints

STRIDES = (8, 16, 32)
_CHANNELS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # what each place says


class YuNet(nn.Module):
    """Five stages that halve a photograph, three levels that look for faces of three sizes.

    Parameter names are the authors'.

    Source: Wu, Peng & Yu 2023, YuNet: a tiny millisecond-level face detector, section 3; the official release (n).
    """

    def __init__(self) -> None:
        super().__init__()
        stem = OrderedDict(conv1=nn.Conv2d(3, 16, 3, stride=2, padding=1), bn1=nn.BatchNorm2d(16), relu1=nn.ReLU())
        stages: OrderedDict[str, nn.Module] = OrderedDict(model0=nn.Sequential(stem | {"conv2": _unit(16, 16)}))
        for i, n_in in enumerate((16, 64, 64, 64, 64), start=1):
            stages[f"model{i}"] = nn.Sequential(OrderedDict(conv1=_unit(n_in, n_in), conv2=_unit(n_in, 64)))
        self.backbone = nn.Sequential(stages)
        self.neck = nn.Module()
        self.neck.lateral_convs = nn.ModuleList(_unit(64, 64) for _ in STRIDES)
        self.bbox_head = nn.Module()
        self.bbox_head.multi_level_share_convs = nn.ModuleList(nn.Sequential(_unit(64, 64)) for _ in STRIDES)
        for name, n in _CHANNELS.items():
            heads = nn.ModuleList(_unit(64, n, head=True) for _ in STRIDES)
            self.bbox_head.add_module(f"multi_level_{name}", heads)

    def forward(self, image: Tensor) -> dict[str, list[Tensor]]:
        """Look for faces in pictures (N, 3, H, W) in [0, 1], whose sides are multiples of 32.

        → "cls", "obj" (logits), "bbox" and "kps": a map (N, 1 | 4 | 10, H / s, W / s) for each stride s of 8, 16, 32.
        """
        x, levels = 255 * image.flip(1), []  # the official network takes BGR, 0 to 255
        for i, stage in enumerate(self.backbone):
            x = stage(x)
            if i >= 3:
                levels.append(x)
            if i in (0, 2, 3, 4):
                x = F.max_pool2d(x, 2)
        # from the coarsest level down, each is given what the one above it saw
        for i in (2, 1, 0):
            levels[i] = self.get_submodule(f"neck.lateral_convs.{i}")(levels[i])
            if i:
                levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], scale_factor=2)
        head = self.bbox_head
        seen = [head.get_submodule(f"multi_level_share_convs.{i}")(x) for i, x in enumerate(levels)]
        return {
            name: [head.get_submodule(f"multi_level_{name}.{i}")(x) for i, x in enumerate(seen)] for name in _CHANNELS
        }

    @torch.no_grad()
    def detect(self, image: Tensor, *, score: float = 0.7, overlap: float = 0.3) -> Tensor:
        """Find the faces of one photograph (3, H, W) in [0, 1], by a ``score`` from which on a face counts.

        (K, 15), most certain first: left, top, width, height; (x, y) of two eyes, nose, two mouth corners, each from
        the picture's left; score. In pixels, (0, 0) the centre of the top-left one. Of two boxes that share more than
        ``overlap`` (intersection over union), the less certain is dropped.
        """
        _, height, width = image.shape
        maps = self(F.pad(image[None], (0, -width % 32, 0, -height % 32)))
        found = []
        for level, s in enumerate(STRIDES):
            cls, obj, box, points = (maps[name][level][0].flatten(1) for name in _CHANNELS)  # (channels, cells)
            columns = maps["cls"][level].shape[3]
            index = torch.arange(cls.shape[1], device=cls.device)
            cell = torch.stack([index % columns, index // columns])  # (2, cells)
            # centre (cell + Δ) · s, side exp(·) · s, points (cell + Δ) · s, score √(σ(cls) σ(obj))
            centre, side = (cell + box[:2]) * s, box[2:].exp() * s
            points = (cell.repeat(5, 1) + points) * s
            certain = (cls.sigmoid() * obj.sigmoid()).sqrt()
            found.append(torch.cat([centre - side / 2, side, points, certain]).T)
        faces = torch.cat(found)
        return distinct(faces[faces[:, 14] >= score], overlap)


def distinct(faces: Tensor, overlap: float) -> Tensor:
    """Of rows as `YuNet.detect`'s, the most certain first, drop those whose box a more certain one covers."""
    from torchvision.ops import nms  # takes seconds

    boxes = torch.cat([faces[:, :2], faces[:, :2] + faces[:, 2:4]], 1)
    return faces[nms(boxes, faces[:, 14], overlap)]


def _unit(n_in: int, n_out: int, head: bool = False) -> nn.Sequential:
    """A 1×1 convolution, a 3×3 one for each channel alone, and, but in heads, batch norm and ReLU."""
    layers = [("conv1", nn.Conv2d(n_in, n_out, 1)), ("conv2", nn.Conv2d(n_out, n_out, 3, padding=1, groups=n_out))]
    after = [] if head else [("bn", nn.BatchNorm2d(n_out)), ("relu", nn.ReLU())]
    return nn.Sequential(OrderedDict([*layers, *after]))


def load(path: str | Path) -> YuNet:
    """Read the detector's weights: frozen, in evaluation mode; errors as `checkpoints.load`'s."""
    return checkpoints.load(path, "YuNet", lambda *_: YuNet()).requires_grad_(False)
