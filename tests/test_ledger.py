"""The ledger: what the papers claim is transcribed in full and in order, and a verdict follows from the records."""

import re
from dataclasses import replace
from decimal import Decimal
from math import nan

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from facesr_lib import assets, data, files, metrics
from facesr_lib.evaluation import claims, ledger, measures, records, run, tables
from facesr_lib.evaluation.claims import Claim, load
from facesr_lib.evaluation.ledger import count, verdict
from facesr_lib.evaluation.papers import TABLES
from facesr_lib.evaluation.records import OF_ALL_FACES, Origin, Record, Results
from facesr_lib.networks.stylegan2 import Discriminator, Generator
from facesr_lib.prior import FacePrior

PAPERS = claims.papers()
ALL = [claim for paper in PAPERS.values() for claim in paper.claims]
PSNR = Claim(
    "some", "dse", "table 1", "dse is better", "dse-1", metric="psnr", better="dse", worse="PULSE", at="8x",
    theirs=(Decimal("23.52"), Decimal("22.54")),
)  # fmt: skip
LPIPS = replace(PSNR, metric="lpips", theirs=(Decimal("0.25"), Decimal("0.28")))


def rows(better, worse, metric="psnr", first=0, labels=("dse", "PULSE"), setting="8x", paper="8x", table="dse-1"):
    """Long form of two rows' values, face by face."""
    values = zip(labels, (better, worse), strict=True)
    return [
        Record(table, setting, paper, row, first + i, metric, v) for row, column in values for i, v in enumerate(column)
    ]


# The files


def test_every_claim_has_a_place_and_a_test_or_a_reason_for_none():
    assert {claim.paper for claim in ALL} == {"dse", "rls", "lsrgan", "progressive", "fpn"} == set(PAPERS)
    assert len({(claim.id, claim.metric, claim.at) for claim in ALL}) == len(ALL)
    for claim in ALL:
        assert re.match(r"(table|figure|section) (\d|A)", claim.where), claim.id
        assert claim.table or claim.chapter or claim.untested, claim.id
        if claim.chapter:
            assert (ROOT / "book" / f"{claim.chapter}.ipynb").is_file(), claim.id


def test_papers_tables_are_covered():
    placed = {(claim.paper, place) for claim in ALL for place in re.findall(r"(?:table|figure) \d+", claim.where)}
    in_dse = {("dse", place) for place in ("table 1", "table 2", "figure 4")}
    in_rls = {("rls", f"table {i}") for i in range(1, 6)} | {("rls", f"figure {i}") for i in (2, 3, 7, 10)}
    in_lsrgan = {("lsrgan", f"table {i}") for i in (1, 2, 3)} | {("lsrgan", "figure 3")}
    in_progressive = {("progressive", place) for place in ("table 1", "table 2", "table 3", "figure 3", "figure 4")}
    in_fpn = {("fpn", f"figure {i}") for i in (10, 12, 13, 14, 15)}
    assert in_dse | in_rls | in_lsrgan | in_progressive | in_fpn <= placed
    assert all(paper.conflicts for paper in PAPERS.values())
    assert sum(len(paper.printed) for paper in PAPERS.values()) > 250


def test_tables_that_can_test_a_claim():
    untested = set(TABLES) - {claim.table for claim in ALL if not claim.untested}
    # they compare with methods that the project does not have, or with trainings that have not been made; of patches
    # there are four
    assert untested == {"rls-3", "progressive-fig4", "lsrgan-fig3"}


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
        "lsrgan-deviation": {("psd", "set5")},
        "progressive-urdgn": {("psnr", "unaligned")},
        "lsrgan-deviation-cesr": {("psd", "set5"), ("psd", "bsd100")},
        "lsrgan-mu-small": {("psnr", "set14"), ("ssim", "set14"), ("pi", "bsd100")},
    }


