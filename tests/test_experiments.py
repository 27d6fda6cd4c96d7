"""The papers' tables: what is measured, that it is kept, and how it is laid out."""

import inspect
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facesr_lib import assets, cli, metrics, search
from facesr_lib.degrade import Downsample, GaussianNoise
from facesr_lib.evaluation import run as experiments
from facesr_lib.evaluation.run import Experiment, Record, Row
from facesr_lib.prior import FacePrior


@pytest.fixture(scope="module")
def prior():
    return FacePrior.load("faces-64")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A table of two rows, and a cache of its own."""
    rows = (Row("bicubic", "bicubic"), Row("PULSE", "pulse", {"steps": 4}))
    monkeypatch.setitem(experiments.EXPERIMENTS, "dse-1", Experiment("a small one", (8,), (8,), rows))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def run(prior, **options):
    return experiments.run("dse-1", prior, **{"faces": 3, "batch": 2, "progress": False} | options)


def runs_of(prior, truth):
    return experiments._Runs(prior, truth, Downsample(8), batch=2, effort=1.0, seed=0, progress=False)


def values(records, method, metric):
    return torch.tensor([r.value for r in records if (r.method, r.metric) == (method, metric)])


def test_a_row_is_the_method_measured_face_by_face(prior, small):
    records = run(prior)
    truth, _ = prior.held_out(3)
    operator = Downsample(8)
    plain = operator.upsample(operator(truth)).clamp(0, 1)
    assert_close(values(records, "bicubic", "psnr"), metrics.psnr(plain, truth), atol=1e-3, rtol=0)
    alone = search.pulse(prior, operator(truth[2:]), operator, steps=4, seed=[2], progress=False)
    assert_close(values(records, "PULSE", "psnr")[2:], metrics.psnr(alone.image, truth[2:]), atol=1e-2, rtol=0)
    assert_close(values(records, "PULSE", "residual")[2:], alone.residual, atol=1e-3, rtol=0)
    for metric in ("ssim", "ms_ssim"):
        assert len(values(records, "PULSE", metric)) == 3


def test_a_table_about_time_measures_its_own(prior, small, monkeypatch):
    run(prior)
    timed = replace(experiments.EXPERIMENTS["dse-1"], measure="seconds")
    monkeypatch.setitem(experiments.EXPERIMENTS, "dse-1", timed)
    records = run(prior)  # the rows in the cache are others
    assert {r.metric for r in records} == {"seconds"}
    assert (values(records, "PULSE", "seconds") > values(records, "bicubic", "seconds")).all()


def test_how_gaussian_codes_are_is_measured_on_several_draws(prior, monkeypatch, tmp_path):
    few = experiments.quality.gaussianisation
    monkeypatch.setattr(experiments.quality, "gaussianisation", lambda prior, seed: few(prior, samples=500, seed=seed))
    records = experiments.run("rls-fig3", prior, faces=1, progress=False, cache=tmp_path)
    assert {(r.method, r.face) for r in records} == {
        (row.label, k) for row in experiments.EXPERIMENTS["rls-fig3"].rows for k in range(10)
    }
    distances = values(records, "Z", "ks")
    assert len(set(distances.tolist())) == 10
    assert distances.mean() < values(records, "flow", "ks").mean() < values(records, "PULSE", "ks").mean()


def test_a_prior_of_the_papers_size_is_measured_at_the_papers_scales(prior, small, monkeypatch):
    table = replace(experiments.EXPERIMENTS["dse-1"], paper_scales=(16,))
    monkeypatch.setitem(experiments.EXPERIMENTS, "dse-1", table)
    assert {r.setting for r in run(prior)} == {"8x"}
    monkeypatch.setattr(experiments, "PAPER_RESOLUTION", 64)
    records = run(prior)
    assert {r.setting for r in records} == {"16x"}
    assert [row[0] for row in experiments.table("dse-1", records, prior.resolution)[1]] == ["16×", "16×"]


def test_what_was_measured_is_read_and_what_differs_is_measured_anew(prior, small, monkeypatch):
    first = run(prior)
    monkeypatch.setattr(experiments, "_quality", None)  # would fail if it were called
    assert run(prior) == first
    for other in ({"faces": 2}, {"effort": 0.5}, {"seed": 1}):
        with pytest.raises(TypeError):
            run(prior, **other)
    changed = FacePrior("changed", prior.generator, None)
    with pytest.raises(TypeError):
        run(changed)


def test_a_metric_that_has_arrived_is_measured(prior, small, monkeypatch, tmp_path):
    available = metrics.available()
    monkeypatch.setattr(metrics, "available", lambda: available | {"niqe": "not here"})
    assert "niqe-256" not in {r.metric for r in run(prior, cache=tmp_path)}
    monkeypatch.setattr(metrics, "available", lambda: available | {"niqe": None})
    monkeypatch.setattr(metrics, "niqe", lambda image, resize_to: image.mean((1, 2, 3)))
    assert "niqe-256" in {r.metric for r in run(prior, cache=tmp_path)}


@pytest.mark.parametrize("before", [False, True])
def test_what_befalls_a_face_does_not_depend_on_the_batches(prior, before):
    row = Row("noise", "bicubic", corrupt=GaussianNoise(0.1, 0), before=before)
    truth = prior.sample(5, seed=0)[0]
    pictures = [
        torch.cat([lowres for _, lowres in replace(runs_of(prior, truth), batch=batch).given(row)]) for batch in (2, 5)
    ]
    assert torch.equal(*pictures)
    assert not torch.equal(pictures[0][0], pictures[0][2])


def test_an_interrupted_table_goes_on_where_it_stopped(prior, small, monkeypatch):
    restore, done = experiments._Runs.restore, []

    def interrupted(runs, lowres, row, *rest):
        done.append(row.label)
        if row.label == "PULSE" and done.count("PULSE") == 1:
            raise KeyboardInterrupt
        return restore(runs, lowres, row, *rest)

    monkeypatch.setattr(experiments._Runs, "restore", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(prior)
    before = done.count("bicubic")
    run(prior)
    assert done.count("bicubic") == before


def test_a_search_that_was_interrupted_is_no_result(prior, small, monkeypatch, tmp_path):
    pulse = search.pulse
    monkeypatch.setattr(search, "method", lambda name: lambda *a, **k: replace(pulse(*a, **k), interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        run(prior, cache=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    assert {r.method for r in experiments.read(kept)} == {"bicubic"}


def test_rows_of_rls_plus_share_their_first_stage(prior, monkeypatch):
    truth = prior.sample(2, seed=0)[0]
    short = {"rls_options": {"steps": 3}, "steps": 2}
    first, second = Row("RLS+", "rls_plus", short), Row("w/o g", "rls_plus", short | {"optimise": ("w", "eta")})
    alone = runs_of(prior, truth)
    ((_, lowres),) = alone.given(second)
    expected, _ = alone.restore(lowres, second, 0)
    shared = runs_of(prior, truth)
    shared.restore(lowres, first, 0)
    monkeypatch.setattr(search.methods, "rls", None)  # would fail if it were called
    assert torch.equal(shared.restore(lowres, second, 0)[0], expected)


def test_effort_shortens_both_stages():
    options = experiments._shortened(search.rls_plus, {}, 0.1)
    assert options == {"steps": 5, "rls_options": {"steps": 20}}
    assert experiments._shortened(search.pulse, {"steps": 3}, 0.1) == {"steps": 1}


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_every_table_names_methods_and_options_that_exist(name, prior):
    experiment = experiments.EXPERIMENTS[name]
    assert len(experiment.scales) == len(experiment.paper_scales)
    for row in experiment.rows:
        if row.method in ("bilinear", "bicubic", "none"):
            continue
        assert row.options.keys() <= inspect.signature(search.method(row.method)).parameters.keys()
    for scale in experiment.scales:
        assert prior.resolution % scale == 0


def test_the_papers_numbers_belong_to_rows():
    printed = experiments.read(assets.SHIPPED / "paper-tables.csv")
    assert len(printed) > 100
    for r in printed:
        experiment = experiments.EXPERIMENTS[r.experiment]
        assert r.method in {row.label for row in experiment.rows}, r
        assert int(r.setting.rstrip("x")) in experiment.paper_scales, r


@pytest.mark.parametrize("label", ["Gaussian Noise", "Salt and Pepper", "Gaussian Blur", "Motion Blur"])
def test_corruptions_change_what_the_method_sees_but_not_its_size(label, prior):
    (row,) = [row for row in experiments.EXPERIMENTS["rls-4"].rows if row.label == label]
    truth, operator = prior.sample(2, seed=0)[0], Downsample(8)
    ((_, seen),) = runs_of(prior, truth).given(row)
    assert seen.shape == (2, 3, 8, 8)
    assert (seen - operator(truth)).abs().max() > 0.01


def test_diversity_is_the_distance_of_two_answers(prior, monkeypatch):
    answers = iter(torch.rand(4, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(experiments._Runs, "restore", lambda *a: (image := next(answers), image.mean((1, 2, 3))))
    measured = list(experiments._diversity(runs_of(prior, torch.rand(2, 3, 64, 64)), Row("PULSE", "pulse")))
    pool = torch.rand(4, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pairs = [(pool[i] - pool[j]).square().mean((1, 2, 3)) for i in range(4) for j in range(i)]
    expected = torch.stack(pairs).mean(0).sqrt()
    found = torch.tensor([value for _, metric, value in measured if metric == "diversity"])
    assert_close(found, expected)


def test_records_survive_a_file(tmp_path):
    records = [Record("dse-1", "8x", "a, b", 0, "psnr", 17.25), Record("dse-1", "8x", "a, b", -1, "kid", 0.5)]
    experiments.write(tmp_path / "sub" / "r.csv", records, "made by hand")
    assert experiments.read(tmp_path / "sub" / "r.csv") == records
    assert (tmp_path / "sub" / "r.csv").read_text().startswith("# made by hand\n")


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = torch.randn(300, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hit = [low < 0 < high for low, high in (experiments.interval(row.tolist()) for row in draws)]
    assert 0.89 < sum(hit) / len(hit) < 0.98
    assert experiments.interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_the_table_shows_ours_beside_the_papers():
    records = [Record("dse-1", "8x", "PULSE", face, "psnr", 17.0 + face) for face in range(3)]
    header, rows = experiments.table("dse-1", records)
    cell = {row[1]: row[header.index("psnr")] for row in rows if row[0] == "8×"}
    assert cell["PULSE"].startswith("18 [")
    assert cell["PULSE"].endswith("paper 22.54")
    assert cell["bilinear"] == "paper 25.84"
    assert {row[0] for row in experiments.table("dse-2", [])[1]} == {
        "4× (paper: 16×)",
        "8× (paper: 32×)",
        "16× (paper: 64×)",
    }


def test_an_unknown_table_is_refused_before_any_work(prior):
    with pytest.raises(ValueError, match=r"no table 'dse-9'; choose one of dse-1"):
        experiments.run("dse-9", prior)


def test_the_command_prints_and_writes(prior, small, tmp_path, capsys):
    arguments = ["table", "dse-1", "--faces", "2", "--out", str(tmp_path / "o.csv"), "--device", "cpu"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "a small one (prior faces-64, faces 2, batch 10, effort 1.0, seed 0)" in printed
    assert "| 8× | PULSE |" in printed
    assert {r.face for r in experiments.read(tmp_path / "o.csv")} >= {0, 1}
    assert cli.main(["table", "dse-9"]) == 1
    assert "choose one of" in capsys.readouterr().err
