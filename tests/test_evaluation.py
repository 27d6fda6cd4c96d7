"""The papers' tables: what is measured, that it is kept, and how it is laid out."""

import ast
import importlib
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from math import inf
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facesr_lib import assets, chapter, data, files, metrics, restoration, search
from facesr_lib.degrade import CameraPipeline, Downsample, GaussianNoise, halved, halvings, occlusion
from facesr_lib.evaluation import measures, records, report, run, unaligned
from facesr_lib.evaluation.papers import TABLES, lsrgan
from facesr_lib.evaluation.papers.rls import RLS, RLS_PLUS
from facesr_lib.evaluation.records import OF_ALL_FACES, Origin, Record, Results, interval, read, write
from facesr_lib.evaluation.tables import PaperTable, Row, here
from facesr_lib.metrics.parsing import confusion, iou
from facesr_lib.networks import checkpoints, landmarks, parsing
from facesr_lib.networks.progressive import ProgressiveGenerator
from facesr_lib.prior import FacePrior

PULSE = Row("PULSE", "pulse", {"steps": 4})
METHODS = dict(restoration.METHODS)
AVAILABLE = metrics.available


@pytest.fixture(scope="module")
def prior():
    return FacePrior.load("faces-64")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache of its own; few metrics are measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quick = {name: missing if name in ("psnr", "ssim") else "not now" for name, missing in AVAILABLE().items()}
    monkeypatch.setattr(metrics, "available", lambda: quick)
    return tmp_path / "facesr" / "results"


@pytest.fixture
def small(monkeypatch):
    """A table of two rows."""
    return table(monkeypatch, Row("bicubic", "bicubic"), PULSE)


@pytest.fixture
def calls(monkeypatch):
    """Which methods ran, in order, each time with what options."""
    made = []

    def spied(name):
        class Spy:
            options, needs, weights = METHODS[name].options, METHODS[name].needs, METHODS[name].weights

            def __call__(self, lowres, operator, **options):
                made.append((name, {"lowres": lowres} | options))
                return METHODS[name](lowres, operator, **options)

        return Spy()

    for name in METHODS:
        monkeypatch.setitem(restoration.METHODS, name, spied(name))
    monkeypatch.setattr(restoration, "check", lambda *a: None)
    return made


def table(monkeypatch, *rows, measure=measures.quality, scales=(8,)):
    monkeypatch.setitem(TABLES, "dse-1", PaperTable("a small one", {scale: scale for scale in scales}, rows, measure))


def measured(prior, **options):
    return run.run("dse-1", prior, **{"faces": 3, "batch": 2, "progress": False} | options).records


def values(found, row, metric):
    return torch.tensor([r.value for r in found if (r.row, r.metric) == (row, metric) and r.face != OF_ALL_FACES])


# What is measured


def test_a_row_is_the_method_measured_face_by_face(prior, small, monkeypatch):
    monkeypatch.setattr(metrics, "available", AVAILABLE)
    found = measured(prior)
    truth, _ = chapter.faces(prior, 3)
    operator = Downsample(8)
    plain = operator.upsample(operator(truth)).clamp(0, 1)
    assert_close(values(found, "bicubic", "psnr"), metrics.psnr(plain, truth), atol=1e-3, rtol=0)
    alone = search.pulse(prior, operator(truth[2:]), operator, steps=4, seed=[2], progress=False)
    assert_close(values(found, "PULSE", "psnr")[2:], metrics.psnr(alone.image, truth[2:]), atol=1e-2, rtol=0)
    assert_close(values(found, "PULSE", "residual")[2:], alone.residual, atol=1e-3, rtol=0)
    here = metrics.available()
    expected = {name for name in ("ssim", "ms_ssim", "lpips", "id") if here[name] is None}
    for metric in expected:
        assert len(values(found, "PULSE", metric)) == 3
    assert {r.metric for r in found} >= expected
    assert {r.metric for r in found}.isdisjoint(name for name, missing in here.items() if missing)


def test_a_set_metric_has_the_sets_value_and_a_pseudo_value_for_each_face(prior, monkeypatch):
    if AVAILABLE()["fid-efficientnet-lite0"]:
        pytest.skip("the feature network is not here")
    table(monkeypatch, Row("bicubic", "bicubic"))
    monkeypatch.setattr(metrics, "available", AVAILABLE)
    found = measured(prior, faces=4)
    truth, _ = chapter.faces(prior, 4)
    operator = Downsample(8)
    codes = [metrics.embed(x, "efficientnet-lite0") for x in (truth, operator.upsample(operator(truth)).clamp(0, 1))]
    pseudo = metrics.pseudo_values(*codes, "efficientnet-lite0")
    for metric, whole in {"fid": metrics.fid(*codes), "kid": metrics.kid(*codes)[0]}.items():
        of_all = [
            r.value for r in found if (r.row, r.metric, r.face) == ("bicubic", f"{metric}-efficientnet-lite0", -1)
        ]
        assert of_all == [pytest.approx(float(whole), rel=1e-4)]
        ours = values(found, "bicubic", f"{metric}-efficientnet-lite0")
        assert_close(ours, pseudo[metric].float().cpu(), rtol=1e-3, atol=1e-3)


def test_a_table_about_time_measures_its_own(prior, small, monkeypatch, calls):
    measured(prior)
    table(monkeypatch, Row("bicubic", "bicubic"), PULSE, measure=measures.seconds)
    before = len(calls)
    found = measured(prior)
    assert len(calls) == 2 * before  # a search that was made for its pictures was not timed on an idle machine
    assert {r.metric for r in found} == {"seconds"}
    assert (values(found, "PULSE", "seconds") > 0).all()
    measured(prior, batch=3)
    assert len(calls) == 2 * before + 2