def test_digits_are_kept_as_printed():
    [claim] = [c for c in ALL if (c.id, c.metric, c.at) == ("dse-pulse", "lpips", "16x")]
    assert [str(value) for value in claim.theirs] == ["0.27", "0.30"]


@pytest.mark.parametrize("paper", PAPERS)
def test_a_printed_number_stands_once(paper):
    """A claim or a conflict that repeats a number in its words can come to disagree with the table."""
    text = (assets.SHIPPED / "papers" / f"{paper}.toml").read_text(encoding="utf-8")
    words = text[text.index("[[claim]]") :]
    repeated = {str(number) for number in PAPERS[paper].printed.values()} & set(re.findall(r"\d+\.\d{2,}", words))
    assert repeated == set()
    assert any("28.3786" in says and "26.3786" in says for _, says in PAPERS["rls"].conflicts)


def test_two_tables_may_print_two_numbers_for_one_thing():
    printed = PAPERS["rls"].printed
    two, three = (printed[table, "16x", "RLS+", "fid"] for table in ("rls-2", "rls-3"))
    assert (str(two), str(three)) == ("28.3786", "26.3786")


def test_metrics_can_be_measured():
    measured = {"id_distance", "residual", "seconds", "diversity", "ks", "wasserstein", "psd", "l1"}
    measured |= {"parameters", "nme_64", "nme_128", "sunglasses", "mask", "hand", "miou", "iou_eyes", "iou_brows"}
    assert set(measures.METRICS) <= set(metrics.available()) | measured | {"mos"}  # people's, who are asked


