"""The ledger: what the papers claim is transcribed in full and in order, and a verdict follows from the records."""

import re
from dataclasses import replace
from decimal import Decimal
from math import nan

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from facesr_lib import assets, metrics
from facesr_lib.evaluation import claims, ledger
from facesr_lib.evaluation import run as experiments
from facesr_lib.evaluation.claims import Claim, load
from facesr_lib.evaluation.ledger import count, verdict
from facesr_lib.evaluation.run import EXPERIMENTS, Record

ALL = load()
PSNR = Claim(
    "some", "dse", "table 1", "dse is better", "dse-1", metric="psnr", better="dse", worse="PULSE", at="8x",
    theirs=(Decimal("23.52"), Decimal("22.54")),
)  # fmt: skip
LPIPS = replace(PSNR, metric="lpips", theirs=(Decimal("0.25"), Decimal("0.28")))


def records(better, worse, metric="psnr", first=0, rows=("dse", "PULSE")):
    """Long form of two rows' values, face by face."""
    values = zip(rows, (better, worse), strict=True)
    return [Record("dse-1", "8x", row, first + i, metric, v) for row, column in values for i, v in enumerate(column)]


# The file


def test_every_claim_has_a_place_and_a_test_or_a_reason_for_none():
    assert {claim.paper for claim in ALL} == {"dse", "rls"} == set(claims.papers())
    assert len({(claim.id, claim.metric, claim.at) for claim in ALL}) == len(ALL)
    for claim in ALL:
        assert re.match(r"(table|figure|section) \d", claim.where), claim.id
        assert claim.experiment or claim.chapter or claim.untested, claim.id
        if claim.chapter:
            assert (ROOT / "book" / f"{claim.chapter}.ipynb").is_file(), claim.id
        if claim.experiment:
            scales = EXPERIMENTS[claim.experiment].scales
            assert claim.setting in [f"{scale}x" for scale in scales], claim.id


def test_papers_tables_are_covered():
    placed = {(claim.paper, place) for claim in ALL for place in re.findall(r"(?:table|figure) \d+", claim.where)}
    in_dse = {("dse", place) for place in ("table 1", "table 2", "figure 4")}
    in_rls = {("rls", f"table {i}") for i in range(1, 6)} | {("rls", f"figure {i}") for i in (2, 3, 7, 10)}
    assert in_dse | in_rls <= placed
    assert len(claims.conflicts()) > 5
    assert {conflict.paper for conflict in claims.conflicts()} == {"dse", "rls"}


def test_every_table_of_the_experiments_but_one_tests_a_claim():
    untested = set(EXPERIMENTS) - {claim.experiment for claim in ALL}
    # the papers' table 3 compares with methods that the project does not have
    assert untested == {"rls-3"}


def test_numbers_agree_with_the_tables_of_the_papers():
    """Both files were transcribed: a slip in one shows against the other."""
    printed = {
        (r.experiment, r.setting, r.method, r.metric): r.value
        for r in experiments.read(assets.SHIPPED / "paper-tables.csv")
    }
    compared = 0
    for claim in ALL:
        if not claim.theirs or claim.metric == "id":
            continue
        for row, value in zip((claim.better, claim.worse), claim.theirs, strict=True):
            key = claim.experiment or "rls-3", claim.at, row, claim.metric
            if key in printed:
                compared += 1
                assert float(value) / claims.METRICS[claim.metric].unit == pytest.approx(printed[key], rel=1e-9), key
            else:
                assert not claim.experiment, f"{key} is not in paper-tables.csv"
    assert compared > 150


def test_papers_numbers_are_on_the_claimed_side_but_where_we_know_of_it():
    opposite = {}
    for claim in ALL:
        if claim.contradicted:
            opposite.setdefault(claim.id, set()).add((claim.metric, claim.at))
    assert opposite == {
        "dse-mganprior": {("ssim", "16x")},
        "dse-supervised": {("lpips", "8x")},
        "rls-pulse": {("fid", "64x"), ("kid", "64x")},
        "rls-w": {("niqe", "16x")},
        "rls-ball": {(metric, "16x") for metric in ("fid", "kid", "id", "psnr", "ms_ssim")},
        "rls-robust-salt": {("niqe", "16x"), ("id", "16x")},
        "rls-robust-motion": {("id", "16x")},
        "rls-robust-noise": {("niqe", "16x")},
        "rls-robust-blur": {("id", "16x"), ("ms_ssim", "16x")},
        "rls-regularisers": {("ms_ssim", "64x")},
        "rls-cross": {("lpips", "64x"), ("ms_ssim", "64x")},
    }