def test_how_gaussian_codes_are_is_measured_on_several_draws(prior, monkeypatch):
    spaces = ("Z", "PULSE", "flow")
    rows = [Row(space, options={"space": space, "samples": 500}) for space in spaces]
    table(monkeypatch, *rows, measure=measures.gaussianity, scales=(1,))
    found = measured(prior)
    assert {(r.row, r.face) for r in found} == {(space, k) for space in spaces for k in range(10)}
    distances = values(found, "Z", "ks")
    assert len(set(distances.tolist())) == 10
    assert distances.mean() < values(found, "flow", "ks").mean() < values(found, "PULSE", "ks").mean()


def test_diversity_is_the_distance_of_two_answers():
    pool = torch.rand(4, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def restored(attempt):
        image = pool[attempt - 1]
        return {"image": image, "residual": image.mean((1, 2, 3))}

    found = list(measures.diversity(restored))
    pairs = [(pool[i] - pool[j]).square().mean((1, 2, 3)) for i in range(4) for j in range(i)]
    expected = torch.stack(pairs).mean(0).sqrt()
    assert_close(torch.tensor([value for _, metric, value in found if metric == "diversity"]), expected)
    left = torch.tensor([value for _, metric, value in found if metric == "residual"])
    assert_close(left, pool.mean((0, 2, 3, 4)))


# Rows


def test_rows_of_rls_plus_share_their_first_stage(prior, monkeypatch, calls):
    without = Row("w/o g", "rls_plus", {"optimise": ("w", "eta")}, RLS)
    table(monkeypatch, RLS_PLUS, without)
    measured(prior, faces=2, effort=0.01)
    assert [name for name, _ in calls] == ["rls", "rls_plus", "rls_plus"]
    first, one, other = (options for _, options in calls)
    alone = METHODS["rls"](first["lowres"], Downsample(8), prior=prior, seed=[0, 1], steps=2, progress=False)
    assert torch.equal(one["anchor"], alone.latent)
    assert torch.equal(other["anchor"], alone.latent)


def test_a_corrupted_row_starts_from_the_same_corrupted_picture(prior, monkeypatch, calls):
    table(monkeypatch, RLS_PLUS, replace(RLS_PLUS, label="noise", corrupt=GaussianNoise(0.05)))
    measured(prior, faces=1, effort=0.01)
    assert [name for name, _ in calls] == ["rls", "rls_plus"] * 2
    clean, _, corrupted, second = (options["lowres"] for _, options in calls)
    assert not torch.equal(clean, corrupted)
    assert torch.equal(corrupted, second)


def test_effort_scales_every_stage(prior, monkeypatch, calls):
    table(monkeypatch, Row("bicubic", "bicubic"), RLS_PLUS, PULSE)
    measured(prior, faces=1, effort=0.1)
    assert [(name, options.get("steps")) for name, options in calls] == [
        ("bicubic", None),
        ("rls", 20),
        ("rls_plus", 5),
        ("pulse", 1),  # of four, at least one
    ]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_methods_and_options_that_exist(name, prior):
    try:
        units = run.units(name, prior, faces=1)
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    there, moved = (here(rows)[0] for rows in (TABLES[name].rows, TABLES[name].unaligned))
    named = [(setting, setting) for setting in TABLES[name].pictures or TABLES[name].cameras]
    scaled = [(f"{ours}x", f"{paper}x") for ours, paper in TABLES[name].settings(64)]
    still = units[: len(units) - len(moved)]
    assert [(unit.setting, unit.paper) for unit in still][:: len(there)] == (named or scaled)
    assert {unit.scale for unit in still} == set(TABLES[name].scales)
    assert [unit.setting for unit in units[len(units) - len(moved) :]] == ["unaligned"] * len(moved)
    for unit in units:
        assert prior.resolution % unit.scale == 0
        assert ForkingPickler.loads(ForkingPickler.dumps(unit)) == unit  # as processes are given it


def test_a_table_on_pictures_measures_each_of_a_set(prior, cache, monkeypatch):
    """Luminance without 4 pixels of border, of pictures as files would hold them, whole multiples of the scale."""
    originals = torch.rand(2, 3, 40, 53, generator=torch.Generator().manual_seed(0))
    sets = {"set5": [originals[0], originals[1, :, :26]], "set14": list(originals)}
    monkeypatch.setattr(data, "picture_set", sets.get)
    rows, sets = (Row("bicubic", "bicubic"), Row("ESR", "esrgan")), ("set5", "set14")
    monkeypatch.setitem(TABLES, "tiny", PaperTable("tiny", {4: 4}, rows, measures.of_pictures, sets, ("elsewhere",)))
    found = run.run("tiny", prior, faces=1, progress=False)
    assert found.origin.prior == "none"
    assert found.origin.faces == 4
    assert found.origin.budget() == "shipped networks, 4 pictures of set5, set14"
    assert TABLES["tiny"].paper_settings == ["set5", "set14", "elsewhere"]

    def value(setting, row, metric, picture):
        [only] = [
            r.value
            for r in found.records
            if (r.setting, r.paper, r.row, r.metric, r.face) == (setting, setting, row, metric, picture)
        ]
        return only

    whole = originals[1, None, :, :24, :52]
    z = (Downsample(4)(whole).clamp(0, 1) * 255).round() / 255
    for row, method in (("bicubic", "bicubic"), ("ESR", "esrgan")):
        large = METHODS[method](z, Downsample(4), progress=False).image
        large = (large * 255).round() / 255
        assert value("set5", row, "psnr", 1) == pytest.approx(
            metrics.psnr(large, whole, y_channel=True, crop=4).item(), abs=1e-4
        )
        ours, theirs = ((metrics.luma(x) * 255).round().byte().numpy()[..., 4:-4, 4:-4] for x in (large, whole))
        assert value("set5", row, "l1-wrapped", 1) == pytest.approx((ours - theirs).mean() / 255, rel=1e-4)  # bytes
        off = abs(ours.astype(int) - theirs).mean() / 255
        assert value("set5", row, "l1", 1) == pytest.approx(off, rel=1e-4)
        each = [value("set5", row, "psnr", i) for i in (0, 1)]
        assert value("set5", row, "psd", OF_ALL_FACES) == pytest.approx(abs(each[0] - each[1]) / 2, rel=1e-3)
    monkeypatch.setattr(measures.metrics, "psnr", None)  # measured already
    assert run.run("tiny", prior, faces=1, progress=False) == found


def test_patches_of_a_picture_are_a_tables_settings(prior, cache, monkeypatch):
    pictures = [torch.full((3, 8, 8), 0.5)] * 8 + [torch.rand(3, 330, 360), *[torch.rand(3, 330, 250)] * 5]
    monkeypatch.setattr(data, "picture_set", {"set14": pictures}.get)
    monkeypatch.setitem(TABLES, "tiny", replace(TABLES["lsrgan-fig3"], rows=(Row("bicubic", "bicubic"),)))
    found = run.run("tiny", prior, faces=1, progress=False)
    values = {(r.setting, r.metric): r.value for r in found.records}
    assert len(values) == len(found.records) == 2 * 4
    eyes = pictures[8][None, :, 200:328, 230:358]
    large = Downsample(4).upsample((Downsample(4)(eyes).clamp(0, 1) * 255).round() / 255).clamp(0, 1)
    psnr = metrics.psnr((large * 255).round() / 255, eyes, y_channel=True, crop=4).item()
    assert values["eyes", "psnr"] == pytest.approx(psnr, abs=1e-4)


def test_every_training_of_a_model_in_the_registry_is_a_row(monkeypatch):
    known = ["clsrgan-1", "lsrgan", "lsrgan-1", "lsrgan-2", "lsrgan-faces", "lsrgan-mu-1e-7", "lsrgan-watched"]
    monkeypatch.setattr(assets, "names", lambda: known)
    table = importlib.reload(lsrgan).TABLES["lsrgan-3"]
    monkeypatch.undo()
    importlib.reload(lsrgan)
    given = {row.label: row.options.get("weights") for row in table.rows if row.method == "lsrgan"}
    once_more = {"mu = 1e-3, seed 1": "lsrgan-1", "mu = 1e-3, seed 2": "lsrgan-2"}
    assert given == {"mu = 1e-3": None, "mu = 1e-7": "lsrgan-mu-1e-7", **once_more}


def test_trainings_that_the_package_does_not_hold_are_left_out_and_named(monkeypatch, tmp_path):
    monkeypatch.setattr(assets.registry, "SHIPPED", tmp_path)
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    found, left_out = here(lsrgan.MODELS)
    assert [row.label for row in found] == ["ESR", "LSR", "CESR", "CLSR"]
    assert len(left_out) == len(lsrgan.MODELS) - 4 > 0
    assert f"put the file at {tmp_path / 'trainings' / 'esrgan-1.safetensors'} (source: https://" in left_out[0]


@pytest.fixture
def held_out():
    try:
        return data.faces("test", 128, 3)
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))


