"""The papers' claims against ours: what they say, how it is tested, and what came out.

``data/claims.toml`` lists the claims; its head explains the fields. Results are the records of `experiments`, one file
per table in ``data/results``. A claim without results is *not measured*, and says why.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from facesr_lib import assets, experiments, metrics
from facesr_lib.experiments import EXPERIMENTS, OF_ALL_FACES, Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Word = Literal["reproduced", "not reproduced", "undecided", "not measured", "in its chapter"]
WORDS: tuple[Word, ...] = ("reproduced", "not reproduced", "undecided", "not measured", "in its chapter")


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
}
"""The papers' metrics, and what their words and figures are translated into."""

STAND_INS = {
    "fid": (f"fid-{experiments.FEATURES}", f"on features of {experiments.FEATURES}"),
    "kid": (f"kid-{experiments.FEATURES}", f"on features of {experiments.FEATURES}"),
    "niqe": ("niqe-256", "of faces enlarged to 256²"),
}
"""What is read where the results hold no value under the metric's own name, and what the ledger says of it."""

FEWEST = 8  # faces: of fewer, a bootstrap interval is much too narrow


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


@dataclass(frozen=True)
class Verdict:
    """What our records say of a claim.

    Attributes
    ----------
    word
        One of `WORDS`.
    reason : str
        Why the claim is not measured or undecided; the chapter; "" for the rest.
    ours : (float, float) or None
        Means of the better and the worse row.
    interval : (float, float) or None
        95 % bootstrap interval of the mean paired difference, better minus worse, over faces.
    faces : int
        0 where there is one value for all of them.
    measured : str
        How, if not by the paper's metric under its own name (see `STAND_INS`).
    """

    word: Word
    reason: str = ""
    ours: tuple[float, float] | None = None
    interval: tuple[float, float] | None = None
    faces: int = 0
    measured: str = ""


@dataclass(frozen=True)
class Results:
    """A table's records and the note that was written with them: prior, faces, effort, seed."""

    records: tuple[Record, ...]
    budget: str


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


def results(folder: Path | None = None) -> dict[str, Results]:
    """Read what has been measured: table → records.

    Parameters
    ----------
    folder : path, optional
        Holds ``<table>.csv`` as `experiments.write` writes it; default: ``results`` among the shipped data. Tables
        without a file are left out.
    """
    folder = folder or assets.SHIPPED / "results"
    found = {}
    for name in EXPERIMENTS:
        path = folder / f"{name}.csv"
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                first = file.readline().strip()
            budget = first[1:].strip() if first.startswith("#") else "budget not recorded"
            found[name] = Results(tuple(experiments.read(path)), budget)
    return found


def verdict(claim: Claim, records: Iterable[Record], seed: int = 0) -> Verdict:
    """Judge a claim by the differences between its two rows on the same faces.

    *Reproduced*: the whole 95 % bootstrap interval of the mean difference lies on the claimed side. *Not reproduced*:
    it lies on the other. *Undecided*: it reaches over zero, or there is none, as for fewer than `FEWEST` faces.

    Parameters
    ----------
    claim : Claim
    records : iterable of Record
        Of any tables; those of others are passed over.
    seed : int
        Of the resampling.

    Raises
    ------
    ValueError
        If a row holds a face twice.
    """
    if not claim.experiment:
        if claim.untested:
            return Verdict("not measured", claim.untested)
        return Verdict("in its chapter", claim.chapter)
    table = [record for record in records if record.experiment == claim.experiment]
    if not table:
        return Verdict("not measured", f"no results of {claim.experiment}")
    here = [record for record in table if record.setting == claim.setting]
    rows = {label: [record for record in here if record.method == label] for label in (claim.better, claim.worse)}
    for label, found in rows.items():
        if not found:
            return Verdict("not measured", f"no results of {label!r} at {claim.setting}")
    name, how = claim.metric, ""
    if name in STAND_INS and not any(record.metric == name for record in here):
        name, how = STAND_INS[name]
    by_face = {label: _by_face(found, name) for label, found in rows.items()}
    if not all(by_face.values()):
        return Verdict("not measured", _reason(claim.metric))
    better, worse = by_face[claim.better], by_face[claim.worse]
    if better.keys() != worse.keys():
        return Verdict("not measured", "the two rows were measured on different faces")
    if not all(isfinite(value) for values in by_face.values() for value in values.values()):
        return Verdict("not measured", "some values are not finite")
    ours = fmean(better.values()), fmean(worse.values())
    if OF_ALL_FACES in better:
        return Verdict("undecided", "one value for all faces: no interval", ours, measured=how)
    if len(better) < FEWEST:
        return Verdict("undecided", f"fewer than {FEWEST} faces: no interval", ours, None, len(better), how)
    low, high = experiments.interval([better[face] - worse[face] for face in sorted(better)], seed)
    claimed, other = (low > 0, high < 0) if METRICS[claim.metric].more_is_better else (high < 0, low > 0)
    word: Word = "reproduced" if claimed else "not reproduced" if other else "undecided"
    reason = "the interval reaches over zero" if word == "undecided" else ""
    return Verdict(word, reason, ours, (low, high), len(better), how)