PAPER = """
title = "t"
protocol = "p"
differs = "d"

[table.dse-1]
metrics = ["psnr"]
absent = ["FSRNet"]

[table.dse-1.printed.8x]
dse = [23.52]
PULSE = [22.50]
FSRNet = [25.08]

[[claim]]
id = "first"
where = "table 1"
says = "dse is better"
table = "dse-1"
better = "dse"
worse = "PULSE"
by = ["psnr"]
at = ["8x"]

[[conflict]]
where = "section 1"
says = "it says {dse-1 | 8x | dse | psnr} here"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "t"', "", r"p.toml: it lacks title"),
        ('title = "t"', 'title = "t', r"p.toml: "),
        ('differs = "d"', 'diffres = "d"', r"no field 'diffres': did you mean differs"),
        ('where = "table 1"', "", r"claim 'first': it lacks where"),
        ('id = "first"', "", r"claim 'number 1': it lacks id"),
        ('says = "dse', 'sais = "dse', r"no field 'sais': did you mean says"),
        ('"table 1"', '"table 1"\nremark = "x"', r"no field 'remark'"),
        ('\ntable = "dse-1"', '\ntable = "dse-9"', r"no table 'dse-9': did you mean dse-2 or dse-1"),
        ("[table.dse-1]", "[table.dse-9]", r"table 'dse-9': .*lacks printed|no table 'dse-9'"),
        ('worse = "PULSE"', 'worse = "puls"', r"claim 'first': there is no row 'puls': did you mean PULSE"),
        ("PULSE = [", "PULS = [", r"table 'dse-1': there is no row 'PULS': did you mean PULSE"),
        ('absent = ["FSRNet"]', "", r"there is no row 'FSRNet'"),
        ('worse = "PULSE"', "", r"belong together"),
        ('\ntable = "dse-1"', "", r"say what tests it"),
        ('by = ["psnr"]', 'by = ["snr"]', r"no metric 'snr': did you mean"),
        ('metrics = ["psnr"]', 'metrics = ["snr"]', r"table 'dse-1': there is no metric 'snr'"),
        ('at = ["8x"]', 'at = ["64x"]', r"no setting '64x'"),
        ("printed.8x", "printed.9x", r"table 'dse-1': there is no setting '9x'"),
        ("PULSE = [22.50]", "", r"claim 'first': no number is printed at dse-1 \| 8x \| PULSE \| psnr: add it"),
        ('by = ["psnr"]', 'by = ["psnr", "ssim"]', r"claim 'first': no number is printed at .* ssim"),
        ("| dse |", "| dsa |", r"conflict number 1: no number is printed at dse-1 \| 8x \| dsa"),
        ("[22.50]", "[22]", r"needs a number for each of psnr, with all its digits"),
        ("[22.50]", "[22.50, 1.0]", r"needs a number for each of psnr"),
        ("[22.50]", '[""]', r"claim 'first': no number is printed at dse-1 \| 8x \| PULSE"),
        ("[22.50]", '["x"]', r"needs a number for each of psnr"),
    ],
)
def test_slip_in_a_papers_file_is_named(tmp_path, old, new, message):
    path = tmp_path / "p.toml"
    path.write_text(PAPER)
    paper = load(path)
    assert [str(number) for number in paper.claims[0].theirs] == ["23.52", "22.50"]
    assert paper.conflicts == (("section 1", "it says 23.52 here"),)
    assert PAPER.count(old) == 1
    path.write_text(PAPER.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith("p.toml: ")


def test_a_table_that_nothing_measures_keeps_its_numbers_and_its_claims_say_why(tmp_path):
    path, text = (
        tmp_path / "p.toml",
        PAPER.replace("dse-1", "new-7").replace('["FSRNet"]', '["FSRNet", "dse", "PULSE"]'),
    )
    path.write_text(text)
    with pytest.raises(ValueError, match="no table 'new-7'"):
        load(path)
    unmeasured = text.replace("absent =", 'unmeasured = "why"\nabsent =')
    path.write_text(unmeasured)
    with pytest.raises(ValueError, match="claim 'first': nothing measures new-7: say why"):
        load(path)
    path.write_text(unmeasured.replace('worse = "PULSE"', 'worse = "PULSE"\nuntested = "not trained"'))
    [claim] = load(path).claims
    assert [str(number) for number in claim.theirs] == ["23.52", "22.50"]
    assert (verdict(claim, []).word, verdict(claim, []).reason) == ("not measured", "not trained")


def test_counts_are_printed_without_digits():
    small, large = (
        PAPERS["progressive"].printed["progressive-1", "8x", row, "parameters"] for row in ("distilled FAN", "FAN")
    )
    assert (small, large) == (321_412, 23_820_176)


def test_same_id_twice_is_refused(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(
        PAPER.replace("[[conflict]]", PAPER[PAPER.index("[[claim]]") : PAPER.index("[[conflict]]")]).rsplit("where", 1)[
            0
        ]
    )
    with pytest.raises(ValueError, match="claim 'first': it stands twice; give one of the two another id"):
        load(path)


def test_what_a_paper_draws_has_no_numbers_but_what_it_tabulates_must(tmp_path):
    path = tmp_path / "p.toml"
    drawn = PAPER[: PAPER.index("[table")] + PAPER[PAPER.index("[[claim]]") : PAPER.index("[[conflict]]")]
    path.write_text(drawn.replace("table 1", "figure 1"))
    assert load(path).claims[0].theirs is None
    path.write_text(drawn)
    with pytest.raises(ValueError, match="no number is printed at"):
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
        found = verdict(claim, rows(better, faces, claim.metric))
        assert found.word == word
        assert found.faces == 10
        low, high = found.interval
        assert low < shift < high
        assert found.ours[0] - found.ours[1] == pytest.approx(shift)


def test_equal_rows_decide_nothing():
    faces = [20.0 + i for i in range(10)]
    judged = verdict(PSNR, rows(faces, faces))
    assert (judged.word, judged.reason, judged.interval) == ("undecided", "the two rows are equal", (0.0, 0.0))


@pytest.mark.parametrize(
    ("shift", "reason"), [(2.0, "go with its words"), (-2.0, "go with its numbers"), (0.0, "the two rows are equal")]
)
def test_a_paper_that_contradicts_itself_is_not_reproduced_either_way(shift, reason):
    divided = replace(PSNR, theirs=(Decimal("20.1"), Decimal("20.2")))
    faces = [20.0 + i for i in range(10)]
    judged = verdict(divided, rows([value + shift for value in faces], faces))
    assert judged.word == "contradictory"
    assert reason in judged.reason
    assert verdict(divided, []).word == "not measured"


def test_a_claim_that_no_difference_can_decide_is_undecided_with_its_numbers():
    found = rows([25.0 + 0.1 * i for i in range(10)], [24.0 + 0.1 * i for i in range(10)])
    assert verdict(PSNR, found).word == "reproduced"
    judged = verdict(replace(PSNR, undecided="one training of each"), found)
    assert (judged.word, judged.reason) == ("undecided", "one training of each")
    assert judged.difference == pytest.approx(1.0)


def of_three_trainings(apart):
    """Ten faces, on which the better row wins by 1 ± 0.1; three trainings of each, which lie ``apart``."""
    found = []
    for k, seed in enumerate(("", ", seed 1", ", seed 2")):
        better = [21.0 + i + 0.1 * (-1) ** i + (k - 1) * apart for i in range(10)]
        found += rows(better, [20.0 + i for i in range(10)], labels=("dse" + seed, "PULSE" + seed))
    return found


def test_trainings_count_as_chance_besides_faces():
    claim = replace(PSNR, undecided="one training of each")
    alike, apart = verdict(claim, of_three_trainings(0.1)), verdict(claim, of_three_trainings(0.5))
    assert (alike.word, apart.word) == ("reproduced", "undecided")
    assert (alike.trainings, alike.faces, alike.difference) == (3, 10, pytest.approx(1.0))
    for judged, spread in ((alike, 0.1), (apart, 0.5)):
        low, high = judged.interval
        of_trainings = 4.303 * spread / 3**0.5  # Student's t
        assert of_trainings < (high - low) / 2 < of_trainings + 0.08
    first = verdict(claim, [r for r in of_three_trainings(0.1) if "seed" not in r.row])
    assert (first.word, first.reason, first.trainings) == ("undecided", "one training of each", 1)
    uneven = [r for r in of_three_trainings(0.1) if r.row != "dse, seed 2"]
    assert verdict(claim, uneven).trainings == 2  # compared are those that both rows have


@given(
    st.lists(st.tuples(st.floats(10, 40), st.floats(10, 40)), min_size=ledger.FEWEST, max_size=14),
    st.sampled_from([PSNR, LPIPS]),
)
def test_swapping_the_rows_turns_the_verdict_round(pairs, claim):
    found = rows(*map(list, zip(*pairs, strict=True)), metric=claim.metric)
    one, other = verdict(claim, found), verdict(replace(claim, better=claim.worse, worse=claim.better), found)
    turned = {"reproduced": "not reproduced", "not reproduced": "reproduced", "undecided": "undecided"}
    assert other.word == turned[one.word]
    assert other.interval == pytest.approx([-one.interval[1], -one.interval[0]], abs=1e-9)
    assert verdict(claim, found[::-1]) == one  # the order of the records says nothing


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([], "no results of dse-1"),
        (rows([1.0], [2.0], table="rls-1"), "no results of dse-1"),
        (rows([1.0], [2.0], setting="8x", paper="16x"), "no results of 'dse' at 8x"),
        (rows([1.0, 2.0], []), "no results of 'PULSE' at 8x"),
        (rows([1.0, 2.0], [2.0, 3.0], "ssim"), "the results hold no PSNR"),
        (rows([1.0, 2.0], [2.0]), "different faces"),
        (rows([1.0, 2.0], []) + rows([], [2.0, 3.0], first=1), "different faces"),
        (rows([1.0, nan], [2.0, 3.0]), "not finite"),
    ],
)
def test_not_measured_says_why(found, reason):
    judged = verdict(PSNR, found)
    assert judged.word == "not measured"
    assert reason in judged.reason
    assert judged.ours is judged.interval is None


def test_pictures_that_nobody_can_have_are_told():
    [claim] = [c for c in ALL if (c.id, c.metric, c.at) == ("lsrgan-esr", "ssim", "pirm")]
    judged = verdict(claim, [])
    assert (judged.word, judged.reason) == ("not measured", "the pictures of pirm are not to be had here")


def test_unavailable_metric_is_not_measured_and_gives_the_reason(monkeypatch):
    monkeypatch.setattr(metrics, "available", lambda: {"lpips": "no AlexNet weights; run something"})
    assert verdict(LPIPS, rows([1.0, 2.0], [2.0, 3.0])).reason == "no AlexNet weights"
    monkeypatch.setattr(metrics, "available", lambda: {"lpips": None})
    assert verdict(LPIPS, rows([1.0, 2.0], [2.0, 3.0])).reason == "the results hold no LPIPS"
    monkeypatch.setattr(metrics, "available", lambda: {"id": "no face recogniser; install the extra"})
    assert verdict(replace(PSNR, metric="id"), rows([1.0], [2.0])).reason == "no face recogniser"


@pytest.mark.parametrize("faces", [1, ledger.FEWEST - 1])
def test_few_faces_decide_nothing(faces):
    """All of them agree; of fewer than six faces all agree by chance in more than one case of twenty."""
    judged = verdict(PSNR, rows([30.0] * faces, [20.0] * faces))
    assert (judged.word, judged.interval, judged.faces) == ("undecided", None, faces)
    assert "fewer than" in judged.reason
    assert verdict(PSNR, rows([30.0] * ledger.FEWEST, [20.0] * ledger.FEWEST)).word == "reproduced"


@pytest.mark.parametrize("metric", ["fid", "kid"])
def test_one_value_for_all_faces_decides_nothing(metric):
    claim, (name, how) = replace(PSNR, metric=metric, theirs=None), measures.STAND_INS[metric]
    whole = rows([1.0], [2.0], name, first=OF_ALL_FACES)
    judged = verdict(claim, whole)
    assert (judged.word, judged.ours, judged.interval) == ("undecided", (1.0, 2.0), None)
    assert judged.measured == how  # not the paper's, and it says so
    own = verdict(claim, whole + rows([3.0], [4.0], metric, first=OF_ALL_FACES))
    assert (own.ours, own.measured) == ((3.0, 4.0), "")


@pytest.mark.parametrize(("shift", "word"), [(-5.0, "reproduced"), (5.0, "not reproduced"), (0.0, "undecided")])
def test_pseudo_values_decide_a_set_metric_whose_whole_value_is_shown(shift, word):
    faces = [40.0 + 7 * i for i in range(10)]
    pseudo = rows([value + shift + (-1) ** i for i, value in enumerate(faces)], faces, "fid")
    judged = verdict(replace(PSNR, metric="fid", theirs=None), rows([90.0], [91.0], "fid", OF_ALL_FACES) + pseudo)
    assert (judged.word, judged.ours, judged.faces) == (word, (90.0, 91.0), 10)
    assert judged.difference == pytest.approx(shift)
    assert judged.interval[0] < shift < judged.interval[1]


def test_niqe_of_enlarged_faces_is_named():
    judged = verdict(replace(PSNR, metric="niqe", theirs=None), rows([4.0] * 9, [5.0] * 9, "niqe-256"))
    assert (judged.word, judged.measured) == ("reproduced", "of faces enlarged to 256²")


def test_two_runs_in_one_heap_are_refused():
    with pytest.raises(ValueError, match="face 0 has two values of psnr"):
        verdict(PSNR, 2 * rows([1.0, 2.0], [2.0, 3.0]))


def test_same_records_same_verdict():
    found = rows([20.0, 21.5, 19.0, 24.0] * 2, [19.5, 21.0, 19.2, 22.0] * 2)
    assert verdict(PSNR, found) == verdict(PSNR, found)


def test_a_claim_is_judged_at_the_papers_setting_whatever_ours_is():
    """A small prior's 16× stands for the paper's 64×; a prior of the papers' size runs at 64× itself."""
    claim = Claim("c", "dse", "table 2", "says", "dse-2", metric="psnr", better="dse", worse="dse without Ls", at="64x")
    shared = {"labels": ("dse", "dse without Ls"), "table": "dse-2"}
    better, worse = [30.0 + i for i in range(9)], [20.0 + i for i in range(9)]
    small = rows(worse, better, setting="4x", paper="16x", **shared) + rows(
        better, worse, setting="16x", paper="64x", **shared
    )
    large = rows(worse, better, setting="16x", paper="16x", **shared) + rows(
        better, worse, setting="64x", paper="64x", **shared
    )
    for found, setting in ((small, "16x"), (large, "64x")):
        judged = verdict(claim, found)
        assert (judged.word, judged.setting) == ("reproduced", setting)
        assert verdict(replace(claim, at="16x"), found).word == "not reproduced"
    assert verdict(claim, large[:18]).reason == "no results of 'dse' at 64x"


