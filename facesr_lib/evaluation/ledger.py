"""The papers' claims against ours: what came out.

Results are what `run` measured, one file per table in ``data/results``. A claim without results is *not measured*, and
says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Literal, get_args

from facesr_lib import assets, metrics
from facesr_lib.evaluation import claims, measures, run
from facesr_lib.evaluation.claims import Claim
from facesr_lib.evaluation.measures import METRICS, STAND_INS
from facesr_lib.evaluation.papers import TABLES
from facesr_lib.evaluation.records import OF_ALL_FACES, Record, Results, by_training, interval, model, read
from facesr_lib.messages import choose
from facesr_lib.prior import FacePrior
from facesr_lib.tables import Table

Word = Literal["reproduced", "not reproduced", "undecided", "contradictory", "not measured", "in its chapter"]
WORDS: tuple[Word, ...] = get_args(Word)

FEWEST = 8  # faces: of fewer, a bootstrap interval is much too narrow


@dataclass(frozen=True)
class Verdict:
    """What our records say of a claim."""

    word: Word
    reason: str = ""  # why not measured or undecided; with which side of a contradiction ours go; the chapter
    ours: tuple[float, float] | None = None  # means of the better and the worse row; of a set metric the sets' values
    difference: float = 0.0  # mean, paired, better minus worse; of a set metric's pseudo-values: without its bias
    interval: tuple[float, float] | None = None  # of the difference: 95 %, over faces, and over trainings if several
    faces: int = 0  # 0 where there is one value for all of them
    trainings: int = 1  # that both rows have
    measured: str = ""  # how, if not by the paper's metric under its own name (`measures.STAND_INS`)
    setting: str = ""  # ours, such as "16x" where the claim is about "64x"


def results(folder: Path | None = None) -> dict[str, Results]:
    """Read what has been measured, ``<table>.csv`` in a folder (default: ``results`` among the shipped data)."""
    folder = folder or assets.SHIPPED / "results"
    return {name: read(path) for name in TABLES if (path := folder / f"{name}.csv").is_file()}


def verdict(claim: Claim, records: Iterable[Record]) -> Verdict:
    """Judge a claim by the differences between its two rows on the same faces, at the paper's setting.

    *Reproduced*: the whole 95 % interval of the mean difference (`records.interval`) lies on the claimed side. *Not
    reproduced*: it lies on the other. *Undecided*: it reaches over zero, or there is none, as for fewer than `FEWEST`
    faces; or the claim's ``undecided`` says why one training cannot decide, and there is one.
    *Contradictory*: the paper's own numbers deny its words, so neither can be reproduced alone.

    Records of other tables are passed over. A ``ValueError`` says that a row holds a face twice.
    """
    judged = _of_the_words(claim, records)
    if claim.undecided and judged.interval and judged.trainings == 1:
        judged = replace(judged, word="undecided", reason=claim.undecided)
    if not claim.contradicted or judged.ours is None:
        return judged
    sides = {"reproduced": "ours go with its words", "not reproduced": "ours go with its numbers"}
    return replace(judged, word="contradictory", reason=sides.get(judged.word, judged.reason))


def _of_the_words(claim: Claim, records: Iterable[Record]) -> Verdict:
    if claim.untested:
        return Verdict("not measured", claim.untested)
    if not claim.table:
        return Verdict("in its chapter", claim.chapter)
    if claim.table in TABLES and claim.at in TABLES[claim.table].elsewhere:
        return Verdict("not measured", f"the pictures of {claim.at} are not to be had here")
    table = [record for record in records if record.table == claim.table]
    here = [record for record in table if record.paper == claim.at]
    rows = {label: [record for record in here if model(record.row) == label] for label in (claim.better, claim.worse)}
    if missing := [f"{label!r} at {claim.at}" for label, found in rows.items() if not found]:
        return Verdict("not measured", f"no results of {missing[0] if table else claim.table}")
    name, how, setting = claim.metric, "", here[0].setting
    if name in STAND_INS and not any(record.metric == name for record in here):
        name, how = STAND_INS[name]
    better, worse = (by_training(found, name) for found in rows.values())
    if not better or not worse:
        return Verdict("not measured", _reason(claim.metric))
    pairs = [(better[seed], worse[seed]) for seed in sorted(better.keys() & worse.keys())]  # same start and patches
    if not pairs or any(one.keys() != other.keys() for one, other in pairs):
        return Verdict("not measured", "the two rows were measured on different faces")
    if not all(isfinite(value) for pair in pairs for values in pair for value in values.values()):
        return Verdict("not measured", "some values are not finite")
    set_values = [[values.pop(OF_ALL_FACES) for values in pair if OF_ALL_FACES in values] for pair in pairs]
    means = set_values if all(set_values) else [[fmean(values.values()) for values in pair] for pair in pairs]
    ours = fmean(mean[0] for mean in means), fmean(mean[1] for mean in means)
    differences = [[one[face] - other[face] for face in sorted(one)] for one, other in pairs]
    faces, trained = len(differences[0]), len(pairs)
    judged = Verdict("undecided", ours=ours, faces=faces, trainings=trained, measured=how, setting=setting)
    if faces < FEWEST:
        few = f"fewer than {FEWEST} pictures" if faces else "one value for all pictures"
        return replace(judged, reason=f"{few}: no interval")
    low, high = interval(differences)
    difference = fmean(map(fmean, differences))
    claimed, other = (low > 0, high < 0) if METRICS[claim.metric].more_is_better else (high < 0, low > 0)
    word: Word = "reproduced" if claimed else "not reproduced" if other else "undecided"
    tie = "the two rows are equal" if low == high else "the interval reaches over zero"
    reason = tie if word == "undecided" else ""
    return replace(judged, word=word, reason=reason, difference=difference, interval=(low, high))


def verdicts(paper: str | None = None, folder: Path | None = None) -> list[tuple[Claim, Verdict]]:
    """Judge every claim, or every claim of one paper, by the results in a folder (see `results`)."""
    known = claims.papers()
    chosen = known if paper is None else {choose(paper, known, "paper"): known[paper]}
    measured = {name: one.records for name, one in results(folder).items()}
    return [(claim, verdict(claim, measured.get(claim.table, ()))) for one in chosen.values() for claim in one.claims]


def count(judged: Iterable[tuple[Claim, Verdict]]) -> dict[Word, int]:
    """Count the verdicts; every word is there, at 0 if need be."""
    words = Counter(verdict.word for _, verdict in judged)
    return {word: words[word] for word in WORDS}


def summary(paper: str, folder: Path | None = None) -> Table:
    """Lay a paper's statements out: place, what tests it, how its comparisons came out, what differs here."""
    statements: dict[str, list[tuple[Claim, Verdict]]] = {}
    for claim, judged in verdicts(paper, folder):
        statements.setdefault(claim.id, []).append((claim, judged))
    found, rows = results(folder), []
    for group in statements.values():
        claim = group[0][0]
        tables = [] if claim.untested else [claim.table]
        by = " and ".join(filter(None, (*tables, claim.chapter and f"chapter {claim.chapter[:2].lstrip('0')}")))
        words = ", ".join(f"{n} {word}" for word, n in count(group).items() if n)
        opposite = sum(one.contradicted for one, _ in group)
        readings = claim.readings and f"readings: {claim.readings}"
        differs = "; ".join(filter(None, (_another_prior(found.get(claim.table)), claim.differs, readings)))
        against = f"{opposite} of {len(group)}" if opposite else ""
        rows.append([claim.says, claim.where, by or "nothing", words, against, differs])
    columns = ["claim", "where", "tested by", "verdicts", "paper against itself", "what differs here"]
    return Table(columns, rows)


