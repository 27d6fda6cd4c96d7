"""The path of a latent search, beside the faces it passes and the losses it lowers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from traitlets import Dict, Int, List

from facesr_lib.widgets.figure import Album, check_named, numbers, pictures, rounded, script

if TYPE_CHECKING:
    from facesr_lib.prior import FacePrior
    from facesr_lib.search import SearchResult


@dataclass(frozen=True)
class Run:
    """One search on one face.

    Attributes
    ----------
    steps : (K,)
        Numbers of the steps that are shown, increasing.
    path : (K, 2)
        Where the latent stands in the plane.
    faces : (K, 3, R, R)
        In [0, 1].
    losses : dict of (S,)
        The terms of the objective at steps 0 to S - 1.
    """

    steps: Sequence[int]
    path: Tensor
    faces: Tensor
    losses: Mapping[str, Tensor]


class LatentTrajectory(Album):
    """A slider through a search: the latent's path in a plane, the face at that step, and the losses.

    A ``ValueError`` says that the shapes do not fit together or something is NaN.

    Parameters
    ----------
    runs : dict of Run
        Name of the method → its search, all on the same face; up to six.
    background : (M, 2), optional
        Ordinary faces in the same plane, drawn as a cloud behind the paths.
    **words
        ``alt``, ``title`` and ``caption``, as of every `Figure`.

    Attributes
    ----------
    step : int
        The step that is shown; follows the reader's hand, and can be set and linked. Between two stored steps, the
        earlier one is seen. Starts at the last.
    """

    _esm = script("chart.js", "latent_trajectory.js")

    runs = List(Dict(), help="Per run: name, steps, path, losses, and its first tile in the sheet.").tag(sync=True)
    background: List[list[float]] = List(help="Points (x, y).").tag(sync=True)
    step = Int().tag(sync=True)

    def __init__(self, runs: Mapping[str, Run], *, background: Tensor | None = None, **words: Any):
        check_named("runs", runs)
        runs = {name: _checked(name, run) for name, run in runs.items()}
        sizes = {run.faces.shape[-1] for run in runs.values()}
        if len(sizes) > 1:
            raise ValueError(f"the runs' faces have different resolutions, {sorted(sizes)}: resize them to one")
        cloud = [] if background is None else rounded(numbers("background", background, "M", 2, give="points"))
        first = accumulate((len(run.steps) for run in runs.values()), initial=0)
        super().__init__(
            torch.cat([run.faces for run in runs.values()]),
            runs=[
                {
                    "name": name,
                    "steps": [int(step) for step in run.steps],
                    "path": rounded(run.path),
                    # A list, since notebook files sort the keys of a dict.
                    "losses": [[term, rounded(values)] for term, values in run.losses.items()],
                    "first": start,
                }
                for start, (name, run) in zip(first, runs.items(), strict=False)
            ],
            background=cloud,
            step=max(int(run.steps[-1]) for run in runs.values()),
            **words,
        )

    @classmethod
    def from_result(
        cls,
        result: SearchResult | Mapping[str, SearchResult],
        prior: FacePrior,
        *,
        image: int = 0,
        background: Tensor | None = None,
        **words: Any,
    ) -> LatentTrajectory:
        """Show what a search, or several searches on the same face, recorded.

        A ``ValueError`` says that there is no such image, the codes' shapes do not fit, or a search diverged.

        Parameters
        ----------
        result : SearchResult or dict of SearchResult
            From one method, or method → result.
        prior : FacePrior
            Draws the face of each recorded latent, with the prior's own noise maps.
        image : int
            Which image of the batch.
        background : (M, L, d) or (M, d), optional
            Codes of ordinary faces, drawn as a cloud behind the path.
        **words
            As of every `Figure`. Default caption: what the plane is, and how much of the movement lies in it.
        """
        results = result if isinstance(result, Mapping) else {"search": result}
        check_named("searches", results)
        codes: dict[str, Tensor] = {}  # (K, L, d) each
        for name, one in results.items():
            if not 0 <= image < len(one.loss):
                raise ValueError(f"{name!r} searched {len(one.loss)} images, so image {image} is not among them")
            codes[name] = one.history.latents[:, image].detach().float().cpu()
            if not codes[name].isfinite().all():
                raise ValueError(f"{name!r} diverged on image {image}: its codes are not finite, there is no path")
        project, share = _principal_plane(torch.cat(list(codes.values())))
        runs = {
            name: Run(
                steps=results[name].history.latent_steps,
                path=project(w),
                faces=prior.synthesise(w.to(results[name].latent)).cpu(),
                losses={term: values[:, image] for term, values in results[name].history.losses.items()},
            )
            for name, w in codes.items()
        }
        whose = "path varies" if len(codes) == 1 else "paths vary"
        caption = f"The plane: the two directions in which the {whose} most, with {share:.0%} of the variance."
        cloud = None if background is None else project(_cloud(background, next(iter(codes.values()))))
        return cls(runs, background=cloud, **{"caption": caption} | words)


def _principal_plane(points: Tensor) -> tuple[Callable[[Tensor], Tensor], float]:
    """What projects codes (K, L, d) -> (K, 2) onto the plane in which these vary most, and its share of variance."""
    flat = points.flatten(1)  # (M, L * d)
    if len(flat) < 3:
        raise ValueError(
            f"{len(flat)} recorded codes span no plane, for which it takes three: search for more steps, or with a "
            "smaller record_every."
        )
    mean = flat.mean(0)
    _, spread, directions = torch.linalg.svd(flat - mean, full_matrices=False)
    peak = directions[:2].gather(1, directions[:2].abs().argmax(1, keepdim=True))
    axes = directions[:2] * peak.sign()  # (2, L * d); an SVD leaves the signs open
    share = spread[:2].square().sum() / spread.square().sum().clamp_min(1e-12)
    return lambda codes: (codes.flatten(1) - mean) @ axes.T, float(share)


def _cloud(background: Tensor, codes: Tensor) -> Tensor:
    """(M, d) or (M, L, d) -> (M, L, d), like the codes."""
    cloud = numbers("background", background).float()
    wide = cloud.ndim == 3
    numbers("background", cloud, "M", *codes.shape[1 if wide else 2 :], give="codes like the search's, or of one layer")
    return cloud if wide else cloud[:, None].expand(-1, codes.shape[1], -1)


def _checked(name: str, run: Run) -> Run:
    k = len(run.steps)
    if not k or list(run.steps) != sorted(set(run.steps)):
        raise ValueError(f"the steps of {name!r} must increase, got {list(run.steps)}")
    path = numbers(f"'path' of {name!r}", run.path, k, 2, give="a point for each of the steps")
    faces = pictures(f"'faces' of {name!r}", run.faces, k, 3, "R", "R")
    terms = run.losses.items()
    losses = {term: numbers(f"{term!r} of {name!r}", x, "S", give="a value per step") for term, x in terms}
    return Run(run.steps, path, faces, losses)
