"""What the papers claim, as ``data/claims.toml`` lists it (its head explains the fields); `ledger` judges it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from facesr_lib import assets
from facesr_lib.evaluation.run import EXPERIMENTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Metric:
    """How a metric is read: is more better, its label, and what its values are multiplied by under that label."""

    more_is_better: bool
    label: str
    unit: float = 1.0


METRICS = {
    "psnr": Metric(True, "PSNR"),
    "ssim": Metric(True, "SSIM"),
    "ms_ssim": Metric(True, "MS-SSIM"),
    "lpips": Metric(False, "LPIPS"),
    "niqe": Metric(False, "NIQE"),
    "fid": Metric(False, "FID"),
    "kid": Metric(False, "KID ×10³", 1000.0),
    "id": Metric(True, "ID"),
    "residual": Metric(False, "residual, grey levels", 255.0),
    "diversity": Metric(True, "diversity, grey levels", 255.0),
    "seconds": Metric(False, "seconds per face"),
    "ks": Metric(False, "Kolmogorov–Smirnov distance"),
    "wasserstein": Metric(False, "Wasserstein distance"),
}
"""The papers' metrics, and what their words and figures are translated into."""


@dataclass(frozen=True)
class Claim:
    """One comparison that a paper makes: this row is better than that row by this metric.

    Attributes
    ----------
    id, paper, where, says : str
        The statement, shared by all its comparisons: name, paper, place in it, in plain words.
    experiment : str
        The table in `EXPERIMENTS` that tests it; "" if none does.
    chapter : str
        The chapter that tests it or shows it small; "" if none does.
    untested : str
        Why nothing here can test it; "" if something does.
    metric, better, worse : str
        In `METRICS`, and two rows' labels; "" where the test stands in a chapter.
    at : str
        The paper's setting, such as "64x".
    theirs : (Decimal, Decimal) or None
        The better and the worse row's value, digit for digit as printed; None if the paper prints none.
    differs, readings : str
        What is different here, beyond what is different for the whole paper; which readings of the text were tried.
    """

    id: str
    paper: str
    where: str
    says: str
    experiment: str = ""
    chapter: str = ""
    untested: str = ""
    metric: str = ""
    better: str = ""
    worse: str = ""
    at: str = ""
    theirs: tuple[Decimal, Decimal] | None = None
    differs: str = ""
    readings: str = ""

    @property
    def setting(self) -> str:
        """Our setting for the paper's ("16x" for "64x"); "" where no table tests the claim."""
        return _settings(self.experiment)[self.at] if self.experiment else ""

    @property
    def contradicted(self) -> bool:
        """Whether the paper's own numbers say the opposite."""
        if self.theirs is None:
            return False
        better, worse = self.theirs
        return better < worse if METRICS[self.metric].more_is_better else better > worse


@dataclass(frozen=True)
class Paper:
    """A paper: its title, the protocol behind its numbers, and what is different here in every comparison."""

    title: str
    protocol: str
    differs: str


@dataclass(frozen=True)
class Conflict:
    """Two places of a paper that do not agree, or a table that does not say what the text says."""

    paper: str
    where: str
    says: str


def load(path: Path | None = None) -> list[Claim]:
    """Read the claims.

    Parameters
    ----------
    path : path, optional
        Default: the file that comes with the library.

    Returns
    -------
    list of Claim
        One per statement, metric and setting, in the file's order.

    Raises
    ------
    ValueError
        If a field is missing or unknown, an id stands twice, or a paper, table, row, metric or setting does not exist;
        the message names the claim.
    """
    content = _content(path)
    papers = content.get("papers", {})
    claims: list[Claim] = []
    for number, entry in enumerate(content.get("claim", []), 1):
        name = f"claim {entry.get('id', f'number {number}')!r}"
        if entry.get("paper", "") not in papers:
            raise ValueError(f"{name}: paper is {entry.get('paper')!r}; choose one of {', '.join(papers)}.")
        if any(claim.id == entry.get("id") for claim in claims):
            raise ValueError(f"{name} stands twice; give one of the two another id.")
        claims += _comparisons(name, dict(entry))
    return claims