def test_a_prior_of_the_papers_size_is_measured_at_the_papers_scales():
    shape = {"channel_base": 1024, "channel_max": 4}
    networks = Generator(4, 4, 1024, num_mapping_layers=1, **shape), Discriminator(1024, **shape)
    small, large = FacePrior.load("faces-64"), FacePrior("large", *networks)
    for prior, scales in (
        (small, {(4, "16x"), (8, "32x"), (16, "64x")}),
        (large, {(16, "16x"), (32, "32x"), (64, "64x")}),
    ):
        units = run.units("dse-2", prior, faces=1)
        assert {(unit.scale, unit.paper) for unit in units} == scales
        assert len(units) == 2 * len(scales)


# Results and what is printed

ORIGIN = Origin("tiny", {"G": "0" * 16}, 9, "held-out faces", "1" * 16, "2" * 16, "cpu, float32", "psnr", 1.0, 0, 3)


@pytest.fixture
def folder(tmp_path):
    found = rows([22.0 + i for i in range(9)], [20.5 + i for i in range(9)])
    records.write(tmp_path / "dse-1.csv", Results(ORIGIN, tuple(found)))
    return tmp_path


def test_results_are_read_with_their_origin(folder):
    assert set(ledger.results(folder)) == {"dse-1"}
    assert ledger.results(folder)["dse-1"].origin == ORIGIN
    assert len(ledger.results(folder)["dse-1"].records) == 18


