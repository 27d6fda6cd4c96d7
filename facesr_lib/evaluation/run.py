"""The papers' tables at our scale: which rows they have, how each is measured, and results that are kept.

`run` gives a table's measurements in long form, one value per face; `table` prints them. Rows that were measured before
are read from a cache, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from facesr_lib import assets, files, metrics, search
from facesr_lib.degrade import Chain, Downsample, GaussianBlur, GaussianNoise, MotionBlur, SaltAndPepper
from facesr_lib.evaluation import prior as quality
from facesr_lib.prior import FacePrior

COLUMNS = ("experiment", "setting", "method", "face", "metric", "value")
FEATURES = "efficientnet-lite0"
OF_ALL_FACES = -1
PAPER_RESOLUTION = 1024


@dataclass(frozen=True)
class Record:
    """One measured value.

    Attributes
    ----------
    experiment, setting, method : str
        Table, column group (such as "8x") and row.
    face : int
        Index of the held-out face; −1: one value for all of them.
    metric : str
        As in `metrics.available`, or "niqe-256" (of faces enlarged to 256²), "residual", "diversity",
        "seconds" (per face, in its batch), "ks" and "wasserstein" (of ‖v‖² to χ²).
    value : float
    """

    experiment: str
    setting: str
    method: str
    face: int
    metric: str
    value: float


@dataclass(frozen=True)
class Row:
    """A method as a table has it.

    Attributes
    ----------
    label : str
    method : str
        A name in `search.METHODS`; "bicubic" or "bilinear" for the baselines without a prior.
    options : dict
        For the method; ``steps`` is multiplied by a run's ``effort``.
    corrupt : callable, optional
        What befalls the low-resolution picture (after) or the face (before it is made small).
    before : bool
        Whether ``corrupt`` comes before the picture is made small.
    """

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    corrupt: Callable[[Tensor], Tensor] | None = None
    before: bool = False


@dataclass(frozen=True)
class Experiment:
    """A table.

    Attributes
    ----------
    about : str
    scales, paper_scales : tuple of int
        Here and in the paper, at its faces' size.
    rows : tuple of Row
    measure : {"quality", "seconds", "diversity", "gaussianity"}
        What is measured. Seconds are to be taken on a machine that does nothing else.
    """

    about: str
    scales: tuple[int, ...]
    paper_scales: tuple[int, ...]
    rows: tuple[Row, ...]
    measure: Literal["quality", "seconds", "diversity", "gaussianity"] = "quality"

    def settings(self, resolution: int) -> list[tuple[int, int]]:
        """Pairs of our scale and the paper's; they are the same for a prior of the papers' size."""
        ours = self.paper_scales if resolution >= PAPER_RESOLUTION else self.scales
        return list(zip(ours, self.paper_scales, strict=True))


_BASELINES = (Row("bilinear", "bilinear"), Row("bicubic", "bicubic"))
_PULSE = Row("PULSE", "pulse")
_DSE = Row("dse", "dse", {"lambda_g": 0.05})
_BRGM = Row("BRGM without its perceptual term", "brgm", {"perceptual": None, "steps": 500})
_MGANPRIOR = Row("mGANprior without its perceptual term", "mganprior", {"perceptual": None, "steps": 500})
_RLS, _RLS_PLUS = Row("RLS", "rls"), Row("RLS+", "rls_plus")


def _sweep(name: str, values: Iterable[float]) -> Iterator[Row]:
    alone = {"lambda_w": 0.0, "lambda_g": 0.0, "lambda_c": 0.0}
    for value in values:
        yield Row(f"{name}={value:g}", "rls", alone | {name: value})


EXPERIMENTS: dict[str, Experiment] = {
    "dse-1": Experiment(
        "dse against the others",
        (8, 16),
        (8, 16),
        (*_BASELINES, _MGANPRIOR, _PULSE, _DSE),
    ),
    "dse-2": Experiment(
        "what the semantic loss adds",
        (4, 8, 16),
        (16, 32, 64),
        (Row("dse without Ls", "dse", {"lambda_g": 0.05, "lambda_s": 0.0}), _DSE),
    ),
    "dse-fig4": Experiment("time per face", (16,), (16,), (_MGANPRIOR, _PULSE, _DSE), "seconds"),
    "rls-1": Experiment(
        "RLS and RLS+ against the others", (8, 16), (8, 64), (*_BASELINES, _PULSE, _BRGM, _RLS, _RLS_PLUS)
    ),
    "rls-2": Experiment(
        "what RLS+ is made of",
        (8,),
        (16,),
        (
            Row("w/o anchor", "rls_plus", {"anchor": "mean"}),
            Row("w/o noise", "rls_plus", {"optimise": ("w", "theta")}),
            Row("w/o w", "rls_plus", {"optimise": ("theta", "eta")}),
            Row("w/o g", "rls_plus", {"optimise": ("w", "eta")}),
            Row("w/o l1-ball", "rls_plus", {"radius": inf}),
            _RLS_PLUS,
        ),
    ),
    "rls-3": Experiment("RLS+ at 16x", (16,), (16,), (_RLS_PLUS,)),
    "rls-4": Experiment(
        "robustness",
        (8,),
        (16,),
        (
            _RLS_PLUS,
            Row("Gaussian Noise", "rls_plus", corrupt=GaussianNoise(0.05)),
            Row("Salt and Pepper", "rls_plus", corrupt=SaltAndPepper(0.05)),
            Row("Gaussian Blur", "rls_plus", corrupt=GaussianBlur(0.7)),
            Row("Motion Blur", "rls_plus", corrupt=MotionBlur(9, 45.0), before=True),
        ),
    ),
    "rls-5": Experiment(
        "what RLS is made of",
        (16,),
        (64,),
        (
            Row("w/o Regu.", "rls", {"lambda_w": 0.0, "lambda_g": 0.0, "lambda_c": 0.0}),
            Row("w/o P_cross", "rls", {"lambda_c": 0.0}),
            Row("w/o W+", "rls", {"space": "w"}),
            _RLS,
        ),
    ),
    "rls-fig2": Experiment(
        "realism against fidelity",
        (8,),
        (64,),
        (*_sweep("lambda_w", (0, 1e-5, 1e-4, 1e-3, 1e-2)), *_sweep("lambda_g", (1e-4, 1e-3, 1e-2, 1e-1))),
    ),
    "rls-fig3": Experiment(
        "how Gaussian codes are",
        (1,),
        (1,),
        tuple(Row(space, "none") for space in ("Z", "W, standardised", "PULSE", "flow")),
        "gaussianity",
    ),
    "rls-fig10": Experiment("what P_w adds", (8,), (16,), (Row("w/o P_w", "rls", {"lambda_w": 0.0}), _RLS)),
    "rls-fig7": Experiment(
        "diversity of several answers to one picture",
        (16,),
        (64,),
        (_PULSE, Row("RLS", "rls", {"start": "random"})),
        "diversity",
    ),
}
"""Name → table. Scales are those that a 64² prior has: 16 stands for the papers' 64. No picture is made small at 1×."""


