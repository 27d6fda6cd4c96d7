"""The camera pipeline: every stage as imgaug and OpenCV make it, its choices, seeds and limits."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib.degrade import CameraPipeline, camera, opencv
from facesr_lib.degrade.camera import Choices, stages

ORACLE = load_file(ROOT / "tests" / "oracles" / "psfrgan_degradation.safetensors")
FACE = ORACLE["image"].permute(2, 0, 1)[None] / 255


def one(blur="none", extent=0.0, angle=0.0, direction=0.0, side=96, kernel="area", grey=False, compression=0):
    """What befalls one picture, by hand."""
    return Choices(
        grey=torch.tensor([grey]),
        blur=torch.tensor([opencv.BLURS.index(blur)]),
        extent=torch.tensor([extent], dtype=torch.float64),
        angle=torch.tensor([angle], dtype=torch.float64),
        direction=torch.tensor([direction], dtype=torch.float64),
        side=torch.tensor([side]),
        kernel=torch.tensor([opencv.RESIZES.index(kernel)]),
        noise=torch.zeros(1),
        coloured=torch.tensor([False]),
        seed=torch.tensor([0]),
        compression=torch.tensor([compression]),
    )


def cases():
    yield "gray", "grey", {"grey": True}
    for sigma in (3.0, 4.9, 5.0, 7.3, 15.0):
        yield f"gauss_sigma{sigma}", "blurred", {"blur": "gaussian", "extent": sigma}
    for blur, sides in {"average": (3, 4, 8, 15), "median": (3, 9, 15)}.items():
        for side in sides:
            yield f"{blur}_k{side}", "blurred", {"blur": blur, "extent": side}
    for name in (name for name in ORACLE if name.startswith("motion_image")):
        k, angle, direction = (float(part.lstrip("kangledir")) for part in name.split("_")[2:])
        moved = {"blur": "motion", "extent": k // 2 * 2 + 1, "angle": angle, "direction": direction}
        yield name, "blurred", moved
    for kernel in opencv.RESIZES:
        yield f"resize37_{kernel}", "small", {"side": 37, "kernel": kernel}
        yield f"resize37_{kernel}_back96_cubic", "enlarged", {"side": 37, "kernel": kernel}
    for compression in (10, 40, 65):
        yield f"jpeg_compression{compression}", "compressed", {"compression": compression}


@pytest.mark.parametrize(
    ("name", "stage", "befalls"), list(cases()), ids=lambda value: value if str(value) == value else ""
)
def test_each_stage_equals_the_official(name, stage, befalls, monkeypatch):
    monkeypatch.setattr(camera, "REFERENCE", 96)  # the oracle's picture is taken as it is
    ours = 255 * stages(FACE, one(**befalls))[stage]
    theirs = ORACLE[name].permute(2, 0, 1)[None].float()
    most = 2 if "linear_back" in name else 1  # OpenCV's linear weights have 11 bits
    assert_close(ours, theirs, atol=most + 1e-3, rtol=0)
    assert (ours - theirs).abs().mean() < 0.2


@pytest.mark.parametrize("name", [name for name in ORACLE if name.startswith("motion_kernel")])
def test_a_motions_kernel_equals_the_official(name):
    k, angle, direction = (float(part.lstrip("kangledir")) for part in name.split("_")[2:])
    c = one("motion", k // 2 * 2 + 1, angle, direction)
    assert_close(
        opencv.blur_kernels(c.blur, c.extent, c.angle, c.direction)[0].float(), ORACLE[name], atol=1e-3, rtol=0
    )


def test_choices_have_the_official_codes_probabilities_and_ranges():
    c = CameraPipeline(seed=1).choose(20_000)
    share = lambda mask: float(mask.double().mean())  # noqa: E731
    blurred = c.blur > 0
    assert share(c.grey) == pytest.approx(0.3, abs=0.015)
    assert share(blurred) == pytest.approx(0.5, abs=0.015)
    assert share(c.noise > 0) == pytest.approx(0.2, abs=0.015)
    assert share(c.coloured) == pytest.approx(0.5, abs=0.015)
    assert share(c.compression > 0) == pytest.approx(0.7, abs=0.015)
    for i in range(1, 5):
        assert share(c.blur[blurred] == i) == pytest.approx(0.25, abs=0.02)
    for i in range(4):
        assert share(c.kernel == i) == pytest.approx(0.25, abs=0.02)
    extents = {name: c.extent[c.blur == i] for i, name in enumerate(opencv.BLURS)}
    assert extents["gaussian"].min() >= 3
    assert extents["gaussian"].max() <= 15
    assert extents["gaussian"].mean() == pytest.approx(9, abs=0.25)
    assert set(extents["average"].tolist()) == set(range(3, 16))
    assert set(extents["median"].tolist()) == set(range(3, 16, 2))
    assert share(extents["median"] == 3) == pytest.approx(1 / 13, abs=0.025)
    assert set(extents["motion"].tolist()) == set(range(5, 26, 2))
    assert (c.side.min(), c.side.max()) == (32, 255)
    strengths = c.compression[c.compression > 0]
    assert (strengths.min(), strengths.max()) == (10, 64)
    assert (c.quality[c.compression > 0].min(), c.quality[c.compression > 0].max()) == (37, 90)
    assert c.noise.max() <= 0.1
    assert c.noise[c.noise > 0].mean() == pytest.approx(0.05, abs=0.003)


def test_noise_has_the_deviation_that_was_chosen_and_its_colours():
    white = CameraPipeline(seed=3, blur_p=0, grey_p=0, noise_p=1, jpeg_p=0, side=(255, 256), noise=(0.05, 0.05))
    at = stages(torch.full((20, 3, 512, 512), 0.5), white.choose(20))
    field = at["noisy"] - at["small"]
    assert_close(field.std((1, 2, 3)), torch.full((20,), 0.05), atol=1e-3, rtol=0)
    equal = (field[:, 0] == field[:, 1]).flatten(1).all(1)
    assert torch.equal(equal, ~white.choose(20).coloured)


def test_a_call_gives_picture_and_target_and_tells_what_befell():
    pipeline = CameraPipeline(seed=2)
    faces = torch.rand(12, 3, 64, 64) * torch.tensor([1, 0.5, 0.2])[:, None, None]  # reddish
    degraded, target = pipeline(faces)
    assert degraded.shape == target.shape == faces.shape
    grey = pipeline.choices.grey
    assert 0 < grey.sum() < 12
    for picture in (degraded, target):
        levels = picture * 255
        assert_close(levels, levels.round(), atol=1e-3, rtol=0)
        assert picture.min() >= 0
        assert picture.max() <= 1
        spread = (picture.amax(1) - picture.amin(1)).flatten(1).amax(1)
        assert (spread[grey] < 0.02).all()  # JPEG keeps grey grey
        assert (spread[~grey] > 0.1).all()
    assert_close(target[~grey], faces[~grey], atol=0.5 / 255 + 1e-6, rtol=0)
    told = pipeline.choices.sentences()
    assert [("made grey" in sentence) for sentence in told] == grey.tolist()
    assert [("JPEG" in sentence) for sentence in told] == (pipeline.choices.compression > 0).tolist()


def test_a_pictures_fate_is_its_own():
    faces = torch.rand(6, 3, 64, 64)
    whole, _ = CameraPipeline(seed=[5, 3, 8, 1, 9, 2])(faces)
    again, _ = CameraPipeline(seed=[5, 3, 8, 1, 9, 2])(faces)
    assert torch.equal(whole, again)
    alone = torch.cat([CameraPipeline(seed=[s])(faces[i, None])[0] for i, s in enumerate([5, 3, 8, 1, 9, 2])])
    assert (whole - alone).abs().max() < 1.5 / 255  # a sum in another order may round to the next level
    assert (whole == alone).double().mean() > 0.999
    other, _ = CameraPipeline(seed=[6, 3, 8, 1, 9, 2])(faces)
    assert not torch.equal(other[0], whole[0])
    assert_close(other[1:], whole[1:], atol=1.5 / 255, rtol=0)


@given(st.sampled_from(["gaussian", "average", "motion"]), st.floats(3, 15), st.sampled_from([128, 256, 1024]))
def test_a_blur_is_as_wide_on_any_size(blur, extent, size):
    c = one(blur, extent if blur == "gaussian" else round(extent) // 2 * 2 + 1, angle=30.0)
    kernel = opencv.blur_kernels(c.blur, c.extent, c.angle, c.direction)
    carried = opencv.carried_over(kernel, size / 512)

    def spread(k):
        at = torch.arange(k.shape[1], dtype=torch.float64) - k.shape[1] // 2
        return float((k.sum(1) * at.square()).sum())

    assert float(carried.sum()) == pytest.approx(1)
    ours, theirs = spread(carried), spread(kernel) * (size / 512) ** 2
    assert ours == pytest.approx(theirs, abs=0.25 + (size / 512) ** 2 / 12)  # pixels have a size: 1/12 on average


def test_the_smallest_picture_is_one_pixel():
    degraded, _ = CameraPipeline(seed=0)(torch.rand(4, 3, 2, 2))
    assert (degraded.amax((2, 3)) - degraded.amin((2, 3))).max() == 0  # made of one pixel each


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gaussian": (15, 3)}, "gaussian is a range"),
        ({"side": (32, 32)}, "side is a range"),
        ({"side": (32, 600)}, "side is a range"),
        ({"compression": (10, 200)}, "compression is a range"),
        ({"jpeg_p": 1.5}, "the probability jpeg_p must be .* at least 0, at most 1; got 1.5"),
        ({"jpeg_p": "often"}, "the probability jpeg_p must be a finite number, at least 0, at most 1; got 'often'"),
        ({"gaussian": 3}, "gaussian is a range, two numbers between 0.1 and 100, first end first; got 3"),
        ({"motion": (5, 9.5)}, "motion is a range, two whole numbers"),
        ({"noise": (0, "much")}, "noise is a range"),
    ],
)
def test_senseless_ranges_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CameraPipeline(**options)


def test_pictures_that_are_not_square_or_none_are_refused():
    with pytest.raises(ValueError, match=r"squares; got 2 32×64"):
        CameraPipeline()(torch.rand(2, 3, 64, 32))
    with pytest.raises(ValueError, match="at least one"):
        CameraPipeline()(torch.rand(0, 3, 64, 64))
    with pytest.raises(ValueError, match="NaN"):
        CameraPipeline()(torch.full((1, 3, 64, 64), torch.nan))
    with pytest.raises(ValueError, match="Divide by 255"):
        CameraPipeline()(torch.full((1, 3, 64, 64), 200.0))


def test_threads_may_share_a_pipeline():
    pipeline, faces = CameraPipeline(seed=3), torch.rand(8, 3, 32, 32)
    alone = [CameraPipeline(seed=3)(faces[:n])[0] for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for ours, theirs in zip(pool.map(lambda n: pipeline(faces[:n])[0], range(1, 9)), alone, strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are spawned here")
def test_a_forked_process_makes_poor_photographs_too():
    pipeline, faces = CameraPipeline(seed=0, jpeg_p=1.0), torch.rand(4, 3, 32, 32)
    here, _ = pipeline(faces)  # the threads of this process are there now
    loader = torch.utils.data.DataLoader(
        range(1),
        batch_size=None,
        num_workers=1,
        collate_fn=lambda _: pipeline(faces)[0],
        multiprocessing_context="fork",
        timeout=60,
    )
    assert torch.equal(next(iter(loader)), here)