def test_without_results_nothing_is_claimed(tmp_path):
    judged = ledger.verdicts(folder=tmp_path)
    assert {verdict.word for _, verdict in judged} == {"not measured", "in its chapter"}
    assert all(verdict.reason and verdict.ours is None for _, verdict in judged)


def test_ledger_shows_papers_number_ours_budget_and_verdict(folder):
    table = ledger.table("dse", folder)
    judged = [row for row in table.rows if row[-1] == "reproduced"]
    assert judged == [
        [
            "dse better than PULSE",
            "table 1, 8×, PSNR",
            "23.52 vs 22.54",
            "26 vs 24.5, +1.5 [+1.5, +1.5]",
            "prior tiny, 9 held-out faces, effort 1, seed 0; measured with another prior",
            "reproduced",
        ]
    ]
    assert ledger.table("dse", folder, keep=lambda claim, verdict: claim.metric and verdict.ours).rows == judged
    assert ledger.results(folder)["dse-1"].mean("dse", "psnr", "8x") == pytest.approx(26)
    assert any("(the opposite)" in row[2] for row in table.rows)
    assert not any(row[4] for row in table.rows if row not in judged)
    small = rows([2.0] * 9, [1.0] * 9, labels=("dse", "dse without Ls"), setting="4x", paper="16x", table="dse-2")
    records.write(folder / "dse-2.csv", Results(ORIGIN, tuple(small)))
    assert "table 2, 16× (here 4×), PSNR" in [row[1] for row in ledger.table("dse", folder).rows]


