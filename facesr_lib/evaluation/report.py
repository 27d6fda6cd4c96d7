"""A table laid out: ours beside the paper's."""

from __future__ import annotations

from statistics import fmean

from facesr_lib import chapter, metrics
from facesr_lib.evaluation import claims, unaligned
from facesr_lib.evaluation.measures import METRICS
from facesr_lib.evaluation.papers import TABLES
from facesr_lib.evaluation.records import OF_ALL_FACES, Results, by_training, interval, model
from facesr_lib.messages import choose
from facesr_lib.tables import Table


def table(name: str, results: Results) -> Table:
    """Lay a table out: ours with the interval that holds the mean in 95 of 100 resamplings of the faces, the paper's.

    There is a row per scale and method, with its width and budget where it is a network; a metric that neither measured
    is left out. Where ours are of the prior's own samples, which are easier, the paper's say that they are of others.
    """
    choose(name, TABLES, "table")
    printed = {cell: n for paper in claims.papers().values() for cell, n in paper.printed.items() if cell[0] == name}
    records = [r for r in results.records if r.table == name]
    columns = list(dict.fromkeys([cell[3] for cell in printed] + [r.metric for r in records]))
    others = ", on other faces:" if results.origin.faces_from == chapter.SAMPLES else ""
    trained = dict(part.split(": ", 1) for part in results.origin.networks.split("; ") if ": " in part)
    rows = []
    for setting, paper, row in dict.fromkeys((r.setting, r.paper, model(r.row)) for r in records):
        here = [r for r in records if (r.setting, r.paper, model(r.row)) == (setting, paper, row)]
        cells = [setting.replace("x", "×") + ("" if setting == paper else f" (paper: {paper})".replace("x", "×"))]
        described = TABLES[name].unaligned if setting == unaligned.NAME else TABLES[name].rows
        network = next((one.needs or one.method for one in described if one.label == row), "")
        cells.append(f"{row} ({trained[network]})" if network in trained else row)
        if (several := len({r.row for r in here})) > 1:
            cells[-1] += f" ({several} trainings)"
        for metric in columns:
            values = list(by_training(here, metric).values())
            count = metric in METRICS and METRICS[metric].whole and bool(values)  # the same for every face
            parts = [f"{min(values[0].values()):,.0f}" if count else ours(values)]
            if not values and metric in metrics.available().keys() - results.origin.metrics.split():
                parts = ["unavailable"]  # where it was measured; `metrics.available` says why
            if (number := printed.get((name, paper, row, metric))) is not None:
                parts.append(f"paper{others} {number / METRICS[metric].unit}")
            cells.append(" · ".join(filter(None, parts)))
        rows.append(cells)
    return Table(["scale", "method", *columns], rows)


def ours(trainings: list[dict[int, float]]) -> str:
    """Write a mean with its interval; of a set metric the whole set's value, then that without the small set's bias."""
    wholes = [values.pop(OF_ALL_FACES) for values in trainings if OF_ALL_FACES in values]
    parts = [f"{fmean(wholes):.4g}"] if wholes else []
    values = [list(one.values()) for one in trainings if one]
    if values:
        mean = f"{fmean(map(fmean, values)):.4g}"
        if len(values[0]) > 1:
            low, high = interval(values)
            mean += f" [{low:.4g}, {high:.4g}]"
        parts.append(f"corrected {mean}" if wholes else mean)
    return ", ".join(parts)