def run(
    name: str,
    prior: FacePrior,
    *,
    faces: int = 50,
    batch: int = 10,
    effort: float = 1.0,
    seed: int = 0,
    cache: Path | None = None,
    progress: bool = True,
) -> list[Record]:
    """Measure a table.

    Parameters
    ----------
    name : str
        In `EXPERIMENTS`.
    prior : FacePrior
    faces, batch : int
        Held-out faces, and how many are searched at once.
    effort : float
        Multiplies every method's number of steps.
    seed : int
    cache : path, optional
        Folder of the rows that are done; default: ``results`` beside the fetched assets. A row is measured anew when
        anything that it depends on has changed: prior, faces, effort, seed, code, the metrics that can run.
    progress : bool
        Say which row is being measured, and show the search's progress.

    Raises
    ------
    ValueError
        If there is no such table.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"there is no table {name!r}; choose one of {', '.join(EXPERIMENTS)}.")
    truth, _ = prior.held_out(faces)
    networks = [network for network in (prior.generator, prior.discriminator, prior.flow) if network is not None]
    weights = [value for network in networks for value in network.state_dict().values()]
    fingerprint = {"prior": _digest(weights), "truth": _digest([truth]), "effort": effort, "seed": seed}
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py"))]
    fingerprint["code"] = hashlib.sha256(b"".join(sources)).hexdigest()
    fingerprint["metrics"] = [metric for metric, missing in metrics.available().items() if not missing]
    folder = cache or assets.cache() / "results"
    experiment, records = EXPERIMENTS[name], []
    if experiment.measure == "seconds":
        fingerprint["batch"] = batch
    measures = {"quality": _quality, "seconds": _seconds, "diversity": _diversity, "gaussianity": _gaussianity}
    for scale, _ in experiment.settings(prior.resolution):
        runs = _Runs(prior, truth, Downsample(scale), batch, effort, seed, progress)
        for row in experiment.rows:
            key = {
                "scale": scale,
                "measure": experiment.measure,
                "row": repr(row),
                **fingerprint,
            }
            path = folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.csv"
            if not path.is_file():
                if progress:
                    print(f"{name} · {scale}x · {row.label}", flush=True)
                measured = measures[experiment.measure](runs, row)
                write(path, [Record(name, f"{scale}x", row.label, *rest) for rest in measured])
            # rows are shared between tables: the file may have been written for another
            records += [Record(name, r.setting, r.method, r.face, r.metric, r.value) for r in read(path)]
    return records


def read(path: Path) -> list[Record]:
    """Read a table of records."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Record(r["experiment"], r["setting"], r["method"], int(r["face"]), r["metric"], float(r["value"]))
            for r in csv.DictReader(line for line in file if not line.startswith("#"))
        ]


