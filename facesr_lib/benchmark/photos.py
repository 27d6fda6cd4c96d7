"""How fast are photographs: faces made poor for a training, and a whole photograph restored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from facesr_lib import images
from facesr_lib.benchmark import clock
from facesr_lib.degrade import CameraPipeline
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import detection, restore_photo
from facesr_lib.restoration.alignment import align, paste_

FACES, BATCH = 10, 64


def run(
    device: str = "auto", quick: bool = False, prior: str = "faces-64", size: tuple[int, int] = (3000, 4000)
) -> list[dict[str, Any]]:
    """Measure the camera pipeline on faces of 128², and the parts of `restore_photo` by the parsing network's picture.

    The photograph, of ``size`` (height, width), shows ten faces, samples of ``prior`` (registry name or checkpoint).
    """
    ours = FacePrior.load(prior, device)
    faces = images.resize(ours.sample(BATCH, seed=1)[0], (128, 128)).clamp(0, 1)
    camera, picture = CameraPipeline(), _group(faces[:FACES].cpu(), *size)
    (poor,) = clock.medians([lambda: camera(faces)], ours.device, 3 if quick else 7)
    rows = [_row("camera pipeline, 128²", BATCH, poor, clock.peak_megabytes(lambda: camera(faces), ours.device))]
    found: list[detection.Found] = []
    steps: dict[str, clock.Work] = {
        "finding": lambda: found.extend(detection.find(picture)),
        "restoring, ×2": lambda: restore_photo(picture, "fpn", prior=ours, faces=found, progress=False),
    }
    for name, step in steps.items():
        times: list[float] = []
        memory = clock.peak_megabytes(lambda: times.append(clock.seconds(step, ours.device)), torch.device("cpu"))  # noqa: B023
        what = f"{name}, {size[0] * size[1] / 1e6:.2g} megapixels"
        rows.append(_row(what, len(found), times[0], memory))
    return rows


def _row(what: str, faces: int, seconds: float, memory: float) -> dict[str, Any]:
    each = {"photographs": what, "faces": faces, "seconds": f"{seconds:.2f}"}
    return each | {"faces per second": f"{faces / seconds:.1f}", "peak MB": f"{memory:.0f}"}


def _group(faces: Tensor, height: int, width: int) -> Tensor:
    """Faces framed as FFHQ's, in two rows before a smooth background: (3, height, width)."""
    picture = torch.linspace(0.3, 0.7, width).expand(3, height, width).contiguous()
    size, columns = width / (len(faces) / 2 + 1), (len(faces) + 1) // 2
    for i, face in enumerate(faces):
        corner = torch.tensor([(i % columns + 0.1) * width / columns, (0.1 + 0.45 * (i // columns)) * height])
        _, transform = align(picture, detection.MEAN * size + corner, 1)
        paste_(picture, face, transform)
    return picture
