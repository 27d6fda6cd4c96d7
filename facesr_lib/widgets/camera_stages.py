"""A poor photograph of one face, and a slider for each thing that befell it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from traitlets import Dict, Float, Int, List, Unicode

from facesr_lib import images, metrics
from facesr_lib.degrade import camera, opencv
from facesr_lib.widgets.figure import Album, numbers, pictures, rounded, script

LARGEST = 128  # pixels per side that a picture of the sheet has
MOST = 256  # pictures


class CameraStages(Album):
    """Grey, blur, small side, noise and JPEG, a slider each: what they leave of a face, as `CameraPipeline` makes it.

    Every combination is photographed before: the figure carries them all and needs no kernel. A ``ValueError`` says
    that the face is no square picture, a slider has no value, or there are more than 256 combinations.

    Parameters
    ----------
    face : (3, S, S) or (1, 3, S, S)
        In [0, 1]. Lengths below are pixels of a 512² picture, as everywhere in the pipeline.
    blurs : sequence of float
        σ of the Gaussian; 0: none.
    sides : sequence of int
        Of the small picture, which is made by area.
    noises : sequence of float
        Standard deviation in grey levels, in every channel its own; 0: none.
    compressions : sequence of int
        Of JPEG, 1 to 100, strongest last; 0: none.
    seed : int
        Of the noise.
    **words
        ``alt``, ``title`` and ``caption``, as of every `Figure`.

    Attributes
    ----------
    grey, blur, side, noise, jpeg : int
        Which of the values is shown; they follow the reader's hand, and can be set and linked.
    """

    _esm = script("chart.js", "camera_stages.js")

    stages = List(Dict(), help="Per slider: its trait, its name, and what it says at each value.").tag(sync=True)
    told = List(Unicode(), help="What befell each picture of the sheet but the first, the face itself.").tag(sync=True)
    psnr = List(Float(), help="Of each of them, in dB.").tag(sync=True)
    grey = Int(0, min=0).tag(sync=True)
    blur = Int(0, min=0).tag(sync=True)
    side = Int(0, min=0).tag(sync=True)
    noise = Int(0, min=0).tag(sync=True)
    jpeg = Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        face: Tensor,
        *,
        blurs: Sequence[float] = (0, 5, 12),
        sides: Sequence[int] = (255, 96, 40),
        noises: Sequence[float] = (0, 10, 25),
        compressions: Sequence[int] = (0, 64),
        seed: int = 0,
        **words: Any,
    ):
        face = numbers("the face", face)
        single = pictures("the face", face[None] if face.ndim == 3 else face, 1, 3, "S", "S")
        every = list(product((False, True), blurs, sides, noises, compressions))
        if not 1 <= len(every) <= MOST:
            raise ValueError(f"the sliders make {len(every)} combinations; give each 1 value or more, {MOST} in all.")
        choices = _choices(every, seed)
        qualities = choices.quality[: len(compressions)].tolist()
        made = camera.stages(single.expand(len(every), -1, -1, -1), choices)["enlarged"]
        shown = min(single.shape[-1], LARGEST)
        said = {
            "grey": ("Colours", ["kept", "grey"]),
            "blur": ("Blur, σ", [f"{value:g}" if value else "none" for value in blurs]),
            "side": ("Made small to", [f"{value} of {camera.REFERENCE}" for value in sides]),
            "noise": ("Noise, levels", [f"{value:g}" if value else "none" for value in noises]),
            "jpeg": ("JPEG, quality", [str(q) if c else "none" for c, q in zip(compressions, qualities, strict=True)]),
        }
        super().__init__(
            # The face, then every combination, the last slider fastest.
            images.resize(torch.cat([single, made]), (shown, shown), "box"),
            columns=len(noises) * len(compressions),
            quality=80,
            stages=[{"trait": trait, "name": name, "says": says} for trait, (name, says) in said.items()],
            told=choices.sentences(),
            psnr=rounded(metrics.psnr(made, single.expand_as(made)).clamp(max=99)),
            **words,
        )


def _choices(every: Sequence[tuple[bool, float, int, float, int]], seed: int) -> camera.Choices:
    """The combinations as the pipeline records them."""
    grey, blur, side, noise, compression = (torch.tensor(column) for column in zip(*every, strict=True))
    n, gaussian = len(every), opencv.BLURS.index("gaussian")
    return camera.Choices(
        grey=grey.bool(),
        blur=torch.where(blur > 0, gaussian, 0),
        extent=blur.double(),
        angle=torch.zeros(n),
        direction=torch.zeros(n),
        side=side,
        kernel=torch.full((n,), opencv.RESIZES.index("area")),
        noise=noise / 255,
        coloured=torch.ones(n, dtype=torch.bool),
        seed=torch.full((n,), seed),
        compression=compression,
    )