def test_digits_are_kept_as_printed():
    [claim] = [c for c in ALL if (c.id, c.metric, c.at) == ("dse-pulse", "lpips", "16x")]
    assert [str(value) for value in claim.theirs] == ["0.27", "0.30"]


def test_metrics_can_be_measured_or_are_known_not_to_be():
    other = {
        "id",
        "residual",
        "seconds",
        "diversity",
        "ks",
        "wasserstein",
    }  # what `experiments` measures beyond the metrics proper; but for ID
    assert set(claims.METRICS) <= set(metrics.available()) | other


ENTRY = """
[papers.dse]
title = "t"
protocol = "p"
differs = "d"

[[claim]]
id = "first"
paper = "dse"
where = "table 1"
says = "dse is better"
experiment = "dse-1"
better = "dse"
worse = "PULSE"
figures = [["8x", "psnr", 23.52, 22.54]]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('where = "table 1"', "", r"'first' lacks where"),
        ('id = "first"', "", r"number 1.* lacks id"),
        ('says = "dse', 'sais = "dse', r"lacks says"),
        ('where = "table 1"', 'where = "table 1"\nnote = "x"', r"unknown note"),
        ('paper = "dse"', 'paper = "other"', r"paper is 'other'; choose one of dse"),
        ('"dse-1"', '"dse-9"', r"no table 'dse-9'; choose one of dse-1"),
        ('worse = "PULSE"', 'worse = "puls"', r"no row 'puls'.*PULSE"),
        ('worse = "PULSE"', "", r"belong together"),
        ('experiment = "dse-1"', "", r"what tests it"),
        ('experiment = "dse-1"', 'experiment = "dse-1"\nuntested = "x"', r"what tests it"),
        ('"psnr"', '"snr"', r"no metric 'snr'"),
        ('"8x"', '"64x"', r"no '64x', only 8x, 16x"),
        (", 22.54", "", r"a figure is"),
        ("22.54", "22", r"all their digits"),
    ],
)
def test_slip_in_the_file_is_named(tmp_path, old, new, message):
    path = tmp_path / "claims.toml"
    path.write_text(ENTRY)
    assert [claim.setting for claim in load(path)] == ["8x"]
    assert ENTRY.count(old) == 1
    path.write_text(ENTRY.replace(old, new))
    with pytest.raises(ValueError, match=message):
        load(path)


def test_same_id_twice_is_refused(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text(ENTRY + ENTRY[ENTRY.index("[[claim]]") :])
    with pytest.raises(ValueError, match="'first' stands twice"):
        load(path)


# Verdicts


@pytest.mark.parametrize(
    ("shift", "of_psnr", "of_lpips"),
    [(2.0, "reproduced", "not reproduced"), (-2.0, "not reproduced", "reproduced"), (0.0, "undecided", "undecided")],
)
def test_verdict_follows_the_side_on_which_the_interval_lies(shift, of_psnr, of_lpips):
    faces = [20.0 + 3 * i for i in range(10)]  # faces differ by more than methods: only pairs can tell
    better = [value + shift + (-1) ** i for i, value in enumerate(faces)]
    for claim, word in ((PSNR, of_psnr), (LPIPS, of_lpips)):
        found = verdict(claim, records(better, faces, claim.metric))
        assert found.word == word
        assert found.faces == 10
        low, high = found.interval
        assert low < shift < high
        assert found.ours[0] - found.ours[1] == pytest.approx(shift)


def test_equal_rows_decide_nothing():
    faces = [20.0 + i for i in range(10)]
    judged = verdict(PSNR, records(faces, faces))
    assert (judged.word, judged.reason, judged.interval) == ("undecided", "the two rows are equal", (0.0, 0.0))


@pytest.mark.parametrize(
    ("shift", "reason"), [(2.0, "go with its words"), (-2.0, "go with its numbers"), (0.0, "the two rows are equal")]
)
def test_a_paper_that_contradicts_itself_is_not_reproduced_either_way(shift, reason):
    divided = replace(PSNR, theirs=(Decimal("20.1"), Decimal("20.2")))
    faces = [20.0 + i for i in range(10)]
    judged = verdict(divided, records([value + shift for value in faces], faces))
    assert judged.word == "contradictory"
    assert reason in judged.reason
    assert verdict(divided, []).word == "not measured"


@given(
    st.lists(st.tuples(st.floats(10, 40), st.floats(10, 40)), min_size=ledger.FEWEST, max_size=14),
    st.sampled_from([PSNR, LPIPS]),
)
def test_swapping_the_rows_turns_the_verdict_round(pairs, claim):
    found = records(*map(list, zip(*pairs, strict=True)), metric=claim.metric)
    one, other = verdict(claim, found), verdict(replace(claim, better=claim.worse, worse=claim.better), found)
    turned = {"reproduced": "not reproduced", "not reproduced": "reproduced", "undecided": "undecided"}
    assert other.word == turned[one.word]
    assert other.interval == pytest.approx([-one.interval[1], -one.interval[0]], abs=1e-9)
    assert verdict(claim, found[::-1]) == one  # the order of the records says nothing


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([], "no results of dse-1"),
        ([replace(r, experiment="rls-1") for r in records([1.0], [2.0])], "no results of dse-1"),
        ([replace(r, setting="16x") for r in records([1.0], [2.0])], "no results of 'dse' at 8x"),
        (records([1.0, 2.0], []), "no results of 'PULSE' at 8x"),
        (records([1.0, 2.0], [2.0, 3.0], "ssim"), "the results hold no PSNR"),
        (records([1.0, 2.0], [2.0]), "different faces"),
        (records([1.0, 2.0], []) + records([], [2.0, 3.0], first=1), "different faces"),
        (records([1.0, nan], [2.0, 3.0]), "not finite"),
    ],
)
def test_not_measured_says_why(found, reason):
    judged = verdict(PSNR, found)
    assert judged.word == "not measured"
    assert reason in judged.reason
    assert judged.ours is judged.interval is None


def test_unavailable_metric_is_not_measured_and_gives_the_reason(monkeypatch):
    monkeypatch.setattr(metrics, "available", lambda: {"lpips": "no AlexNet weights; run something"})
    assert verdict(LPIPS, records([1.0, 2.0], [2.0, 3.0])).reason == "no AlexNet weights"
    monkeypatch.setattr(metrics, "available", lambda: {"lpips": None})
    assert verdict(LPIPS, records([1.0, 2.0], [2.0, 3.0])).reason == "the results hold no LPIPS"
    assert "face recogniser" in verdict(replace(PSNR, metric="id"), records([1.0], [2.0])).reason


@pytest.mark.parametrize("faces", [1, ledger.FEWEST - 1])
def test_few_faces_decide_nothing(faces):
    """All of them agree; of fewer than six faces all agree by chance in more than one case of twenty."""
    judged = verdict(PSNR, records([30.0] * faces, [20.0] * faces))
    assert (judged.word, judged.interval, judged.faces) == ("undecided", None, faces)
    assert "fewer than" in judged.reason
    assert verdict(PSNR, records([30.0] * ledger.FEWEST, [20.0] * ledger.FEWEST)).word == "reproduced"


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_one_value_for_all_faces_decides_nothing(metric):
    claim = replace(PSNR, metric=metric, theirs=None)
    whole = records([1.0], [2.0], f"{metric}-{experiments.FEATURES}", first=experiments.OF_ALL_FACES)
    judged = verdict(claim, whole)
    assert (judged.word, judged.ours, judged.interval) == ("undecided", (1.0, 2.0), None)
    assert experiments.FEATURES in judged.measured  # not the paper's, and it says so
    own = verdict(claim, whole + records([3.0], [4.0], metric, first=experiments.OF_ALL_FACES))
    assert (own.ours, own.measured) == ((3.0, 4.0), "")


def test_niqe_of_enlarged_faces_is_named():
    judged = verdict(replace(PSNR, metric="niqe", theirs=None), records([4.0] * 9, [5.0] * 9, "niqe-256"))
    assert (judged.word, judged.measured) == ("reproduced", "of faces enlarged to 256²")


def test_stand_ins_are_what_the_experiments_measure():
    source = (ROOT / "facesr_lib" / "experiments.py").read_text()
    for metric, (name, _) in ledger.STAND_INS.items():
        written = name.replace(experiments.FEATURES, "{FEATURES}")
        assert f'"{written}"' in source, f"experiments measures no {name}, which stands in for {metric}"


def test_two_runs_in_one_heap_are_refused():
    with pytest.raises(ValueError, match="face 0 has two values of psnr"):
        verdict(PSNR, 2 * records([1.0, 2.0], [2.0, 3.0]))


def test_same_records_same_verdict():
    found = records([20.0, 21.5, 19.0, 24.0] * 2, [19.5, 21.0, 19.2, 22.0] * 2)
    assert verdict(PSNR, found) == verdict(PSNR, found)


# Results and what is printed


@pytest.fixture
def folder(tmp_path):
    rows = [
        Record("dse-1", "8x", row, i, "psnr", v + i) for row, v in (("dse", 22.0), ("PULSE", 20.5)) for i in range(9)
    ]
    experiments.write(tmp_path / "dse-1.csv", rows, "prior tiny, faces 9")
    return tmp_path


def test_results_are_read_with_their_budget(folder):
    assert set(ledger.results(folder)) == {"dse-1"}
    assert ledger.results(folder)["dse-1"].budget == "prior tiny, faces 9"
    assert len(ledger.results(folder)["dse-1"].records) == 18
    experiments.write(folder / "rls-1.csv", [])
    assert ledger.results(folder)["rls-1"].budget == "budget not recorded"


def test_without_results_nothing_is_claimed(tmp_path):
    judged = ledger.verdicts(folder=tmp_path)
    assert {verdict.word for _, verdict in judged} == {"not measured", "in its chapter"}
    assert all(verdict.reason and verdict.ours is None for _, verdict in judged)


def test_ledger_shows_papers_number_ours_budget_and_verdict(folder):
    header, rows = ledger.table("dse", folder)
    assert all(len(row) == len(header) for row in rows)
    judged = [row for row in rows if row[-1] == "reproduced"]
    assert judged == [
        [
            "dse better than PULSE",
            "table 1, 8×, PSNR",
            "23.52 vs 22.54",
            "26 vs 24.5, +1.5 [+1.5, +1.5]",
            "9 faces; prior tiny, faces 9",
            "reproduced",
        ]
    ]
    assert any("(the opposite)" in row[2] for row in rows)
    assert any("16× (here 4×)" in row[1] for row in rows)
    assert not any(row[4] for row in rows if row not in judged)


@pytest.mark.parametrize("paper", ["dse", "rls"])
def test_summary_has_a_row_per_statement_and_counts_every_comparison(folder, paper):
    header, rows = ledger.summary(paper, folder)
    assert [row[0] for row in rows] == list(dict.fromkeys(claim.says for claim in ALL if claim.paper == paper))
    assert all(len(row) == len(header) for row in rows)
    counted = sum(int(number) for row in rows for number in re.findall(r"\d+", row[3]))
    judged = ledger.verdicts(paper, folder)
    assert counted == sum(count(judged).values()) == len(judged) == sum(claim.paper == paper for claim in ALL)
    assert count(judged)["reproduced"] == (paper == "dse")


def test_unknown_paper_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no claims of 'lsrgan'; choose one of dse, rls"):
        ledger.table("lsrgan", tmp_path)


def test_shipped_results_are_of_known_tables():
    folder = assets.SHIPPED / "results"
    assert {path.stem for path in folder.glob("*.csv")} <= set(EXPERIMENTS)
    for name, found in ledger.results().items():
        assert {record.experiment for record in found.records} == {name}