def test_a_table_of_networks_has_faces_of_its_own_and_needs_no_prior(prior, held_out, monkeypatch):
    rows = Row("bicubic", "bicubic"), Row("a network", "vdsr")
    shared = {"resolution": 128, "operator": halved}
    monkeypatch.setitem(TABLES, "tiny", PaperTable("small", {8: 8}, rows, measures.reported, **shared))
    found = run.run("tiny", prior, faces=3, batch=2, progress=False)
    lowres = halvings(3)(held_out)
    for row, method in (("bicubic", "bicubic"), ("a network", "vdsr")):
        image = METHODS[method](lowres, halvings(3)).image
        assert_close(values(found.records, row, "psnr"), metrics.psnr(image, held_out), atol=1e-3, rtol=0)
    assert (found.origin.prior, found.origin.weights) == ("none", run.weights(["vdsr"], prior))
    assert found.origin.weights == {"vdsr": files.sha256(assets.path("vdsr"))[:16]}
    assert found.origin.networks == "vdsr: width 1, 160,000 images seen"
    assert found.origin.budget() == "vdsr: width 1, 160,000 images seen, 3 held-out faces"
    assert [row[1] for row in report.table("tiny", found).rows] == [
        "bicubic",
        "a network (width 1, 160,000 images seen)",
    ]
    assert run.run("tiny", prior, faces=3, batch=2, progress=False) == found


def test_networks_are_measured_on_faces_moved_at_random_too(prior, held_out, monkeypatch):
    rows = (Row("a network", "vdsr"),)
    shared = {"resolution": 128, "operator": halved, "unaligned": rows}
    monkeypatch.setitem(TABLES, "tiny", PaperTable("small", {8: 8}, rows, measures.reported, **shared))
    assert TABLES["tiny"].paper_settings == ["8x", "unaligned"]
    found = run.run("tiny", prior, faces=3, batch=2, seed=5, progress=False)
    for setting, truth in (("8x", held_out), ("unaligned", unaligned.faces(128, 3, 5))):
        image = METHODS["vdsr"](halvings(3)(truth), halvings(3)).image
        records_of = [r for r in found.records if (r.setting, r.paper) == (setting, setting)]
        assert_close(values(records_of, "a network", "psnr"), metrics.psnr(image, truth), atol=1e-3, rtol=0)
    assert run.run("tiny", prior, faces=3, batch=2, seed=5, progress=False) == found
    assert report.table("tiny", found).rows[1][0] == "unaligned"


