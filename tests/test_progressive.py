"""Progressive super-resolution: parity with the official networks at every step, and its training."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facesr_lib.degrade import Chain, Downsample
from facesr_lib.networks import landmarks, progressive
from facesr_lib.networks.landmarks import DistilledFAN, draw
from facesr_lib.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from facesr_lib.training import loop
from facesr_lib.training import progressive as training
from facesr_lib.training.faces import Faces

ORACLES = Path(__file__).parent / "oracles"
SIDES = {1: 32, 2: 64, 3: 128}


@pytest.fixture(scope="module")
def oracle():
    return load_file(ORACLES / "progressive.safetensors")


@pytest.fixture(scope="module")
def official():
    """Both networks with the weights of the oracle, by the rule in its README."""
    names = json.loads((ORACLES / "progressive_keys.json").read_text())
    networks = {"G": ProgressiveGenerator().eval(), "D": ProgressiveDiscriminator().eval()}
    for key, network in networks.items():
        state = network.state_dict()
        assert [[name, list(v.shape)] for name, v in state.items()] == [list(entry) for entry in names[key].items()]
        for j, (name, v) in enumerate(state.items()):
            v.copy_(filled(name, v, j))
    return networks


def filled(name, v, j):
    i = torch.arange(v.numel(), dtype=torch.float64)
    if name.endswith("num_batches_tracked"):
        return v
    if name.endswith("running_mean"):
        values = 0.1 * torch.sin(i + j)
    elif name.endswith("running_var"):
        values = 1 + 0.5 * torch.sin(i + j)
    elif v.ndim == 1:
        values = name.endswith("weight") + 0.1 * torch.sin(i + j)
    else:
        noise = torch.sin(12.9898 * (i + 1) + 78.233 * j) * 43758.5453
        scale = 1 if name.endswith("weight_orig") else math.sqrt(2 / v[0].numel())
        values = scale * math.sqrt(12) * (noise - noise.floor() - 0.5)
    return values.reshape(v.shape).float()


FADES = [(1, -1.0), (2, -1.0), (2, 0.3), (3, -1.0), (3, 0.6)]


@pytest.mark.parametrize(("step", "alpha"), FADES)
def test_both_networks_equal_the_official_at_every_step(oracle, official, step, alpha):
    case = f"step{step}_alpha{alpha:g}"
    with torch.no_grad():
        image = official["G"](oracle["x16"], step, alpha)
        verdict = official["D"](oracle[f"D_in_{case}"], step, alpha)
    assert_close(image, oracle[f"G_{case}"], atol=1e-4, rtol=0)
    assert_close(verdict, oracle[f"D_{case}"], atol=1e-4, rtol=0)


def test_the_networks_have_the_papers_sizes():
    sizes = [
        sum(p.numel() for p in network().parameters()) for network in (ProgressiveGenerator, ProgressiveDiscriminator)
    ]
    assert sizes == [8_969_097, 8_065_537]


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return ProgressiveGenerator(1 / 16).eval(), ProgressiveDiscriminator(1 / 16)


@pytest.mark.parametrize("step", [2, 3])
def test_a_step_fades_in_from_the_one_before(small, step):
    generator, discriminator = small
    x, image = torch.randn(2, 3, 16, 16), torch.randn(2, 3, SIDES[step], SIDES[step])
    with torch.no_grad():
        before = generator(x, step - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert_close(generator(x, step, 0.0), before)
        assert torch.equal(generator(x, step, 1.0), generator(x, step))
        assert torch.equal(discriminator(image, step, 1.0), discriminator(image, step))
        halfway = (generator(x, step, 0.0) + generator(x, step)) / 2
        assert_close(generator(x, step, 0.5), halfway, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_one_face_alone_and_faces_that_agree_are_judged_by_numbers(small, step):
    alone = torch.randn(1, 3, SIDES[step], SIDES[step])
    for x in (alone, alone.expand(3, -1, -1, -1)):
        x = x.clone().requires_grad_(True)
        verdict = small[1](x, step, 0.5)
        (slope,) = torch.autograd.grad(verdict.sum(), x, create_graph=True)
        slope.square().sum().backward()
        assert verdict.isfinite().all()
        assert x.grad.isfinite().all()


def test_the_batch_counts_only_by_its_spread():
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    assert_close(progressive.spread(x), x.float().std(0).mean())


@pytest.mark.parametrize("width", [0.25, 0.5])
def test_width_is_a_factor_on_the_channels(width):
    generator = ProgressiveGenerator(width)
    assert generator.step1[0].out_channels == 512 * width
    assert generator.to_rgb[2].in_channels == 64 * width


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, d: g(torch.zeros(1, 3, 16, 16), 4), "step must be 1"),
        (lambda g, d: g(torch.zeros(1, 3, 16, 16), 0), "got 0"),
        (lambda g, d: g(torch.zeros(1, 3, 16, 16), 2, 1.5), "alpha must be at most 1"),
        (lambda g, d: g(torch.zeros(1, 3, 16, 16), 2.0), "step must be 1"),
        (lambda g, d: g(torch.zeros(1, 3, 16, 16), 2, None), "alpha must be at most 1, .*; got None"),
        (lambda g, d: d(torch.zeros(1, 3, 128, 128), 2, math.nan), "got nan"),
        (lambda g, d: d(torch.zeros(1, 3, 64, 64), 3), r"\(N, 3, 128, 128\), got .*\(1, 3, 64, 64\)"),
        (lambda g, d: ProgressiveGenerator(0.0), "width must be"),
    ],
)
def test_what_cannot_be_is_refused(small, call, message):
    with pytest.raises(ValueError, match=message):
        call(*small)


# Training


@pytest.fixture(scope="module")
def faces():
    random = torch.Generator().manual_seed(0)
    small = torch.rand(6, 3, 8, 8, generator=random)
    smooth = torch.nn.functional.interpolate(small, (128, 128), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().byte().permute(0, 2, 3, 1).numpy()


def maps(image):
    """Stand in for an ImageNet network."""
    return image, torch.nn.functional.avg_pool2d(image, 2)


def trainee(faces, **choices):
    torch.manual_seed(0)
    config = training.Config(**{"width": 1 / 32, "iterations": 8, "batch": 2} | choices)
    watched = (torch.from_numpy(faces[:2].copy()) / 255).permute(0, 3, 1, 2)
    return training.ProgressiveTraining(faces, config, fan=DistilledFAN(), features=maps, watched=watched, device="cpu")


def test_steps_and_fading_take_their_official_shares():
    config = training.Config()  # 50,000, 50,000 and 100,000 iterations; α = min(1, 2 i / 50,000)
    assert [config.stage(i) for i in (0, 49_999)] == [(1, 0.0), (1, 1.0)]
    assert [config.stage(i) for i in (50_000, 62_500, 75_000, 99_999)] == [(2, 0.0), (2, 0.5), (2, 1.0), (2, 1.0)]
    assert [config.stage(i) for i in (100_000, 125_000, 199_999)] == [(3, 0.0), (3, 1.0), (3, 1.0)]
    assert {training.Config(progressive=False).stage(i) for i in (0, 100_000)} == {(3, 1.0)}


def test_losses_left_out_weigh_nothing():
    config = training.Config(adversarial=0.5, feature=0, heatmap=0, attention=2)
    assert config.weights(2) == {"pixel": 10, "adversarial": 0.5, "feature": 0, "heatmap": 0, "attention": 1000}
    assert config.weights(1)["attention"] == 0


def test_the_network_learns_from_faces_halved_three_times(faces):
    batch = torch.from_numpy(faces).permute(0, 3, 1, 2) / 255
    for step, side in SIDES.items():
        x, y = training.pair(batch, step)
        assert y.shape[2:] == (side, side)
        assert_close((x + 1) / 2, Chain(*[Downsample(2, "bilinear")] * 3)(batch))
    assert_close((y + 1) / 2, batch)


def test_training_grows_resumes_exactly_and_ends_by_itself(faces, tmp_path):
    whole = trainee(faces)
    report = loop.fit(whole, tmp_path / "whole", steps=100, progress=False)
    assert (report.steps, report.images_seen) == (8, 16)
    loop.fit(trainee(faces), tmp_path / "parts", steps=3, progress=False)
    with pytest.raises(ValueError, match="up to step 2 of 3"):
        progressive.load(tmp_path / "parts" / training.NETWORK)
    parts = trainee(faces)
    loop.fit(parts, tmp_path / "parts", steps=100, resume=True, progress=False)
    for ours, theirs in zip(
        [*parts.generator.state_dict().values(), *parts.discriminator.state_dict().values(), parts.moments],
        [*whole.generator.state_dict().values(), *whole.discriminator.state_dict().values(), whole.moments],
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        kept, live = progressive.load(tmp_path / "whole" / training.NETWORK), whole.network()
        assert_close(kept(x), live(x), atol=2e-2, rtol=2e-2)  # half precision
    seen = load_file(tmp_path / "whole" / training.MOMENTS)["images"]
    blocks = seen[0].unfold(2, 4, 4).unfold(3, 4, 4)
    assert (blocks == blocks[..., :1, :1]).all()  # at first 32², shown four times as large
    assert seen[7].float().std() > 0
    assert (tmp_path / "whole" / "samples-000000016.png").is_file()


def test_a_run_is_resumed_with_the_same_faces_and_networks_alone(faces):
    config = training.Config(width=1 / 32)
    given = {
        "pixels": faces,
        "fan": DistilledFAN(),
        "features": maps,
        "seen_by": "VGG16",
        "watched": torch.rand(1, 3, 128, 128),
    }
    begun = training.ProgressiveTraining(config=config, **given, device="cpu").config
    others = {"pixels": faces // 2, "fan": DistilledFAN(), "seen_by": "another", "watched": None}
    for name, other in others.items():
        resumed = training.ProgressiveTraining(config=config, **given | {name: other}, device="cpu").config
        assert {key for key in begun if begun[key] != resumed[key]} == {{"pixels": "faces"}.get(name, name)}


def test_restoring_becomes_better(faces):
    trained = trainee(faces, iterations=60, progressive=False, attention=0, heatmap=0, feature=0)
    first = [trained.step()["pixel"] for _ in range(60)]
    assert sum(first[-10:]) < 0.85 * sum(first[:10])


@pytest.mark.parametrize("left_out", ["feature", "heatmap", "attention"])
def test_a_loss_left_out_changes_what_is_learnt(faces, left_out):
    def after_two(**choices):
        trained = trainee(faces, progressive=False, **choices)
        trained.step(), trained.step()
        return trained.generator.step1[0].weight.detach()

    assert not torch.equal(after_two(), after_two(**{left_out: 0.0}))


def test_the_average_gets_batch_statistics_of_its_own(faces):
    trained = trainee(faces, ema_images=100, iterations=4)
    for _ in range(4):
        trained.step()
    kept, live = trained.network(), trained.generator
    assert not torch.equal(kept.step1[0].weight, live.step1[0].weight)
    x, _ = training.pair(torch.from_numpy(faces).permute(0, 3, 1, 2) / 255, 3)
    with torch.no_grad():
        mean = kept.step1[0](x).mean((0, 2, 3))
    assert_close(kept.step1[1].running_mean, mean, atol=1e-4, rtol=1e-4)


def test_bfloat16_stays_near():
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (4, 128, 128, 3), dtype=torch.uint8).numpy()
    config = training.Config(width=1 / 32, iterations=1, batch=2, progressive=False)
    fan = DistilledFAN()
    runs = [
        training.ProgressiveTraining(pixels, config, fan=fan, features=maps, device="cpu", bf16=bf16).step()
        for bf16 in (False, True)
    ]
    for name in runs[0]:
        assert_close(runs[1][name], runs[0][name], rtol=0.1, atol=0.05)


def test_moved_faces_stay_in_their_place_without_moves_and_are_turned_with_them():
    random = torch.Generator().manual_seed(0)

    def faces(x, y):
        spot = (255 * draw(torch.tensor([[[x, y]]]), 256, 3.0)).round().byte().expand(1, 3, 256, 256)
        return Faces(spot.permute(0, 2, 3, 1).numpy(), 128, torch.device("cpu"))

    def moved(faces, **most):
        return faces.draw(40, random, **{"rotation": 0, "scale": 0, "shift": 0} | most)[0]

    high = faces(127.5, 64.0)
    assert_close(moved(high), high.first(1).expand(40, -1, -1, -1), atol=1e-4, rtol=0)
    middle = (torch.tensor([63.5, 31.75]) - 63.5).norm()  # of the spot from the picture's
    turned = landmarks.peaks(moved(high, rotation=30))[:, 0] - 63.5
    assert_close(turned.norm(dim=1), middle.expand(40), atol=0.6, rtol=0)
    angle = torch.atan2(turned[:, 0], -turned[:, 1]).rad2deg()
    assert 20 < angle.abs().max() <= 31
    assert angle.min() < 0 < angle.max()
    shifted = landmarks.peaks(moved(high, shift=0.1))[:, 0]
    away = (shifted - torch.tensor([63.5, 31.75])).abs().max()
    assert 8 < away <= 13.3
    larger = landmarks.peaks(moved(high, scale=0.2))[:, 0] - 63.5
    x = landmarks.peaks(moved(faces(90.0, 64.0)))[:, 0, 0]
    assert_close(x.round().unique(), torch.tensor([45.0, 82.0]))  # as it is, or in the mirror
    sizes = larger.norm(dim=1) / middle
    assert 0.81 < sizes.min() < 0.9  # 1 / 1.2, but for the spot's width
    assert 1.1 < sizes.max() < 1.27  # 1 / 0.8


def test_unaligned_faces_are_trained_from_twice_the_size(faces):
    large = faces.repeat(2, 1).repeat(2, 2)
    config = training.Config(width=1 / 32, batch=2, unaligned=True, feature=0, heatmap=0, attention=0)
    trained = training.ProgressiveTraining(large, config, device="cpu")
    assert trained.faces().shape == (2, 3, 128, 128)
    assert trained.step()["pixel"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unaligned": True}, r"unaligned faces are \(M, S, S, 3\), uint8, S = 256; got \(6, 128, 128, 3\), uint8"),
        ({"batch": 1}, "batch must be"),
        ({"width": 0.0}, "width must be"),
        ({"iterations": 0}, "iterations must be"),
        ({"attention": -1.0}, "attention must be"),
    ],
)
def test_impossible_trainings_are_refused(faces, change, message):
    with pytest.raises(ValueError, match=message):
        trainee(faces, **change)


def test_faces_that_are_none_are_refused(faces):
    alone = {"config": training.Config(width=1 / 32, feature=0, heatmap=0, attention=0), "device": "cpu"}
    for wrong in (faces / 255, faces[:0], faces[0], faces.repeat(2, 1).repeat(2, 2)):
        with pytest.raises(ValueError, match=r"aligned faces are \(M, S, S, 3\), uint8, S = 128; got"):
            training.ProgressiveTraining(wrong, **alone)
    with pytest.raises(ValueError, match=r"watched faces are \(K, 3, 128, 128\); got \(1, 3, 64, 64\)"):
        training.ProgressiveTraining(faces, watched=torch.zeros(1, 3, 64, 64), **alone)


def test_a_loss_needs_its_network(faces):
    with pytest.raises(ValueError, match="landmark network"):
        training.ProgressiveTraining(faces, training.Config(width=1 / 32), features=maps, device="cpu")
    alone = training.Config(width=1 / 32, feature=0, heatmap=0, attention=0)
    assert training.ProgressiveTraining(faces, alone, device="cpu").step()["feature"] == 0


@pytest.mark.parametrize("contents", [b"", b"no checkpoint"])
def test_what_is_no_generator_is_refused(tmp_path, contents):
    path = tmp_path / "some.safetensors"
    with pytest.raises(FileNotFoundError, match="check the path"):
        progressive.load(path)
    path.write_bytes(contents)
    with pytest.raises(ValueError, match="damaged"):
        progressive.load(path)
    for network, about, message in (
        (ProgressiveGenerator(1 / 32), {"step": "3"}, "no generator of progressive"),
        (ProgressiveGenerator(1 / 32), {"width": "wide", "step": "3"}, "no generator of progressive"),
        (
            ProgressiveGenerator(1 / 32),
            {"width": "0.5", "step": "3"},
            "another architecture or width than this ProgressiveGenerator",
        ),
        (DistilledFAN(), {"width": "0.5", "step": "3"}, "another architecture or width than this ProgressiveGenerator"),
    ):
        save_file(network.state_dict(), path, about)
        with pytest.raises(ValueError, match=message):
            progressive.load(path)