def write(path: Path, records: list[Record], note: str = "") -> None:
    """Write records as CSV, in full or not at all; ``note`` becomes a comment in the first line."""
    text = io.StringIO()
    if note:
        text.write(f"# {note}\n")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) | {"value": f"{record.value:.6g}"} for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def table(name: str, records: list[Record], resolution: int = 64) -> tuple[list[str], list[list[str]]]:
    """Lay a table out: ours with the interval that holds the mean in 95 of 100 resamplings of the faces, the paper's.

    ``resolution`` is the prior's.

    Returns
    -------
    header, rows
        One row per scale and method; a metric that neither measured is left out.
    """
    experiment = EXPERIMENTS[name]
    of_paper = {
        (r.setting, r.method, r.metric): r.value
        for r in read(assets.SHIPPED / "paper-tables.csv")
        if r.experiment == name
    }
    values: dict[tuple[str, str, str], list[float]] = {}
    for r in records:
        values.setdefault((r.setting, r.method, r.metric), []).append(r.value)
    names = list(dict.fromkeys([metric for *_, metric in (*of_paper, *values)]))
    rows = []
    for scale, theirs in experiment.settings(resolution):
        for row in experiment.rows:
            cells = [f"{scale}×" if scale == theirs else f"{scale}× (paper: {theirs}×)", row.label]
            for metric in names:
                ours = values.get((f"{scale}x", row.label, metric), [])
                cells.append(_cell(ours, of_paper.get((f"{theirs}x", row.label, metric))))
            rows.append(cells)
    return ["scale", "method", *names], rows