def papers(path: Path | None = None) -> dict[str, Paper]:
    """Read what is said of each paper, by its short name."""
    return {name: Paper(**entry) for name, entry in _content(path)["papers"].items()}


def conflicts(path: Path | None = None) -> list[Conflict]:
    """Read where the papers contradict themselves."""
    return [Conflict(**entry) for entry in _content(path)["conflict"]]


def _content(path: Path | None) -> dict[str, Any]:
    with (path or assets.SHIPPED / "claims.toml").open("rb") as file:
        return tomllib.load(file, parse_float=Decimal)  # Decimal keeps every printed digit, 0.50 too


_REQUIRED = ("id", "paper", "where", "says")
_OPTIONAL = ("experiment", "chapter", "untested", "better", "worse", "figures", "differs", "readings")


def _comparisons(name: str, entry: Mapping[str, Any]) -> Iterator[Claim]:
    """Check an entry and take it apart into its comparisons."""
    if missing := [field for field in _REQUIRED if not entry.get(field)]:
        raise ValueError(f"{name} lacks {', '.join(missing)}.")
    if unknown := [field for field in entry if field not in (*_REQUIRED, *_OPTIONAL)]:
        raise ValueError(f"{name} has unknown {', '.join(unknown)}; there are {', '.join((*_REQUIRED, *_OPTIONAL))}.")
    experiment, compared = entry.get("experiment", ""), [field for field in ("better", "worse") if entry.get(field)]
    if bool(experiment) + bool(entry.get("untested")) > 1 or not any(
        entry.get(field) for field in ("experiment", "chapter", "untested")
    ):
        raise ValueError(f"{name}: say what tests it (experiment or chapter) or why nothing does (untested).")
    if len(compared) + bool(entry.get("figures")) not in ((3,) if experiment else (0, 3)):
        raise ValueError(f"{name}: better, worse and figures belong together, and a table needs them.")
    if experiment:
        if experiment not in EXPERIMENTS:
            raise ValueError(f"{name}: there is no table {experiment!r}; choose one of {', '.join(EXPERIMENTS)}.")
        labels = [row.label for row in EXPERIMENTS[experiment].rows]
        for field in compared:
            if entry[field] not in labels:
                raise ValueError(f"{name}: {experiment} has no row {entry[field]!r}; choose one of {labels}.")
    shared = {field: value for field, value in entry.items() if field != "figures"}
    for figure in entry.get("figures", [None]):
        yield Claim(**shared) if figure is None else Claim(**shared, **_figure(name, experiment, figure))


def _figure(name: str, experiment: str, figure: Sequence[Any]) -> dict[str, Any]:
    """Read ``[setting, metric, better row's value, worse row's value]``, the values left out where none are printed."""
    if len(figure) not in (2, 4):
        raise ValueError(f"{name}: a figure is [setting, metric] or [setting, metric, better, worse], not {figure}.")
    at, metric, *values = figure
    if metric not in METRICS:
        raise ValueError(f"{name}: there is no metric {metric!r}; choose one of {', '.join(METRICS)}.")
    if experiment and at not in _settings(experiment):
        raise ValueError(f"{name}: the paper's {experiment} has no {at!r}, only {', '.join(_settings(experiment))}.")
    if not all(isinstance(value, Decimal) for value in values):
        raise ValueError(f"{name}: write the paper's numbers with all their digits, such as 0.50, not {values}.")
    return {"at": at, "metric": metric, "theirs": tuple(values) or None}


def _settings(experiment: str) -> dict[str, str]:
    """Map the paper's settings to ours."""
    table = EXPERIMENTS[experiment]
    return {f"{theirs}x": f"{ours}x" for theirs, ours in zip(table.paper_scales, table.scales, strict=True)}
