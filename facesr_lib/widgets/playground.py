"""A face, a scale, and what each method makes of it; or the same blinded, to guess which one is the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from traitlets import Enum, Int, List, Unicode

from facesr_lib import images, metrics
from facesr_lib.degrade import Downsample
from facesr_lib.widgets.figure import Album, pictures, rounded, script

LARGEST = 256  # pixels per side that a picture has on the page


class Playground(Album):
    """Pick a face and a scale, see what every method makes of it; or guess which picture is the truth.

    Everything is computed before: the figure carries N × S × (M + 1) + N pictures and needs no kernel. A ``ValueError``
    says that scales, methods or shapes do not fit together, or a picture is NaN.

    Parameters
    ----------
    faces : dict of dict of (N, 3, R, R)
        Scale → method → what the method made of the small pictures (`Downsample`); in [0, 1]. Each scale has the same
        methods. Shown beside them is the residual: the root mean squared difference, in grey levels, between a result
        made small and the small picture.
    truth : (N, 3, R, R)
        The faces themselves.
    **words
        ``alt``, ``title`` and ``caption``, as of every `Figure`.

    Attributes
    ----------
    face, scale : int
        Which face and which of the scales are shown.
    mode : {"look", "guess"}
        All four follow the reader's hand, and can be set and linked.
    score : [int, int]
        Truths found, and faces tried.
    """

    _esm = script("chart.js", "playground.js")

    scales = List(Int()).tag(sync=True)
    methods = List(Unicode()).tag(sync=True)
    guess = List(Int(), help="Places of the methods that the truth hides among.").tag(sync=True)
    psnr = List(List(), help="PSNR in dB: scale, method, face.").tag(sync=True)
    residual = List(List(), help="Residual in grey levels: scale, method, face.").tag(sync=True)
    count = Int(help="N, faces.").tag(sync=True)
    face = Int(0, min=0).tag(sync=True)
    scale = Int(0, min=0).tag(sync=True)
    mode = Enum(("look", "guess"), "look").tag(sync=True)
    score = List(Int(), [0, 0]).tag(sync=True)

    def __init__(self, faces: Mapping[int, Mapping[str, Tensor]], truth: Tensor, **words: Any):
        truth = pictures("truth", truth, "N", 3, "R", "R")
        side = truth.shape[-1]
        by_name = isinstance(faces, Mapping) and all(isinstance(results, Mapping) for results in faces.values())
        names = list(next(iter(faces.values()), {})) if by_name else []
        if not names:
            raise ValueError("there is nothing to show: give scale → method → pictures, at least one of each.")
        tiles: list[Tensor] = []
        psnr, residual = [], []
        for scale, results in faces.items():
            if list(results) != names:
                raise ValueError(
                    f"scale {scale} has the methods {list(results)}, another has {names}: give each the same"
                )
            small = Downsample(scale)
            given = small(truth)
            named = {f"{name!r} at scale {scale}": image for name, image in results.items()}
            made = [pictures(name, image, *truth.shape) for name, image in named.items()]
            tiles += [_tile(part) for part in (images.resize(given, (side, side), "box").clamp(0, 1), *made)]
            psnr.append([rounded(metrics.psnr(image, truth).clamp(max=99)) for image in made])
            errors = [(small(image) - given).square().mean((1, 2, 3)).sqrt() for image in made]
            residual.append([rounded(255 * error) for error in errors])
        super().__init__(
            torch.cat([*tiles, _tile(truth)]),  # per scale the inputs and each method's faces, then the truth
            quality=88,
            scales=list(faces),
            methods=names,
            # what a kernel enlarges is blurred: nobody takes it for a face
            guess=[i for i, name in enumerate(names) if name not in images.KERNELS],
            psnr=psnr,
            residual=residual,
            count=len(truth),
            **words,
        )


def _tile(pictures: Tensor) -> Tensor:
    """As large as the page shows them, at most."""
    shown = min(pictures.shape[-1], LARGEST)
    return images.resize(pictures, (shown, shown), "box")