def test_results_of_another_prior_are_told_apart(folder):
    networks = run.weights("DG", FacePrior.load("faces-64"))  # whatever the flow is
    shipped = replace(ORIGIN, prior="faces-64", weights=networks)
    assert any("another prior" in row[-1] for row in ledger.summary("dse", folder).rows)
    found = ledger.results(folder)["dse-1"]
    beside = replace(shipped, weights=networks | {"esrgan-faces": "0" * 16})  # a network that is no prior's
    records.write(folder / "dse-1.csv", replace(found, origin=beside), overwrite=True)
    for table in (ledger.table("dse", folder), ledger.summary("dse", folder)):
        assert not any("another prior" in cell for row in table.rows for cell in row)
    other = replace(shipped, weights=networks | {"F": "0" * 16})
    records.write(folder / "dse-1.csv", replace(found, origin=other), overwrite=True)
    assert any("another prior" in row[-1] for row in ledger.summary("dse", folder).rows)


@pytest.mark.parametrize("paper", ["dse", "rls"])
def test_summary_has_a_row_per_statement_and_counts_every_comparison(folder, paper):
    found = ledger.summary(paper, folder).rows
    assert [row[0] for row in found] == list(dict.fromkeys(claim.says for claim in ALL if claim.paper == paper))
    counted = sum(int(number) for row in found for number in re.findall(r"\d+", row[3]))
    judged = ledger.verdicts(paper, folder)
    assert counted == sum(count(judged).values()) == len(judged) == sum(claim.paper == paper for claim in ALL)
    assert count(judged)["reproduced"] == (paper == "dse")