def verdicts(paper: str | None = None, folder: Path | None = None) -> list[tuple[Claim, Verdict]]:
    """Judge every claim, or every claim of one paper, by the results in a folder (see `results`).

    Raises
    ------
    ValueError
        If there is no claim of such a paper.
    """
    claims = load()
    if paper is not None and paper not in {claim.paper for claim in claims}:
        raise ValueError(f"no claims of {paper!r}; choose one of {', '.join(dict.fromkeys(c.paper for c in claims))}.")
    found = results(folder)
    measured = [record for one in found.values() for record in one.records]
    return [(claim, verdict(claim, measured)) for claim in claims if paper in (None, claim.paper)]


def count(judged: Iterable[tuple[Claim, Verdict]]) -> dict[Word, int]:
    """Count the verdicts; every word is there, at 0 if need be."""
    words = Counter(verdict.word for _, verdict in judged)
    return {word: words[word] for word in WORDS}


def summary(paper: str, folder: Path | None = None) -> tuple[list[str], list[list[str]]]:
    """Lay a paper's statements out, one row each, for `plots.table`.

    Returns
    -------
    header, rows
        The statement, its place, what tests it, how its comparisons came out, and what differs here.
    """
    statements: dict[str, list[tuple[Claim, Verdict]]] = {}
    for claim, judged in verdicts(paper, folder):
        statements.setdefault(claim.id, []).append((claim, judged))
    rows = []
    for group in statements.values():
        claim = group[0][0]
        words = ", ".join(f"{n} {word}" for word, n in count(group).items() if n)
        opposite = sum(one.contradicted for one, _ in group)
        by = " and ".join(
            filter(None, (claim.experiment, claim.chapter and f"chapter {claim.chapter[:2].lstrip('0')}"))
        )
        rows.append(
            [
                claim.says,
                claim.where,
                by or "nothing",
                words,
                f"{opposite} of {len(group)}" if opposite else "",
                "; ".join(filter(None, (claim.differs, claim.readings and f"readings: {claim.readings}"))),
            ]
        )
    header = ["claim", "where", "tested by", "verdicts", "paper against itself", "what differs here"]
    return header, rows


def table(paper: str, folder: Path | None = None) -> tuple[list[str], list[list[str]]]:
    """Lay a paper's comparisons out, one row each, for `plots.table`.

    Returns
    -------
    header, rows
        The claim, better row first; the paper's numbers; ours with the interval of their difference; budget; verdict.
    """
    found = results(folder)
    rows = []
    for claim, judged in verdicts(paper, folder):
        if not claim.metric:
            rows.append([claim.says, claim.where, "", "", "", f"{judged.word}: {judged.reason}"])
            continue
        at = claim.at if claim.setting in ("", claim.at) else f"{claim.at} (here {claim.setting})"
        place = f"{claim.where.split(',')[0]}, {at.replace('x', '×')}, {METRICS[claim.metric].label}"
        budget = found[claim.experiment].budget if judged.ours and claim.experiment else ""
        rows.append(
            [
                f"{claim.better} better than {claim.worse}",
                place,
                _theirs(claim),
                _ours(claim, judged),
                f"{judged.faces} faces; {budget}" if judged.faces else budget,
                judged.word + (f": {judged.reason}" if judged.reason else ""),
            ]
        )
    return ["comparison", "where, at, by", "paper", "ours, difference and 95 % interval", "budget", "verdict"], rows


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


def _by_face(records: Iterable[Record], metric: str) -> dict[int, float]:
    values: dict[int, float] = {}
    for record in records:
        if record.metric == metric:
            if record.face in values:
                raise ValueError(
                    f"{record.experiment}, {record.setting}, {record.method}: face {record.face} has two values of "
                    f"{metric}; give the records of one run."
                )
            values[record.face] = record.value
    return values


def _reason(metric: str) -> str:
    """Say why there is no value of a metric."""
    if metric == "id":
        return "needs a face recogniser, and the project has none"
    missing = metrics.available().get(metric)
    return missing.split(";")[0] if missing else f"the results hold no {METRICS[metric].label}"


def _theirs(claim: Claim) -> str:
    if claim.theirs is None:
        return "not printed"
    return f"{claim.theirs[0]} vs {claim.theirs[1]}" + (" (the opposite)" if claim.contradicted else "")


def _ours(claim: Claim, judged: Verdict) -> str:
    if judged.ours is None:
        return ""
    unit = METRICS[claim.metric].unit
    better, worse = (unit * value for value in judged.ours)
    text = f"{better:.4g} vs {worse:.4g}"
    if judged.interval is not None:
        low, high = (unit * value for value in judged.interval)
        text += f", {better - worse:+.2g} [{low:+.2g}, {high:+.2g}]"
    return text + (f" ({judged.measured})" if judged.measured else "")