def table(
    paper: str, folder: Path | None = None, *, keep: Callable[[Claim, Verdict], object] = lambda *_: True
) -> Table:
    """Lay a paper's comparisons out (those to ``keep``): better row first; its numbers; ours; budget; verdict."""
    found, rows = results(folder), []
    for claim, judged in (pair for pair in verdicts(paper, folder) if keep(*pair)):
        word = judged.word + (f": {judged.reason}" if judged.reason else "")
        if not claim.metric:
            rows.append([claim.says, claim.where, "", "", "", word])
            continue
        codes = claim.table in TABLES and TABLES[claim.table].measure is measures.gaussianity  # not pictures
        at = claim.at if judged.setting in ("", claim.at) else f"{claim.at} (here {judged.setting})"
        scale = [] if at == "1x" else [at.replace("x", "×")]  # where nothing is made small
        place = [claim.where.split(",")[0], *scale, METRICS[claim.metric].label]
        budget = []
        if judged.ours:
            measured, sets = found[claim.table], f"{judged.faces} sets of codes" if codes else ""
            trainings = f"{judged.trainings} trainings" if judged.trainings > 1 else ""
            budget = list(filter(None, [measured.origin.budget(sets), trainings, _another_prior(measured)]))
        comparison = f"{claim.better} better than {claim.worse}"
        rows.append([comparison, ", ".join(place), _theirs(claim), _ours(claim, judged), "; ".join(budget), word])
    columns = ["comparison", "where, at, by", "paper", "ours, difference and 95 % interval", "budget", "verdict"]
    return Table(columns, rows)


@cache
def _shipped() -> dict[str, str]:
    return run.weights("DFG", FacePrior.load("faces-64"))


def _another_prior(measured: Results | None) -> str:
    """Tell results apart that are not the shipped prior's."""
    if measured is None or measured.origin.prior == "none":
        return ""
    theirs = measured.origin.weights  # of other networks, too
    same = all(theirs[name] == digest for name, digest in _shipped().items() if name in theirs)
    return "" if same else "measured with another prior"


def _reason(metric: str) -> str:
    """Say why there is no value of a metric."""
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
        text += f", {unit * judged.difference:+.2g} [{low:+.2g}, {high:+.2g}]"
    return text.replace("-", "−") + (f" ({judged.measured})" if judged.measured else "")
