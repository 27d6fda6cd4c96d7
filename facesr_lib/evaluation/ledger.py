"""The papers' claims against ours: what came out.

Results are the records of `experiments`, one file per table in ``data/results``. A claim without results is *not
measured*, and says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

from facesr_lib import assets, metrics
from facesr_lib.evaluation import claims
from facesr_lib.evaluation import run as experiments
from facesr_lib.evaluation.claims import METRICS, Claim
from facesr_lib.evaluation.run import EXPERIMENTS, OF_ALL_FACES, Record

Word = Literal["reproduced", "not reproduced", "undecided", "contradictory", "not measured", "in its chapter"]
WORDS: tuple[Word, ...] = get_args(Word)

STAND_INS = {
    "fid": (f"fid-{experiments.FEATURES}", f"on features of {experiments.FEATURES}"),
    "kid": (f"kid-{experiments.FEATURES}", f"on features of {experiments.FEATURES}"),
    "niqe": ("niqe-256", "of faces enlarged to 256²"),
}
"""What is read where the results hold no value under the metric's own name, and what the ledger says of it."""

FEWEST = 8  # faces: of fewer, a bootstrap interval is much too narrow


@dataclass(frozen=True)
class Verdict:
    """What our records say of a claim.

    Attributes
    ----------
    word
        One of `WORDS`.
    reason : str
        Why the claim is not measured or undecided; with which side of a contradiction ours go; the chapter; "" for the
        rest.
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
    *Contradictory*: the paper's own numbers deny its words, so neither can be reproduced alone.

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
    judged = _of_the_words(claim, records, seed)
    if not claim.contradicted or judged.ours is None:
        return judged
    sides = {"reproduced": "ours go with its words", "not reproduced": "ours go with its numbers"}
    return replace(judged, word="contradictory", reason=sides.get(judged.word, judged.reason))


def _of_the_words(claim: Claim, records: Iterable[Record], seed: int) -> Verdict:
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
    tie = "the two rows are equal" if low == high else "the interval reaches over zero"
    return Verdict(word, tie if word == "undecided" else "", ours, (low, high), len(better), how)


def verdicts(paper: str | None = None, folder: Path | None = None) -> list[tuple[Claim, Verdict]]:
    """Judge every claim, or every claim of one paper, by the results in a folder (see `results`).

    Raises
    ------
    ValueError
        If there is no claim of such a paper.
    """
    known = claims.load()
    if paper is not None and paper not in {claim.paper for claim in known}:
        raise ValueError(f"no claims of {paper!r}; choose one of {', '.join(dict.fromkeys(c.paper for c in known))}.")
    found = results(folder)
    measured = [record for one in found.values() for record in one.records]
    return [(claim, verdict(claim, measured)) for claim in known if paper in (None, claim.paper)]


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
        codes = bool(claim.experiment) and EXPERIMENTS[claim.experiment].measure == "gaussianity"  # not pictures
        at = claim.at if claim.setting in ("", claim.at) else f"{claim.at} (here {claim.setting})"
        place = [claim.where.split(",")[0], *([] if codes else [at.replace("x", "×")]), METRICS[claim.metric].label]
        budget = [f"{judged.faces} {'sets of codes' if codes else 'faces'}"] if judged.faces else []
        if judged.ours and claim.experiment:
            budget.append(found[claim.experiment].budget)
        rows.append(
            [
                f"{claim.better} better than {claim.worse}",
                ", ".join(place),
                _theirs(claim),
                _ours(claim, judged),
                "; ".join(budget),
                judged.word + (f": {judged.reason}" if judged.reason else ""),
            ]
        )
    return ["comparison", "where, at, by", "paper", "ours, difference and 95 % interval", "budget", "verdict"], rows


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