def test_an_unaligned_face_moves_by_its_own_numbers_and_its_landmarks_with_it(held_out):
    faces, points = unaligned.faces(128, 3, 0), unaligned.points(3, 0)
    assert_close(unaligned.faces(128, 2, 0), faces[:2])
    assert (unaligned.faces(128, 3, 1) - faces).abs().mean() > 0.02
    network = landmarks.load(assets.path("landmarks"))
    for image, at in ((held_out, unaligned.aligned_points(3)), (faces, points)):
        found = (landmarks.peaks(network.heatmaps(image)) + 0.5) / 64
        assert (found - at).norm(dim=2).median() < 0.03  # of the side
    eyes = points[:, [36, 45]]  # names of points follow the mirror: the picture's left one is the first
    assert (eyes[:, 0, 0] < eyes[:, 1, 0]).all()


def test_weights_at_hidden_landmarks_fall_and_others_stay(held_out):
    left = {}
    for covered in (True, False):
        found = list(measures.hidden(truth=held_out, options={"network": "landmarks", "covered": covered}))
        for thing in occlusion.THINGS:
            left[thing, covered] = [value for _, name, value in found if name == thing]
            assert len(left[thing, covered]) == 3
    for thing in occlusion.THINGS:
        assert max(left[thing, True]) < 0.8 < min(left[thing, False])


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Where networks of the reader's own lie: below a folder of data that has the held-out faces."""
    (tmp_path / "own").mkdir()
    for thing in ("faces", "models"):
        (tmp_path / "own" / thing).symlink_to(assets.home().resolve() / thing)
    monkeypatch.setenv("FACESR_DATA", str(tmp_path / "own"))
    return tmp_path / "own"


def test_a_row_whose_network_is_not_here_is_left_out_and_it_is_said_how_to_make_it(
    prior, held_out, runs, monkeypatch, capsys
):
    rows = Row("bicubic", "bicubic"), Row("mine", "progressive", needs="some/run", flags="--heatmap 0")
    monkeypatch.setitem(TABLES, "tiny", PaperTable("small", {8: 8}, rows, resolution=128, operator=halved))
    found = run.run("tiny", prior, faces=2, progress=True)
    assert {r.row for r in found.records} == {"bicubic"}
    said = capsys.readouterr().out
    assert f"tiny · left out: mine: there is no {runs / 'some/run/progressive.safetensors'}" in said
    assert f"facesr train progressive --heatmap 0 --out {runs / 'some/run'}" in said
    monkeypatch.setitem(TABLES, "none", replace(TABLES["tiny"], rows=rows[1:]))
    with pytest.raises(assets.AssetMissing, match=r"none has no row whose network is here.\nmine: .*--heatmap 0"):
        run.units("none", prior)

    (runs / "some/run").mkdir(parents=True)
    network, about = ProgressiveGenerator(1 / 64), {"width": repr(1 / 64), "step": "3", "images_seen": "7"}
    for number in range(2):
        checkpoints.save(network, runs / "some/run/progressive.safetensors", about)
        found = run.run("tiny", prior, faces=2, progress=False)
        image = METHODS["progressive"](
            halvings(3)(held_out[:2]), halvings(3), weights=str(runs / "some/run/progressive.safetensors")
        ).image
        assert_close(values(found.records, "mine", "psnr"), metrics.psnr(image, held_out[:2]), atol=1e-3, rtol=0)
        assert found.origin.networks == "some/run: width 0.015625, 7 images seen"
        assert str(runs) not in repr(found)
        assert report.table("tiny", found).rows[1][1] == "mine (width 0.015625, 7 images seen)"
        torch.manual_seed(number)
        network = ProgressiveGenerator(1 / 64)  # another network at the same place is measured anew


@pytest.mark.parametrize("flags", ["", " --unaligned"])
def test_of_a_training_with_a_network_that_is_not_here_both_are_named(tmp_path, monkeypatch, flags):
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    table = TABLES["progressive-fig4"]
    found, said = here(table.unaligned if flags else table.rows)
    assert [row.label for row in found] == ["distilled FAN"]  # a training of the project's, in its repository
    assert said[0].startswith("FAN: registry entry 'fan' is not on this machine; put the file at")
    assert f"of the other rows: facesr train progressive --fan fan{flags} --out {tmp_path}" in said[1]
    monkeypatch.setattr(assets, "SHIPPED", tmp_path)  # in a package there are none
    found, said = here(table.unaligned if flags else table.rows)
    assert found == []
    assert said[2].startswith(f"distilled FAN: there is no {tmp_path}")


