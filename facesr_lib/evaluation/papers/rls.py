"""RLS and RLS+ (Gheisari and Genovesio 2023): the rows of their tables."""

from collections.abc import Iterable, Iterator
from math import inf
from typing import Any

from facesr_lib.degrade import GaussianBlur, GaussianNoise, MotionBlur, SaltAndPepper
from facesr_lib.evaluation import measures
from facesr_lib.evaluation.tables import BASELINES, PULSE, PaperTable, Row

ALONE = {"lambda_w": 0.0, "lambda_g": 0.0, "lambda_c": 0.0}
BRGM = Row("BRGM without its perceptual term", "brgm", {"perceptual": None, "steps": 500})
RLS = Row("RLS", "rls")
RLS_PLUS = Row("RLS+", "rls_plus", start=RLS)


def _sweep(name: str, values: Iterable[float]) -> Iterator[Row]:
    for value in values:
        yield Row(f"{name}={value:g}", "rls", ALONE | {name: value})


def _parts(rate: str = "", **more: Any) -> Iterator[Row]:
    parts: dict[str, dict[str, Any]] = {"w/o P_cross": {"lambda_c": 0.0}, "w/o W+": {"space": "w"}, "RLS": {}}
    for name, options in {"w/o Regu.": ALONE, **parts}.items():
        yield Row(name + rate, "rls", options | more)


TABLES = {
    "rls-1": PaperTable("RLS and RLS+ against the others", {8: 8, 16: 64}, (*BASELINES, PULSE, BRGM, RLS, RLS_PLUS)),
    "rls-2": PaperTable(
        "what RLS+ is made of",
        {8: 16},
        (
            Row("w/o anchor", "rls_plus", {"anchor": "mean"}),
            Row("w/o noise", "rls_plus", {"optimise": ("w", "theta")}, RLS),
            Row("w/o w", "rls_plus", {"optimise": ("theta", "eta")}, RLS),
            Row("w/o g", "rls_plus", {"optimise": ("w", "eta")}, RLS),
            Row("w/o l1-ball", "rls_plus", {"radius": inf}, RLS),
            RLS_PLUS,
        ),
    ),
    "rls-3": PaperTable("RLS+ at 16x", {16: 16}, (RLS_PLUS,)),
    "rls-4": PaperTable(
        "robustness",
        {8: 16},
        (
            RLS_PLUS,
            Row("Gaussian Noise", "rls_plus", start=RLS, corrupt=GaussianNoise(0.05)),
            Row("Salt and Pepper", "rls_plus", start=RLS, corrupt=SaltAndPepper(0.05)),
            Row("Gaussian Blur", "rls_plus", start=RLS, corrupt=GaussianBlur(0.7)),
            Row("Motion Blur", "rls_plus", start=RLS, before=MotionBlur(9, 45.0)),
        ),
    ),
    "rls-5": PaperTable(
        "what RLS is made of",
        {16: 64},
        (*_parts(), *_parts(", rate 0.1", lr=0.1)),  # a fifth of the paper's: see chapter 6
    ),
    "rls-fig2": PaperTable(
        "realism against fidelity",
        {8: 64},
        (*_sweep("lambda_w", (0, 1e-5, 1e-4, 1e-3, 1e-2)), *_sweep("lambda_g", (1e-4, 1e-3, 1e-2, 1e-1))),
    ),
    "rls-fig3": PaperTable(
        "how Gaussian codes are",
        {1: 1},
        tuple(Row(space, options={"space": space}) for space in ("Z", "W, standardised", "PULSE", "flow")),
        measures.gaussianity,
        networks=("F", "G"),
    ),
    "rls-fig7": PaperTable(
        "diversity of several answers to one picture",
        {16: 64},
        (PULSE, Row("RLS", "rls", {"start": "random"})),
        measures.diversity,
    ),
    "rls-fig10": PaperTable("what P_w adds", {8: 16}, (Row("w/o P_w", "rls", {"lambda_w": 0.0}), RLS)),
}