def test_unknown_paper_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no paper 'nobody': choose one of dse, fpn, lsrgan, progressive, rls"):
        ledger.table("nobody", tmp_path)


# The shipped results


def test_shipped_results_are_of_known_tables_and_of_the_shipped_prior():
    """Measure the tables anew when the prior is trained anew: `facesr table NAME --out data/results/NAME.csv`."""
    measured = {path.stem for path in (assets.SHIPPED / "results").glob("*.csv")}
    assert measured == set(TABLES)
    prior = FacePrior.load("faces-64")
    for name, found in ledger.results().items():
        labels = {record.row for record in found.records}
        rows = [row for row in (*TABLES[name].rows, *TABLES[name].unaligned) if row.label in labels]
        assert labels >= {row.label for row in TABLES[name].rows if not row.needs}, name
        networks = set(TABLES[name].networks).union(*map(run.asked, rows))
        assert found.origin.weights.keys() == networks, name
        lacking = {row.needs for row in rows} - {row.needs for row in tables.here(rows)[0]}
        for network in networks - lacking:
            assert found.origin.weights[network] == run.weights([network], prior)[network], name
        if TABLES[name].pictures:
            assert found.origin.prior == "none", name
            assert {(r.setting, r.paper) for r in found.records} == {(p, p) for p in TABLES[name].pictures}
            continue
        if TABLES[name].resolution:
            assert "images seen" in found.origin.networks
        else:
            assert found.origin.prior == "faces-64", name
        assert (found.origin.faces, found.origin.faces_from) == (50, "held-out faces")
        scales = [(f"{ours}x", f"{theirs}x") for ours, theirs in TABLES[name].settings(64)]
        expected = {(camera, camera) for camera in TABLES[name].cameras} or set(scales)
        expected |= {("unaligned", "unaligned")} if TABLES[name].unaligned else set()
        assert {(record.setting, record.paper) for record in found.records} == expected


def test_shipped_results_are_of_the_held_out_faces():
    try:
        faces = {side: files.digest(data.faces("test", side, 50))[:16] for side in (64, 128)}
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    for name, found in ledger.results().items():
        if not TABLES[name].pictures:
            assert found.origin.faces_digest == faces[TABLES[name].resolution or 64], name