def test_the_progressive_papers_psnr_is_of_batches(monkeypatch):
    truth = torch.rand(18, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    image = (truth + torch.linspace(0.01, 0.3, 18)[:, None, None, None]).clamp(0, 1)
    here = dict.fromkeys(metrics.available(), "not now") | {"psnr": None}
    monkeypatch.setattr(metrics, "available", lambda: here)
    found = list(measures.reported(lambda _: {"image": image, "residual": torch.zeros(18)}, truth))
    batches = torch.tensor([value for _, name, value in found if name == "psnr-of-batches"])
    own = torch.tensor([value for _, name, value in found if name == "psnr"])
    for batch in (slice(0, 16), slice(16, 18)):
        expected = -10 * (image[batch] - truth[batch]).square().mean().log10()
        assert_close(batches[batch], expected.expand(len(own[batch])))
    assert batches[:16].mean() < own[:16].mean()


def test_a_landmark_network_is_measured_by_its_parameters_and_its_distance_from_labels(held_out):
    def restored(_):
        return {"image": held_out, "residual": torch.zeros(3)}

    found = list(measures.attention(restored, held_out, {}))

    def of(metric):
        return torch.tensor([value for _, name, value in found if name == metric])

    assert of("parameters").tolist() == [321_412] * 3
    network = landmarks.load(assets.path("landmarks"))
    for side in (64, 128):
        small = torch.nn.functional.avg_pool2d(held_out, 128 // side)
        away = landmarks.peaks(network(small)) - data.landmarks("faces-test", side)[:3]
        assert_close(of(f"nme_{side}"), away.square().sum(2).sqrt().mean(1) / side, atol=1e-4, rtol=0)
    assert (of("nme_64") < of("nme_128")).all()
    assert of("psnr-of-batches").isinf().all()
    fan = list(measures.attention(restored, held_out, {"network": "fan"}))
    assert {(name, value) for _, name, value in fan} == {("parameters", 23_820_176)}


def test_parsing_is_measured_by_the_sets_overlap_on_faces_that_a_camera_made_poor(prior, held_out, monkeypatch):
    names, camera = ("parsing-128", "parsing-128-alone"), CameraPipeline(grey_p=1, noise_p=1)
    alone = Row("alone", options={"network": names[1], "classes": True, "pictures": False})
    rows = Row("poor"), Row("both", options={"network": names[0], "classes": True}), alone
    shared = {"resolution": 128, "cameras": {"clean": None, "bad": camera}}
    monkeypatch.setitem(TABLES, "tiny", PaperTable("t", {1: 1}, rows, measures.parsed, **shared))
    found = run.run("tiny", prior, faces=3, progress=False)
    assert run.run("tiny", prior, faces=3, progress=False) == found
    assert {(r.setting, r.paper) for r in found.records} == {("clean", "clean"), ("bad", "bad")}

    poor, target = camera(held_out)
    labels = torch.from_numpy(data.parsing("faces-test", 128)[:3])
    for setting, faces in {"clean": held_out, "bad": poor}.items():
        here = [r for r in found.records if r.setting == setting]
        for row, name in zip(("both", "alone"), names, strict=True):
            with torch.no_grad():
                counts = confusion(parsing.load(assets.path(name))(faces)[0].argmax(1), labels)
            each = iou(counts.sum(0))
            [skin] = [r.value for r in here if (r.row, r.metric, r.face) == (row, "iou_skin", OF_ALL_FACES)]
            assert skin == pytest.approx(each[1].item(), abs=1e-5)
            without = [iou(counts.sum(0) - counts[i])[1].item() for i in range(3)]
            pseudo = [3 * skin - 2 * each for each in without]
            assert values(here, row, "iou_skin").tolist() == pytest.approx(pseudo, abs=1e-4)
            [eyes] = [r.value for r in here if (r.row, r.metric, r.face) == (row, "iou_eyes", OF_ALL_FACES)]
            both = [value for name, value in zip(parsing.CLASSES, each.tolist(), strict=True) if name.endswith("_eye")]
            assert eyes == pytest.approx(sum(both) / 2, abs=1e-5)
    assert_close(values(found.records, "poor", "psnr"), metrics.psnr(poor, target), atol=1e-3, rtol=0)  # not of "clean"
    with torch.no_grad():
        image = parsing.load(assets.path(names[0]))(poor)[1].clamp(0, 1)
    bad = [r for r in found.records if r.setting == "bad"]
    assert_close(values(bad, "both", "psnr"), metrics.psnr(image, target), atol=1e-3, rtol=0)
    assert {r.metric for r in bad if r.row == "alone"}.isdisjoint({"psnr", "ssim"})
    few = measures.parsed(held_out, {"network": names[1], "pictures": False}, 0, None)
    assert {metric for _, metric, _ in few} == {"miou", "iou_eyes", "iou_brows"}


def test_a_count_is_shown_as_one():
    found = [Record("progressive-1", "8x", "8x", "FAN", face, "parameters", 23_820_176) for face in range(3)]
    (row,) = report.table("progressive-1", Results(replace(ORIGIN, prior="none"), tuple(found))).rows
    assert row[2] == "23,820,176 · paper 23820176"


def test_a_prior_without_what_a_row_needs_is_told_before_anything_runs(prior, calls, monkeypatch):
    monkeypatch.undo()
    bare = FacePrior("bare", prior.generator, None)
    with pytest.raises(ValueError, match="flow"):
        run.run("rls-1", bare, faces=1)
    assert calls == []


@pytest.mark.parametrize("stage", ["before", "corrupt"])
def test_what_befalls_a_face_does_not_depend_on_the_batches(prior, monkeypatch, calls, stage):
    table(monkeypatch, Row("noise", "bicubic", **{stage: GaussianNoise(0.1, 0)}))
    pictures = []
    for batch in (2, 5):
        calls.clear()
        measured(prior, faces=5, batch=batch, seed=batch)
        pictures.append(torch.cat([options["lowres"] for _, options in calls]))
    assert torch.equal(*pictures)
    assert not torch.equal(pictures[0][0], pictures[0][2])


@pytest.mark.parametrize("label", ["Gaussian Noise", "Salt and Pepper", "Gaussian Blur", "Motion Blur"])
def test_corruptions_change_what_the_method_sees_but_not_its_size(label, prior, monkeypatch, calls):
    (row,) = [row for row in TABLES["rls-4"].rows if row.label == label]
    table(monkeypatch, replace(row, method="bicubic", start=None))
    measured(prior, faces=2)
    ((_, seen),) = calls
    assert seen["lowres"].shape == (2, 3, 8, 8)
    assert (seen["lowres"] - Downsample(8)(chapter.faces(prior, 2)[0])).abs().max() > 0.01


# What is kept


def test_what_was_measured_is_read_and_what_differs_is_measured_anew(prior, small, calls):
    first = measured(prior)
    ran = len(calls)
    assert measured(prior) == first
    assert len(calls) == ran
    for other in ({"faces": 2}, {"effort": 0.5}, {"seed": 1}):
        calls.clear()
        measured(prior, **other)
        assert {name for name, _ in calls} == {"bicubic", "pulse"}
    calls.clear()
    generator = deepcopy(prior.generator)
    generator.mapping.w_avg[0] += 0.01
    measured(FacePrior("changed", generator, None))
    assert {name for name, _ in calls} == {"pulse"}


def test_what_was_measured_with_other_labels_is_measured_anew(prior, small, calls, monkeypatch, tmp_path):
    measured(prior)
    calls.clear()
    other, path = tmp_path / "labels.npz", assets.path
    other.write_bytes(b"others")
    monkeypatch.setattr(assets, "path", lambda name: other if name == "labels-parsing" else path(name))
    measured(prior)
    assert {name for name, _ in calls} == {"bicubic", "pulse"}


def test_tables_share_a_row_whatever_its_label(prior, small, monkeypatch, calls):
    first = measured(prior)
    calls.clear()
    table(monkeypatch, replace(PULSE, label="another name"))
    again = measured(prior)
    assert calls == []
    assert [replace(r, row="PULSE") for r in again] == [r for r in first if r.row == "PULSE"]


def test_a_metric_that_has_arrived_needs_no_new_search(prior, small, monkeypatch, calls):
    available = metrics.available()
    assert "niqe-256" not in {r.metric for r in measured(prior)}
    calls.clear()
    monkeypatch.setattr(metrics, "available", lambda: available | {"niqe": None})
    monkeypatch.setattr(metrics, "niqe", lambda image, resize_to: image.mean((1, 2, 3)))
    assert "niqe-256" in {r.metric for r in measured(prior)}
    assert calls == []


def test_an_interrupted_table_goes_on_where_it_stopped(prior, small, monkeypatch):
    monkeypatch.setattr(restoration, "check", lambda *a: None)

    def interrupted(lowres, operator, **options):
        return replace(METHODS["pulse"](lowres, operator, **options), interrupted=True)

    with monkeypatch.context() as patch:
        vars(interrupted).update(options={}, needs=METHODS["pulse"].needs, weights=())
        patch.setitem(restoration.METHODS, "pulse", interrupted)
        with pytest.raises(KeyboardInterrupt):  # a search's best so far is no result
            measured(prior)
    monkeypatch.setitem(restoration.METHODS, "bicubic", replace(METHODS["bicubic"], restore=None))  # it is not called
    assert {r.row for r in measured(prior)} == {"bicubic", "PULSE"}


@pytest.mark.parametrize("suffix", [".csv", ".safetensors"])
@pytest.mark.parametrize("length", [0, 40, -7, -1])
def test_a_kept_row_that_was_cut_short_is_measured_anew(prior, small, cache, suffix, length):
    first = measured(prior)
    kept = [path for path in cache.iterdir() if path.suffix == suffix]
    assert len(kept) == 2
    for path in cache.iterdir():
        if path.suffix == suffix:
            path.write_bytes(path.read_bytes()[:length])
        elif path.suffix == ".csv":
            path.unlink()  # so that the pictures are read
    assert measured(prior) == first


@pytest.mark.parametrize("left", ["nothing", "fewer faces", "fewer values"])
def test_a_kept_row_that_is_whole_as_a_file_but_not_as_a_row_is_measured_anew(prior, small, cache, left):
    first = measured(prior)
    for path in cache.iterdir():
        if path.suffix == ".csv":
            results = read(path)
            lasting = {"nothing": (), "fewer faces": [r for r in results.records if r.face < 1]}
            lasting["fewer values"] = results.records[:-1]
            write(path, replace(results, records=tuple(lasting[left])), overwrite=True)
    assert measured(prior) == first


@pytest.mark.parametrize("damage", ["empty", "no residual", "two of three", "smaller", "not finite"])
def test_kept_pictures_that_are_not_all_there_are_made_anew(prior, small, cache, damage):
    first = measured(prior)
    for path in list(cache.iterdir()):
        if path.suffix == ".csv":
            path.unlink()
            continue
        found = load_file(path)
        image = found["image"]
        changed = {
            "empty": {},
            "no residual": {name: value for name, value in found.items() if name != "residual"},
            "two of three": {name: value[:2].clone() for name, value in found.items()},
            "smaller": found | {"image": image[..., ::2].contiguous()},
            "not finite": found | {"image": image.clone().fill_(float("nan"))},
        }
        save_file(changed[damage], path)
    assert measured(prior) == first


def test_a_cache_that_cannot_be_written_costs_time_only(prior, small, tmp_path):
    (tmp_path / "facesr").write_text("a file where the folder should be")
    assert measured(prior) == measured(prior)


def test_another_process_measures_the_same_to_the_byte(prior, cache, monkeypatch):
    monkeypatch.setattr(metrics, "available", AVAILABLE)
    table(monkeypatch, Row("bicubic", "bicubic"), RLS_PLUS)
    units = run.units("dse-1", prior, faces=2, batch=2, effort=0.01, progress=False)
    here = [run.measure(unit) for unit in units]
    shutil.rmtree(cache)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as another:
        assert list(another.map(run.measure, units[::-1]))[::-1] == here


def test_a_process_with_other_faces_does_not_measure(prior, small):
    unit = run.units("dse-1", prior, faces=2, progress=False)[0]
    other = replace(unit, origin=replace(unit.origin, faces_digest="0" * 16, weights={"G": "1" * 16}))
    with pytest.raises(ValueError, match=r"weights, faces_digest differ\. Give every process the same"):
        run.measure(other)


def test_the_order_of_a_map_is_the_tables(prior, small):
    def backwards(function, units):
        return [function(unit) for unit in units[::-1]][::-1]

    assert measured(prior, map=backwards) == measured(prior)
    assert measured(prior)[0].row == "bicubic"


def test_code_that_can_change_a_number_is_told_from_code_that_cannot(tmp_path):
    library = tmp_path / "facesr_lib"
    shutil.copytree(ROOT / "facesr_lib", library, ignore=shutil.ignore_patterns("__pycache__"))
    assert run.code(library=library) == run.code()

    def pictures_and_all():
        return run.code(run.PICTURES, library), run.code(library=library)

    def change(path, line="CHANGED = 1"):
        path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
        return pictures_and_all()

    first = pictures_and_all()
    for name in ("widgets/figure.py", "cli/main.py", "evaluation/report.py", "evaluation/ledger.py", "plots.py"):
        assert change(library / name) == first, name
    after = change(library / "metrics/sets.py")
    assert (after[0], after[1] != first[1]) == (first[0], True)
    pictures = ("search/engine.py", "networks/flow.py", "networks/progressive.py", "networks/supervised.py")
    for name in (*pictures, "degrade/downsample.py", "randomness.py", "images.py"):
        before = pictures_and_all()
        assert all(one != other for one, other in zip(change(library / name), before, strict=True)), name


def test_code_that_can_change_a_number_uses_no_other_that_can():
    library = ROOT / "facesr_lib"
    elsewhere = {
        *("assets", "devices", "files", "messages", "tables", "chapter"),  # no numbers
        *("evaluation/papers", "evaluation/records", "evaluation/tables"),  # a row is itself part of the key
        *("losses/__init__", "restoration/__init__"),  # names; below, what is used of them
    }
    listed = [library / name for name in (*run.PICTURES, *run.VALUES)]
    known = {path for each in listed for path in ([each] if each.is_file() else each.rglob("*.py"))}
    for path in known:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = (getattr(node, "module", None) or "").split(".")
            if not isinstance(node, ast.ImportFrom) or module[0] != "facesr_lib":
                continue
            for name in node.names:
                places = [library.joinpath(*parts) for parts in ([*module[1:], name.name], module[1:]) if parts]
                found = [path for place in places for path in (place.with_suffix(".py"), place / "__init__.py")]
                used = next(path for path in found if path.is_file())
                within = used.relative_to(library).with_suffix("").as_posix()
                assert used in known or any(within.startswith(each) for each in elsewhere), (path.name, within)


# Files


ORIGIN = Origin("a, b: c", {"G": "0" * 16}, 2, "held-out faces", "1" * 16, "2" * 16, "cpu, float32", "psnr", 0.5, 3, 10)
FOUND = Results(
    ORIGIN,
    (Record("dse-1", "8x", "16x", "a, b", 0, "psnr", 17.25), Record("dse-1", "8x", "16x", "# c", -1, "kid", -0.5)),
)


def test_results_survive_a_file(tmp_path):
    path = tmp_path / "sub" / "r.csv"
    records.write(path, FOUND)
    assert records.read(path) == FOUND
    assert '\n# faces: 2\n# faces_from: "held-out faces"\n' in path.read_text(encoding="utf-8")


def test_counts_keep_all_their_digits(tmp_path):
    whole = [replace(FOUND.records[0], metric="parameters", value=float(23_820_176))]
    rest = [replace(FOUND.records[0], face=i, value=v) for i, v in enumerate((1 / 3, inf, -2.0, 1.5e-9), 1)]
    records.write(tmp_path / "r.csv", replace(FOUND, records=(*whole, *rest)))
    back = [record.value for record in records.read(tmp_path / "r.csv").records]
    assert back == [23_820_176, 0.333333, inf, -2, 1.5e-9]


def test_results_that_exist_are_not_replaced_unasked(tmp_path):
    path = tmp_path / "r.csv"
    records.write(path, FOUND)
    before = path.read_bytes()
    other = replace(FOUND, records=())
    with pytest.raises(FileExistsError, match=r"r\.csv exists"):
        records.write(path, other)
    assert path.read_bytes() == before
    records.write(path, other, overwrite=True)
    assert records.read(path) == other


def test_results_do_not_replace_what_was_written_in_the_meantime(tmp_path, monkeypatch):
    replacing = files.replacing

    @contextmanager
    def slowly(path, **options):
        with replacing(path, **options) as temporary:
            yield temporary
            path.write_text("another's")

    monkeypatch.setattr(files, "replacing", slowly)
    with pytest.raises(FileExistsError, match=r"r\.csv exists"):
        records.write(tmp_path / "r.csv", FOUND)
    assert (tmp_path / "r.csv").read_text() == "another's"


@pytest.mark.parametrize(
    ("old", "new"), [("17.25", "17.2"), ("\n", ""), ("# seed: 3", "# seed: 4"), ("# faces: 2", "")]
)
def test_results_that_were_changed_are_no_results(tmp_path, old, new):
    path = tmp_path / "r.csv"
    records.write(path, FOUND)
    text = path.read_text(encoding="utf-8")
    assert old in text
    head, _, tail = text.rpartition(old)
    path.write_text(head + new + tail, encoding="utf-8")
    with pytest.raises(ValueError, match=r"r\.csv holds no results in full .*measure them anew"):
        records.read(path)


@pytest.mark.parametrize("content", [b"", b"experiment,setting\n", b"\xff\xfe", b"# content: 1\n# a\nb\n"])
def test_a_file_of_another_kind_holds_no_results(tmp_path, content):
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no results in full"):
        records.read(path)


def test_origin_says_what_was_measured(prior, small):
    origin = run.run("dse-1", prior, faces=2, effort=0.5, seed=1, progress=False).origin
    truth, faces_from = chapter.faces(prior, 2)
    assert origin.faces_digest == files.digest(truth)[:16]
    assert (origin.weights, origin.code) == (run.weights("G", prior), run.code())  # PULSE asks the generator alone
    assert (origin.faces_from, origin.device, origin.metrics.split()[0]) == (faces_from, "cpu, float32", "psnr")
    assert origin.budget() == f"prior faces-64, 2 {faces_from}, effort 0.5, seed 1"


def test_weights_are_told_apart(prior, tmp_path):
    first = run.weights("DFG", prior)
    prior.save(tmp_path / "copy.safetensors")
    copy = FacePrior.load(tmp_path / "copy.safetensors")
    assert run.weights("DFG", copy) == first
    with torch.no_grad():
        copy.generator.mapping.w_avg[0] += 0.01
    changed = run.weights("DFG", copy)
    assert [name for name in first if changed[name] != first[name]] == ["G"]
    bare = run.weights("DFG", FacePrior("bare", prior.generator, None))
    assert [name for name in first if bare[name] != first[name]] == ["D", "F"]


def test_rows_name_the_networks_that_they_ask(prior):
    assert run.asked(Row("bicubic", "bicubic")) == set()
    assert run.asked(PULSE) == {"G"}
    assert run.asked(Row("DSE", "dse")) == {"G", "D"}
    assert run.asked(Row("PULSE, refined", "pulse", start=RLS)) == {"G", "F"}
    assert run.asked(Row("codes", options={"space": "flow"})) == set()  # its table's measure asks
    assert run.units("rls-fig3", prior, faces=1)[0].origin.weights.keys() == {"F", "G"}
    assert run.asked(Row("VDSR", "vdsr")) == {"vdsr"}
    assert run.asked(Row("VDSR, another training", "vdsr", {"weights": "vdsr-1"})) == {"vdsr-1"}


def test_a_new_flow_changes_nothing_for_rows_that_do_not_ask_it(prior, monkeypatch, calls):
    table(monkeypatch, PULSE, replace(RLS, options={"steps": 2}))
    measured(prior, faces=1)
    calls.clear()
    other = FacePrior("other", prior.generator, None)
    other.flow = prior.flow.from_weights({name: 0.9 * value for name, value in prior.flow.weights().items()}).freeze()
    measured(other, faces=1)
    assert [name for name, _ in calls] == ["rls"]


# How it is laid out


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = torch.randn(300, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hit = [low < 0 < high for low, high in (interval([row.tolist()]) for row in draws)]
    assert 0.89 < sum(hit) / len(hit) < 0.98
    assert interval([[2.0, 2.0, 2.0]]) == (2.0, 2.0)


def test_the_table_shows_ours_beside_the_papers():
    found = [Record("dse-1", "8x", "8x", "PULSE", face, "psnr", 17.0 + face) for face in range(3)]
    found += [Record("rls-1", "16x", "64x", "PULSE", 0, "psnr", 99.0)]  # of another table
    (row,) = report.table("dse-1", Results(ORIGIN, tuple(found))).rows
    assert row[:2] == ["8×", "PULSE"]
    assert row[2].startswith("18 [")
    assert row[2].endswith("· paper 22.54")
    samples = replace(ORIGIN, faces_from=chapter.SAMPLES)
    (row,) = report.table("dse-1", Results(samples, tuple(found))).rows
    assert row[2].endswith("· paper, on other faces: 22.54")
    (row,) = report.table("rls-1", Results(ORIGIN, tuple(found))).rows
    assert row[0] == "16× (paper: 64×)"
    assert "unavailable · paper 0.0302643" in row  # KID is printed times 1000
    assert any(cell.startswith("99 · paper") for cell in row)  # PSNR could run


def test_trainings_of_one_model_share_a_row():
    found = [
        Record("dse-1", "8x", "8x", f"PULSE{s}", i, "psnr", v + i)
        for s, v in (("", 17), (", seed 1", 18))
        for i in (0, 1)
    ]
    (row,) = report.table("dse-1", Results(ORIGIN, tuple(found))).rows
    assert row[1] == "PULSE (2 trainings)"
    mean, low, high = map(float, re.findall(r"[-\d.]+", row[2])[:3])
    assert mean == 18
    assert high - mean == pytest.approx(12.71 / 2, abs=0.1)
    assert mean - low == pytest.approx(12.71 / 2, abs=0.1)


def test_a_set_metric_is_shown_whole_and_corrected():
    pseudo = [Record("dse-1", "8x", "8x", "PULSE", face, "fid", 50.0 + face) for face in range(-1, 3)]
    (row,) = report.table("dse-1", Results(ORIGIN, tuple(pseudo))).rows
    assert row[-1].startswith("49, corrected 51 [")


def test_an_unknown_table_is_refused_before_any_work(prior):
    with pytest.raises(ValueError, match=r"no table 'dse-9': did you mean dse-"):
        run.run("dse-9", prior)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"faces": 0}, "faces must be a whole number, at least 1; got 0"),
        ({"batch": -1}, "batch must be a whole number, at least 1; got -1"),
        ({"effort": inf}, "effort must be a finite number, above 0; got inf"),
        ({"effort": float("nan")}, "effort must be a finite number, above 0; got nan"),
        ({"faces": 2.5}, "faces must be a whole number, at least 1; got 2.5"),
        ({"seed": None}, "seed must be a whole number, at least 0; got None"),
        ({"faces": 51}, "there are 50 held-out faces; got faces = 51"),
        ({"seed": -1}, "seed must be a whole number, at least 0; got -1"),
    ],
)
def test_a_budget_that_measures_nothing_is_refused(prior, budget, message):
    with pytest.raises(ValueError, match=message):
        run.run("dse-1", prior, **budget)
