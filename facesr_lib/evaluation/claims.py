"""The papers' facts, as ``data/papers`` holds them (see its README); `ledger` judges the claims."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from facesr_lib import assets, files
from facesr_lib.evaluation.measures import METRICS
from facesr_lib.evaluation.papers import TABLES
from facesr_lib.messages import choose

Cell = tuple[str, str, str, str]
"""Where a printed number stands: table, the paper's setting, row, metric."""


@dataclass(frozen=True)
class Claim:
    """One comparison that a paper makes: this row is better than that row by this metric."""

    id: str  # of the statement, which all its comparisons share, as `paper`, `where` and `says`
    paper: str
    where: str  # in the paper
    says: str  # in plain words
    table: str = ""  # that tests it, or would; "" if none does
    chapter: str = ""  # that tests it or shows it small
    untested: str = ""  # why nothing here can test it
    undecided: str = ""  # why no difference that is measured here can decide it
    metric: str = ""  # in `METRICS`; "", as both rows, where the test stands in a chapter
    better: str = ""
    worse: str = ""
    at: str = ""  # the paper's setting, such as "64x"
    theirs: tuple[Decimal, Decimal] | None = None  # the better and the worse row's value, if they are printed
    differs: str = ""  # here, beyond what is different for the whole paper
    readings: str = ""  # of the text, that were tried

    @property
    def contradicted(self) -> bool:
        """Whether the paper's own numbers say the opposite."""
        if self.theirs is None:
            return False
        better, worse = self.theirs
        return better < worse if METRICS[self.metric].more_is_better else better > worse


@dataclass(frozen=True)
class Paper:
    """What is known of a paper."""

    title: str
    protocol: str  # what its numbers come from
    differs: str  # here, in every comparison
    printed: Mapping[Cell, Decimal]  # digit for digit
    claims: tuple[Claim, ...]  # one per statement, setting and metric
    conflicts: tuple[tuple[str, str], ...]  # places that do not agree, and what they say


def papers() -> dict[str, Paper]:
    """Read the facts of every paper that comes with the library, by its short name."""
    return {path.stem: load(path) for path in sorted((assets.SHIPPED / "papers").glob("*.toml"))}


def load(path: Path) -> Paper:
    """Read a paper's facts.

    A ``ValueError`` names file and claim, and the way out: a field is missing or unknown, an id stands twice, a claim
    refers to a number that is not there, or a table, row, metric or setting does not exist.
    """
    with _named(path.name):
        content = files.read_toml(path, parse_float=Decimal)  # it keeps the digits of 0.50
        _check(content, ("title", "protocol", "differs"), ("table", "claim", "conflict"))
        printed: dict[Cell, Decimal] = {}
        for name, entry in content.get("table", {}).items():
            with _named(f"table {name!r}"):
                printed |= _printed(name, entry)
        claims: list[Claim] = []
        for number, entry in enumerate(content.get("claim", []), 1):
            with _named(f"claim {entry.get('id', f'number {number}')!r}"):
                if any(claim.id == entry.get("id") for claim in claims):
                    raise ValueError("it stands twice; give one of the two another id.")
                claims += _comparisons(path.stem, entry, printed)

        def number_at(cell: re.Match[str]) -> str:
            return str(_number(printed, tuple(cell[1].split(" | "))))

        conflicts = []
        for number, entry in enumerate(content.get("conflict", []), 1):
            with _named(f"conflict number {number}"):
                _check(entry, ("where", "says"))
                conflicts.append((entry["where"], re.sub(r"\{(.+?)\}", number_at, entry["says"])))
    title, protocol, differs = content["title"], content["protocol"], content["differs"]
    return Paper(title, protocol, differs, printed, tuple(claims), tuple(conflicts))


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Say in which place a slip is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _check(entry: Mapping[str, Any], required: Iterable[str], optional: Iterable[str] = ()) -> None:
    for field in entry:
        choose(field, (*required, *optional), "field")
    if missing := [field for field in required if not entry.get(field)]:
        raise ValueError(f"it lacks {', '.join(missing)}: add what is missing.")


def _printed(name: str, entry: Mapping[str, Any]) -> Iterator[tuple[Cell, Decimal]]:
    """Read a printed table."""
    _check(entry, ("metrics", "printed"), ("absent", "unmeasured"))
    columns = [choose(metric, METRICS, "metric") for metric in entry["metrics"]]
    labels, settings = list(entry.get("absent", ())), list(entry["printed"])
    if not entry.get("unmeasured"):
        labels += [row.label for row in TABLES[choose(name, TABLES, "table")].rows]
        settings = TABLES[name].paper_settings
    for setting, rows in entry["printed"].items():
        choose(setting, settings, "setting")
        for row, numbers in rows.items():
            choose(row, labels, "row")
            if len(numbers) != len(columns) or not all(map(_is_printed, columns, numbers)):
                raise ValueError(
                    f"{row!r} at {setting} needs a number for each of {', '.join(columns)}, with all its digits, such "
                    f'as 0.50, or "" where none is printed; it has {", ".join(map(str, numbers))}.'
                )
            found = zip(columns, numbers, strict=True)
            yield from (((name, setting, row, metric), Decimal(n)) for metric, n in found if n != "")


def _is_printed(metric: str, number: object) -> bool:
    return isinstance(number, int if METRICS[metric].whole else Decimal) or number == ""


def _comparisons(paper: str, entry: Mapping[str, Any], printed: Mapping[Cell, Decimal]) -> Iterator[Claim]:
    """Check a claim and take it apart into its comparisons."""
    compared = ("table", "better", "worse", "by", "at")
    _check(entry, ("id", "where", "says"), (*compared, "chapter", "untested", "undecided", "differs", "readings"))
    if not any(entry.get(field) for field in ("table", "chapter", "untested")):
        raise ValueError("say what tests it (table or chapter) or why nothing does (untested).")
    if len(given := [field for field in compared if entry.get(field)]) not in (0, len(compared)):
        raise ValueError(f"{', '.join(compared)} belong together; it has {', '.join(given)} only.")
    untold = {cell[0]: cell for cell in printed if cell[0] not in TABLES}
    if entry.get("table") in untold and not entry.get("untested"):
        raise ValueError(f"nothing measures {entry['table']}: say why the claim is not tested (untested).")
    shared = {field: value for field, value in entry.items() if field not in ("by", "at")} | {"paper": paper}
    if not given:
        yield Claim(**shared)
        return
    table = choose(entry["table"], [*TABLES, *untold], "table")
    settings = TABLES[table].paper_settings if table in TABLES else {cell[1] for cell in printed if cell[0] == table}
    if not entry.get("untested"):
        for row in (entry["better"], entry["worse"]):
            choose(row, [row.label for row in TABLES[table].rows], "row")
    numbers = entry["where"].startswith("table") or any(cell[0] == table for cell in printed)
    for at in entry["at"]:
        for metric in entry["by"]:
            place = choose(at, settings, "setting"), choose(metric, METRICS, "metric")
            better, worse = ((table, place[0], entry[side], place[1]) for side in ("better", "worse"))
            theirs = (_number(printed, better), _number(printed, worse)) if numbers else None
            yield Claim(**shared, at=at, metric=metric, theirs=theirs)


def _number(printed: Mapping[Cell, Decimal], cell: Cell) -> Decimal:
    if cell in printed:
        return printed[cell]
    raise ValueError(f"no number is printed at {' | '.join(cell)}: add it to the file's tables, or do not refer to it.")
