"""Landmark networks: parity with the official one, heatmaps and points, distillation."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facesr_lib import assets
from facesr_lib.networks.landmarks import FAN, MIRRORED, DistilledFAN, draw, load, peaks
from facesr_lib.training import landmarks as training
from facesr_lib.training import loop


@pytest.fixture(scope="module")
def oracle():
    path = Path(os.environ.get("FACESR_ORACLES", "")) / "distilled_fan.safetensors"
    if not path.is_file():
        pytest.skip("distilled_fan.safetensors is not in FACESR_ORACLES")
    return load_file(path)


def test_the_distilled_network_equals_the_official(oracle):
    network = DistilledFAN().eval()
    network.load_state_dict({name[4:]: value for name, value in oracle.items() if name.startswith("net.")})
    with torch.no_grad():
        heatmaps = network(oracle["images"].permute(0, 3, 1, 2).float() / 255)
    assert_close(heatmaps, oracle["heatmaps"], atol=1e-4, rtol=0)
    assert (peaks(heatmaps) - oracle["landmarks_xy"]).abs().max() <= 1


def test_the_official_file_is_read(oracle):
    try:
        path = assets.checked("distilled-fan")
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    with torch.no_grad():
        heatmaps = load(path)(oracle["images"].permute(0, 3, 1, 2).float() / 255)
    assert_close(heatmaps, oracle["heatmaps"], atol=1e-4, rtol=0)


def test_our_file_is_read_and_others_are_refused(tmp_path):
    network, path = DistilledFAN(), tmp_path / "landmarks.safetensors"
    with pytest.raises(FileNotFoundError, match="check the path"):
        load(path)
    save_file(network.state_dict(), path)
    assert_close(load(path).conv.weight, network.conv.weight)
    for state in ({"some": torch.zeros(1)}, {"conv.weight": torch.zeros(1)}):
        save_file(state, path)
        with pytest.raises(ValueError, match="another architecture or width than this DistilledFAN"):
            load(path)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(ValueError, match="damaged or cut short"):
        load(path)


def test_the_distilled_network_has_the_papers_number_of_parameters():
    assert sum(p.numel() for p in DistilledFAN().parameters()) == 321_412


def test_fan_has_the_papers_number_of_parameters_under_the_packages_names():
    network = FAN()
    assert sum(p.numel() for p in network.parameters()) == 23_820_176
    names = network.state_dict().keys()
    assert {"conv2.downsample.2.weight", "m3.b2_plus_1.conv3.weight", "top_m_0.bn1.running_mean", "al2.bias"} < names
    assert not any(name.startswith(("al3", "bl3", "m4", "m0.b1_1.downsample")) for name in names)


@torch.no_grad()
def test_each_hourglass_of_fan_sees_what_the_one_before_made():
    network, image = FAN(stacks=2).eval(), torch.rand(1, 3, 64, 64)
    heatmaps = network(image)
    assert heatmaps.shape == (1, 68, 16, 16)
    network.l0.bias += 1  # heatmaps of the first
    assert (network(image) - heatmaps).abs().max() > 1e-4


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", ["state dict", "TorchScript"])
@torch.no_grad()
def test_fans_released_weights_are_read_wherever_somebody_has_put_them(kind, tmp_path, monkeypatch):
    """As the package face-alignment writes them; here they are made up, and of one hourglass."""
    network, faces = FAN(stacks=1).eval(), torch.rand(1, 3, 256, 256)
    path = tmp_path / assets.entry("fan").path
    path.parent.mkdir()
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    if kind == "TorchScript":
        torch.jit.save(torch.jit.trace(network, faces), path)
    else:
        torch.save(network.state_dict(), path)
    assert assets.verify("fan") == "unchecked"
    found = load(assets.path("fan"))
    assert not any(parameter.requires_grad for parameter in found.parameters())
    assert_close(found(faces), network(faces))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="damaged, cut short, or no checkpoint"):
        load(path)


def test_without_fans_weights_it_is_said_where_they_go(tmp_path, monkeypatch):
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        assets.AssetMissing, match=r"put the file at .*2DFAN4.*face-alignment.*distilled networks serve"
    ):
        assets.path("fan")


@torch.no_grad()
def test_a_network_looks_at_faces_of_the_size_that_it_knows():
    small, large = DistilledFAN().eval(), FAN(stacks=1).eval()
    faces = torch.rand(2, 3, 128, 128)
    assert_close(small.heatmaps(faces), small(torch.nn.functional.avg_pool2d(faces, 2)), atol=1e-5, rtol=0)
    assert_close(small.heatmaps(faces[..., :64, :64]), small(faces[..., :64, :64]))
    enlarged = torch.nn.functional.interpolate(faces, scale_factor=2, mode="bilinear")
    assert_close(large.heatmaps(faces), large(enlarged))


@given(st.floats(3, 60), st.floats(3, 60), st.floats(1, 3))
def test_a_point_that_was_drawn_is_found(x, y, sigma):
    points = torch.tensor([[[x, y], [y, x]]])
    heatmaps = draw(points, 64, sigma)
    assert heatmaps.amax((2, 3)).min() > 0.75
    assert_close(peaks(heatmaps), points, atol=1e-2, rtol=0)


def test_mirroring_twice_changes_nothing():
    assert torch.equal(MIRRORED[MIRRORED], torch.arange(68))


def spots(n=40, side=64):
    """Pictures whose landmarks can be seen: a bright spot at each of three points, the others at the centre."""
    points = torch.full((n, 68, 2), 31.5)
    points[:, [30, 27, 8]] = torch.rand(n, 3, 2, generator=torch.Generator().manual_seed(0)) * 20 + 22
    bright = draw(points[:, [30, 27, 8]], side, 1.5)  # red, green and blue, mirrored onto themselves
    return (bright * 255).round().byte().permute(0, 2, 3, 1).numpy(), points


def test_points_move_with_the_picture():
    pixels, points = spots()
    image, moved = training.Distillation(pixels, points, training.Config(rotation=40, scale=0.2, shift=0.1)).faces()
    assert_close(peaks(image), moved[:, [30, 27, 8]], atol=0.6, rtol=0)


def test_distillation_learns_and_resumes_exactly(tmp_path):
    pixels, points = spots()
    config = training.Config(batch=4, lr=1e-3)
    whole = training.Distillation(pixels, points, config)
    loop.fit(whole, tmp_path / "whole", steps=12, progress=False)
    loop.fit(training.Distillation(pixels, points, config), tmp_path / "parts", steps=5, progress=False)
    parts = training.Distillation(pixels, points, config)
    loop.fit(parts, tmp_path / "parts", steps=7, resume=True, progress=False)
    for ours, theirs in zip(parts.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    first = training.Distillation(pixels, points, config).step()["hint"]
    assert whole.step()["hint"] < first
    kept = load_file(tmp_path / "whole" / training.NETWORK)
    assert kept.keys() == {k for k in whole.network.state_dict() if "num_batches" not in k}


def test_a_run_is_resumed_with_the_same_faces_and_hints_alone():
    pixels, points = spots()
    begun = training.Distillation(pixels, points, training.Config(), DistilledFAN()).config
    others = training.Distillation(255 - pixels, points + 1, training.Config(), DistilledFAN()).config
    assert {key for key in begun if begun[key] != others[key]} == {"faces", "landmarks", "teacher"}


def test_another_network_can_be_the_teacher():
    pixels, points = spots()
    trainee = training.Distillation(pixels, points, training.Config(batch=2), teacher := DistilledFAN())
    teacher.load_state_dict(trainee.network.state_dict())
    trainee.network.eval()  # as the teacher is
    assert trainee.step()["hint"] < 1e-4  # its own teacher has nothing to say; only bfloat16 differs
    other = training.Distillation(pixels, points, training.Config(batch=2))
    assert other.step()["hint"] > 1e-3


def test_a_teacher_in_a_file_needs_no_landmarks(tmp_path):
    pixels, _ = spots()
    save_file(DistilledFAN().state_dict(), tmp_path / "teacher.safetensors")
    teacher = load(tmp_path / "teacher.safetensors")
    trainee = training.Distillation(pixels, None, training.Config(batch=2), teacher)
    assert trainee.step()["hint"] > 0
    with pytest.raises(ValueError, match="from landmarks or from a teacher"):
        training.Distillation(pixels, None, training.Config())


@pytest.mark.parametrize(
    ("pixels", "points", "message"),
    [
        (np.zeros((40, 60, 60, 3), np.uint8), 40, r"multiple of 64; got \(40, 60, 60, 3\), uint8"),
        (np.zeros((40, 64, 64, 3)), 40, "multiple of 64; got .*, float64"),
        (np.zeros((0, 64, 64, 3), np.uint8), 0, r"got \(0, 64, 64, 3\)"),
        (np.zeros((40, 64, 64, 3), np.uint8), 39, r"need landmarks \(40, 68, 2\)"),
    ],
)
def test_labels_and_pictures_that_do_not_fit_are_refused(pixels, points, message):
    with pytest.raises(ValueError, match=message):
        training.Distillation(pixels, torch.zeros(points, 68, 2), training.Config())
