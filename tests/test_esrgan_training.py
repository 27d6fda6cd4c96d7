"""ESRGAN and LSRGAN in training: patches, two stages, four models alike, resume."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from facesr_lib import images
from facesr_lib.degrade import Downsample
from facesr_lib.metrics import pretrained
from facesr_lib.networks import checkpoints, rrdb
from facesr_lib.training import esrgan, loop
from facesr_lib.training.patches import Patches, read_pictures

CPU = torch.device("cpu")
SMALL = {"patch": 32, "batch": 2}


def pictures():
    """Smooth pictures of different sizes."""
    random = np.random.default_rng(0)
    found = []
    for height, width in ((40, 57), (64, 33), (32, 32)):
        y, x = np.mgrid[:height, :width] / 16
        phase = random.uniform(0, 6, 3)
        found.append(((np.sin(y[..., None] + phase) * np.cos(x[..., None] * phase) + 1) * 127.5).astype(np.uint8))
    return found


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "start"
    config = esrgan.Start(blocks=1, channels=8, growth=4, encoder_width=8, iterations=30, lr=2e-3, ema=0.5, **SMALL)
    loop.fit(esrgan.Pretraining(pictures(), config), folder, progress=False)
    return folder


def refinement(start, **choices):
    if reason := pretrained.reason(pretrained.efficientnet_file):
        pytest.skip(reason)
    return esrgan.Refinement(
        pictures(), esrgan.Config(discriminator_width=4, **SMALL, **{"latent": True} | choices), start
    )


# Patches


def test_patches_are_cut_from_the_pictures_in_eight_positions():
    marked = np.arange(40 * 36 * 3, dtype=np.uint32).reshape(40, 36, 3)
    marked = (marked * 2654435761 >> 7).astype(np.uint8)  # no two places look alike
    whole = torch.from_numpy(marked).permute(2, 0, 1).float() / 255
    patches = Patches([np.zeros((32, 50, 3), np.uint8), marked], 32, CPU).draw(200, torch.Generator().manual_seed(0))
    assert patches.shape == (200, 3, 32, 32)
    cuts = whole.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)  # (9, 5, 3, 32, 32)
    table = torch.stack([torch.rot90(c, k, (3, 4)) for c in (cuts, cuts.flip(4)) for k in range(4)]).flatten(3)
    hits = torch.cat([(table == patch.flatten()).all(3).nonzero() for patch in patches if patch.any()])  # one a patch
    assert len(hits) == patches.flatten(1).any(1).sum()
    assert 70 < len(hits) < 130
    assert [len(set(axis.tolist())) for axis in hits.T] == [8, 9, 5]  # every position, row and column occurs


def test_faces_stay_upright():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None], (32, 32, 3))
    patches = Patches([ramp], 32, CPU, turns=False).draw(50, torch.Generator().manual_seed(0))
    assert torch.equal(patches, patches[:1].expand(50, -1, -1, -1))
    assert patches[0, 0, -1].min() > patches[0, 0, 0].max()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((40, 31, 3), np.uint8), "31×40 has no patch of 32×32"),
        (np.zeros((40, 40), np.uint8), r"uint8 \(H, W, 3\); got uint8 \(40, 40\)"),
        (np.zeros((40, 40, 3)), "got float64"),
    ],
)
def test_pictures_without_patches_are_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        Patches([picture], 32, CPU)


def test_a_folder_gives_what_it_can(tmp_path):
    for name, side in (("a", 40), ("b", 20)):
        images.write(torch.full((3, side, 48), 0.25), tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="skipped 2 pictures.*b.png is 48×20, smaller than a patch of 32"):
        found = read_pictures(tmp_path, 32)
    assert [picture.shape for picture in found] == [(40, 48, 3)]
    assert (found[0] == 64).all()
    with pytest.warns(UserWarning, match="skipped 3"), pytest.raises(ValueError, match="choose a smaller patch"):
        read_pictures(tmp_path, 64)


def test_pairs_are_a_patch_and_its_matlab_bicubic_in_8_bits():
    z, y = esrgan.Pretraining(pictures(), esrgan.Start(blocks=1, channels=4, growth=4, **SMALL)).pairs()
    assert z.shape == (2, 3, 8, 8)
    assert_close(z, Downsample(4)(y).clamp(0, 1), atol=0.5 / 255 + 1e-6, rtol=0)
    assert_close(z * 255, (z * 255).round(), atol=1e-4, rtol=0)


# Stages


def test_the_first_stage_learns_both_networks_apart(start):
    log = np.genfromtxt(start / "log.csv", delimiter=",", names=True)
    assert log["G"][-1] < log["G"][0]
    assert log["L"][-1] < log["L"][0]
    generator, encoder = rrdb.load(start / esrgan.GENERATOR), rrdb.load_encoder(start / esrgan.ENCODER)
    assert (generator.blocks, generator.channels, generator.growth, encoder.width) == (1, 8, 4, 8)
    with safe_open(start / esrgan.GENERATOR, "pt") as file:
        written = file.metadata()
    assert json.loads(written["config"])["iterations"] == 30
    assert json.loads(written["config"])["encoder"] == "random numbers"
    assert written["images_seen"] == "60"


def test_training_ends_with_its_schedule(tmp_path):
    config = esrgan.Start(blocks=1, channels=4, growth=4, encoder_width=4, iterations=10, lr=1e-4, **SMALL)
    trainee = esrgan.Pretraining(pictures(), config)
    rates = []
    for _ in range(10):
        trainee.step()
        rates.append(float(trainee.optimizers["encoder"].param_groups[0]["lr"]) * 1e4)
    assert rates == pytest.approx([1.0] * 4 + [0.5] * 4 + [0.25] * 2)
    assert trainee.finished
    report = loop.fit(esrgan.Pretraining(pictures(), config), tmp_path / "run", hours=1, progress=False)
    assert report.steps == 10


@pytest.mark.parametrize("contextual", [False, True])
def test_a_latent_term_of_no_weight_is_esrgan_step_for_step(start, contextual):
    assert (esrgan.Config().latent, esrgan.Config().contextual) == (False, False)  # without a switch: ESRGAN itself
    without = refinement(start, latent=False, contextual=contextual)
    unweighted = refinement(start, latent=True, contextual=contextual, mu=0.0)
    weighted = refinement(start, latent=True, contextual=contextual, mu=0.5)
    for _ in range(3):
        for trainee in (without, unweighted, weighted):
            trainee.step()
    for name, value in without.generator.state_dict().items():
        assert torch.equal(value, unweighted.generator.state_dict()[name]), name
    assert any(
        not torch.equal(value, weighted.generator.state_dict()[name])
        for name, value in without.generator.state_dict().items()
    )


def test_models_begin_alike_and_differ_by_the_switch(start):
    perceptual, contextual = refinement(start, contextual=False), refinement(start, contextual=True)
    ours, theirs = perceptual.step(), contextual.step()
    for name in ("D", "adversarial", "pixel", "code", "spread"):  # the same patches, the same networks
        assert_close(ours[name], theirs[name], atol=0.05, rtol=0.01)
    assert not torch.equal(ours["content"], theirs["content"])
    assert perceptual.seen_by == contextual.seen_by


def test_g_enlarges_the_latent_distance_and_l_makes_it_smaller(start):
    strong = {"content": 0.0, "lambda_ra": 0.0, "eta": 0.0, "lr": 1e-4}

    def distances(trainee, optimizer):
        z, y = trainee.pairs()
        fake = trainee.forward(trainee.generator, z)
        for _ in range(5):
            with trainee.turn(trainee.optimizers[optimizer], frozen=trainee.discriminator):
                if optimizer == "generator":
                    fake = trainee.forward(trainee.generator, z)
                    trainee.generate(y, fake)
                else:
                    trainee.encode(z, y, fake.detach())
            with torch.no_grad():
                yield (trainee.encoder(y) - trainee.encoder(trainee.generator(z))).abs().mean().item()

    grown = list(distances(refinement(start, mu=1.0, **strong), "generator"))
    assert grown == sorted(grown)
    shrunk = list(distances(refinement(start, **strong), "encoder"))
    assert shrunk == sorted(shrunk, reverse=True)


def test_an_anchor_keeps_l_at_the_small_pictures(start):
    free, anchored = (refinement(start, anchor=anchor, lr=1e-3) for anchor in (0.0, 10.0))
    for _ in range(15):
        away, held = free.step()["code"], anchored.step()["code"]
    assert held < away


def test_the_second_stage_resumes_exactly(start, tmp_path):
    config = esrgan.Config(discriminator_width=4, latent=True, contextual=True, iterations=4, **SMALL)
    whole = refinement(start, contextual=True, iterations=4)
    loop.fit(whole, tmp_path / "whole", steps=4, progress=False)
    loop.fit(esrgan.Refinement(pictures(), config, start), tmp_path / "parts", steps=2, progress=False)
    parts = refinement(start, contextual=True, iterations=4)
    loop.fit(parts, tmp_path / "parts", hours=1, resume=True, progress=False)
    for name in (esrgan.GENERATOR, esrgan.ENCODER):
        ours, theirs = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(whole.discriminator.linear2.weight, parts.discriminator.linear2.weight)


def test_a_short_training_forgets_where_its_average_began(start):
    trainee = refinement(start, iterations=12, lr=1e-3)
    begun = deepcopy(list(trainee.average.parameters()))
    for _ in range(12):
        trainee.step()
    live, kept = list(trainee.generator.parameters()), list(trainee.average.parameters())

    def apart(some, others):
        return sum(float((x - y).detach().square().sum()) for x, y in zip(some, others, strict=True))

    assert apart(begun, live) > 0
    assert apart(kept, live) < 0.1 * apart(kept, begun)


def test_a_start_of_another_scale_is_told(tmp_path):
    checkpoints.save(rrdb.RRDBNet(1, 4, 4, 8), tmp_path / esrgan.GENERATOR, {})
    checkpoints.save(rrdb.CompanionEncoder(4), tmp_path / esrgan.ENCODER, {})
    with pytest.raises(ValueError, match="enlarges 8 times: the second stage needs a start of 4"):
        refinement(tmp_path)


def test_a_run_is_not_resumed_on_other_pictures():
    begun, resumed = (esrgan.Pretraining(held, esrgan.Start(**SMALL)).config for held in (pictures(), pictures()[1:]))
    assert {key for key in begun if begun[key] != resumed[key]} == {"pictures"}


def test_a_run_is_not_resumed_from_another_start(start, tmp_path):
    config = esrgan.Config(discriminator_width=4, latent=True, **SMALL)
    loop.fit(esrgan.Refinement(pictures(), config, start), tmp_path / "run", steps=1, progress=False)
    other = esrgan.Start(blocks=1, channels=8, growth=4, encoder_width=8, seed=1, **SMALL)
    loop.fit(esrgan.Pretraining(pictures(), other), tmp_path / "other", steps=1, progress=False)
    trainee = esrgan.Refinement(pictures(), config, tmp_path / "other")
    with pytest.raises(ValueError, match=r"start is .* there and"):
        loop.fit(trainee, tmp_path / "run", steps=1, resume=True, progress=False)


def test_half_precision_changes_little(start):
    refinement(start)
    config = esrgan.Config(discriminator_width=4, latent=True, **SMALL)
    full, half = (esrgan.Refinement(pictures(), config, start, bf16=bf16).step() for bf16 in (False, True))
    assert not torch.equal(full["pixel"], half["pixel"])
    assert_close(full["pixel"], half["pixel"], atol=0.01, rtol=0)
