"""Progressive face super-resolution (Kim et al. 2019): the rows of its tables, on faces of 128² halved three times.

"Unaligned" are the same faces, moved at random. Networks that are shipped have learnt from aligned faces only, those of
table 2 from faces like the ones that they are measured on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from facesr_lib.degrade import halved
from facesr_lib.evaluation import measures
from facesr_lib.evaluation.records import SEED, model
from facesr_lib.evaluation.tables import BASELINES, PaperTable, Row

COMPARED = (
    *BASELINES,
    *(Row(name, name.lower()) for name in ("URDGN", "FSRNet", "FSRGAN", "VDSR")),
    Row("progressive", "progressive"),
)
DISTILLED = Row("distilled FAN", "progressive")
SHIPPED = Row("all, as shipped", "progressive")

ABLATIONS = {  # row → the run of its training, and the flags that leave something out
    "pixel + WGAN": ("pixel", "--feature 0 --heatmap 0 --attention 0"),
    "pixel + WGAN + feature": ("feature", "--heatmap 0 --attention 0"),
    "pixel + WGAN + feature + heatmap": ("heatmap", "--attention 0"),
    "all, no progressive": ("direct", "--progressive false"),
    "all": ("all", ""),
}


def _ablations(moved: bool) -> Iterator[Row]:
    """Rows of table 2; whether growing helps is asked three times, with other random numbers."""
    for label, (run, flags) in ABLATIONS.items():
        for seed in range(3 if run in ("direct", "all") else 1):
            number = f"-{seed}" * bool(seed)
            given = f"{flags} {'--unaligned' * moved} {f'--seed {seed}' * bool(seed)}"
            folder = f"progressive-2/{run}{'-unaligned' * moved}{number}"
            yield Row(label + f"{SEED}{seed}" * bool(seed), "progressive", needs=folder, flags=given)


def _taught_aligned() -> Iterator[Row]:
    """Rows of the whole method's networks that have seen aligned faces only, to be measured on others."""
    for row in _ablations(False):
        if model(row.label) == "all":
            yield replace(row, label=row.label.replace("all", "all, taught aligned faces"))


def _heatmaps(moved: bool) -> Iterator[Row]:
    """Rows of figure 4, and of table 1's PSNR: trainings alike but for the landmark network."""
    for label, run, fan in (("FAN", "progressive-fig4/fan", "--fan fan"), ("distilled FAN", "progressive-2/all", "")):
        yield Row(label, "progressive", needs=run + "-unaligned" * moved, flags=f"{fan} {'--unaligned' * moved}")


def _hidden(label: str, network: str, needs: str = "") -> Iterator[Row]:
    for covered, points in ((True, "covered points"), (False, "other points")):
        yield Row(f"{label}, {points}", options={"network": network, "covered": covered}, needs=needs)


def _table(about: str, rows: Iterable[Row], unaligned: Iterable[Row], **more: Any) -> PaperTable:
    given: dict[str, Any] = {"measure": measures.reported, "resolution": 128, "operator": halved} | more
    return PaperTable(about, {8: 8}, tuple(rows), unaligned=tuple(unaligned), **given)


TABLES = {
    "progressive-1": _table(
        "the landmark network",
        (Row("FAN", options={"network": ""}), DISTILLED),
        (DISTILLED,),
        measure=measures.attention,
        networks=("landmarks",),
    ),
    "progressive-2": _table(
        "what the losses and the growing add",
        (SHIPPED, *_ablations(False)),
        (SHIPPED, *_ablations(True), *_taught_aligned()),
    ),
    "progressive-3": _table("progressive against the others", COMPARED, COMPARED),
    "progressive-fig3": PaperTable(
        "weights where landmarks are hidden",
        {1: 1},
        (
            *_hidden("FAN", "fan", "fan"),
            *_hidden("official", "distilled-fan", "distilled-fan"),
            *_hidden("distilled FAN", "landmarks"),
        ),
        measures.hidden,
        resolution=128,
    ),
    "progressive-fig4": _table(
        "attention to FAN's heatmaps and to the distilled network's", _heatmaps(False), _heatmaps(True)
    ),
}