def interval(values: list[float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a mean: the faces drawn anew 2,000 times."""
    sample = torch.tensor(values, dtype=torch.float64)
    drawn = torch.randint(len(sample), (2000, len(sample)), generator=torch.Generator().manual_seed(seed))
    low, high = sample[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _cell(ours: list[float], paper: float | None) -> str:
    parts = []
    if len(ours) == 1:
        parts.append(f"{ours[0]:.4g}")
    elif ours:
        low, high = interval(ours)
        parts.append(f"{sum(ours) / len(ours):.4g} [{low:.4g}, {high:.4g}]")
    if paper is not None:
        parts.append(f"paper {paper:.4g}")
    return " · ".join(parts)


Measured = Iterator[tuple[int, str, float]]
"""Face, metric, value."""


@dataclass(frozen=True)
class _Runs:
    """What all rows of a table at one scale share."""

    prior: FacePrior
    truth: Tensor
    operator: Downsample
    batch: int
    effort: float
    seed: int
    progress: bool
    anchors: dict[int, Tensor] = field(default_factory=dict)
    """Codes of RLS for the batches that begin with these faces: where RLS+ starts, whatever its second stage does."""

    def given(self, row: Row) -> Iterator[tuple[int, Tensor]]:
        """What the method gets to see, in batches: the first face's index, pictures."""
        steps: list[Callable[[Tensor], Tensor]] = [self.operator]
        if row.corrupt is not None:
            steps.insert(0 if row.before else 1, row.corrupt)
        lowres = Chain(*steps)(self.truth)  # all at once: what befalls a face does not depend on the batches
        for first in range(0, len(lowres), self.batch):
            yield first, lowres[first : first + self.batch]

    def restore(self, lowres: Tensor, row: Row, first: int, attempt: int = 0) -> tuple[Tensor, Tensor]:
        """Images and residuals."""
        if row.method in ("bilinear", "bicubic"):
            image = Downsample(self.operator.scale, row.method).upsample(lowres).clamp(0, 1)
            return image, (self.operator(image) - lowres).square().mean((1, 2, 3)).sqrt()
        options: dict[str, Any] = dict(row.options)
        if options.get("anchor") == "mean":
            options["anchor"] = self.prior.mean_w(len(lowres))
        elif row.method == "rls_plus" and row.corrupt is None and first in self.anchors:
            options["anchor"] = self.anchors[first]
        find = search.method(row.method)
        if self.effort != 1:
            options = _shortened(find, options, self.effort)
        seeds = [(self.seed + attempt) * 100_000 + first + i for i in range(len(lowres))]
        result = find(self.prior, lowres, self.operator, seed=seeds, progress=self.progress, **options)
        if result.interrupted:  # a search keeps its best so far; a table must not take it for the end's
            raise KeyboardInterrupt
        if row.method == "rls_plus" and row.corrupt is None and "anchor" not in options:
            assert result.anchor is not None
            self.anchors[first] = result.anchor
        return result.image, result.residual


def _quality(runs: _Runs, row: Row) -> Measured:
    found = [runs.restore(lowres, row, first) for first, lowres in runs.given(row)]
    image, residual = (torch.cat(column) for column in zip(*found, strict=True))
    values = {"psnr": metrics.psnr, "ssim": metrics.ssim, "ms_ssim": metrics.ms_ssim, "lpips": metrics.lpips}
    here = metrics.available()
    per_face = {name: function(image, runs.truth) for name, function in values.items() if here[name] is None}
    if here["niqe"] is None:
        small = image.shape[2] < 192  # fewer than four of its blocks: enlarged first, and named for it
        per_face["niqe-256" if small else "niqe"] = metrics.niqe(image, resize_to=256 if small else None)
    for name, column in (per_face | {"residual": residual}).items():
        for face, value in enumerate(column.tolist()):
            yield face, name, value
    if here[f"kid-{FEATURES}"] is None and len(image) > 1:
        yield OF_ALL_FACES, f"kid-{FEATURES}", float(metrics.kid(runs.truth, image, FEATURES)[0])
        yield OF_ALL_FACES, f"fid-{FEATURES}", float(metrics.fid(runs.truth, image, FEATURES))


def _seconds(runs: _Runs, row: Row) -> Measured:
    """A face's share in its batch's wall-clock time."""
    for first, lowres in runs.given(row):
        start = time.perf_counter()
        runs.restore(lowres, row, first)
        seconds = (time.perf_counter() - start) / len(lowres)
        for i in range(len(lowres)):
            yield first + i, "seconds", seconds


def _diversity(runs: _Runs, row: Row, answers: int = 4) -> Measured:
    """Root mean squared difference between two of several answers to one picture, and what they leave unexplained."""
    for first, lowres in runs.given(row):
        found = [runs.restore(lowres, row, first, 1 + k) for k in range(answers)]
        image = torch.stack([one for one, _ in found])  # (K, N, 3, H, W)
        spread = (image.var(0).mean((1, 2, 3)) * 2).sqrt()  # two draws differ by twice the variance
        residual = torch.stack([left for _, left in found]).mean(0)
        for i in range(image.shape[1]):
            yield first + i, "diversity", spread[i].item()
            yield first + i, "residual", residual[i].item()


def _gaussianity(runs: _Runs, row: Row, sets: int = 10) -> Measured:
    """Distances of ‖v‖² from χ², for ``sets`` draws of 10,000 codes in place of faces."""
    for k in range(sets):
        spaces = quality.gaussianisation(runs.prior, seed=1_000_000 + 10 * (runs.seed * sets + k))
        for found in spaces:
            if found.space == row.label:
                yield k, "ks", found.ks
                yield k, "wasserstein", found.wasserstein


def _shortened(find: Callable[..., Any], options: dict[str, Any], effort: float) -> dict[str, Any]:
    def steps(method: Callable[..., Any]) -> int:
        return max(1, round(effort * options.get("steps", inspect.signature(method).parameters["steps"].default)))

    first_stage = {"rls_options": {"steps": steps(search.rls)}} if find is search.rls_plus else {}
    return options | first_stage | {"steps": steps(find)}


def _digest(tensors: Iterable[Tensor]) -> str:
    """A fingerprint: results of another prior, or on other faces, are never taken for these."""
    digest = hashlib.sha256()
    for value in tensors:
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
