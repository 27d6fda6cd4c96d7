"""What is called from outside with tensors: what is none is told so, and torch's state does not matter."""

from contextlib import contextmanager, suppress
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from facesr_lib import degrade, images, losses, metrics
from facesr_lib.assets import AssetMissing
from facesr_lib.degrade import occlusion
from facesr_lib.metrics.gaussianity import Gaussianity
from facesr_lib.networks import landmarks, parsing, progressive, rrdb, stylegan2, supervised
from facesr_lib.networks.flow import Flow
from facesr_lib.prior import FacePrior, PulseGaussian
from facesr_lib.restoration import alignment, detection
from facesr_lib.search.optimizers import project_l1_ball

CHANCE = torch.Generator().manual_seed(0)
TINY = FacePrior("tiny", stylegan2.Generator(8, 8, 16, channel_base=128, channel_max=16), None)
FIVE = torch.tensor([[20.0, 25], [40, 25], [30, 35], [22, 45], [38, 45]])
SIXTY_EIGHT = 20 + 20 * torch.rand(2, 68, 2, generator=CHANCE)


def rand(*shape):
    return torch.rand(shape, generator=CHANCE)


FACES, SMALL, PHOTO = rand(2, 3, 64, 64), rand(2, 3, 16, 16), rand(3, 64, 64)
CODES, MAPS = rand(2, 6, 8), rand(2, 5, 8, 8)
CROP, TRANSFORM = alignment.align(PHOTO, FIVE, 32)


def squares(faces):
    return faces.square().flatten(1).sum(1)


def network(kind, *args, **options):
    """Something with weights that are the same in every run, for inference."""
    torch.manual_seed(0)
    return kind(*args, **options).eval().requires_grad_(False)


CRITIC = network(stylegan2.Discriminator, 16, 128, 16)
PLAIN = {  # what depends on its tensors alone: a call, and what it is called with
    "Downsample": (degrade.Downsample(8), FACES),
    "the way back": (degrade.Downsample(2).upsample, SMALL),
    "GaussianNoise": (degrade.GaussianNoise(0.1), SMALL),
    "SaltAndPepper": (degrade.SaltAndPepper(0.2), SMALL),
    "GaussianBlur": (degrade.GaussianBlur(1.5), SMALL),
    "MotionBlur": (degrade.MotionBlur(5, 30), SMALL),
    "CameraPipeline": (degrade.CameraPipeline(blur_p=1, noise_p=1), FACES),
    "hide": (lambda faces: occlusion.hide(faces, SIXTY_EIGHT, "hand"), FACES),
    "hide, landmarks": (lambda points: occlusion.hide(FACES, points, "mask"), SIXTY_EIGHT),
    "luma": (images.luma, FACES),
    "ms_ssim": (lambda x: metrics.ms_ssim(x, FACES.flip(0)), FACES),
    "kid": (lambda x: metrics.kid(x, FACES.flip(3), lambda part: part.mean((2, 3)), subsets=3), FACES),
    "contextual_loss": (lambda x: losses.contextual_loss(x, MAPS.flip(3)), MAPS),
    "geocross": (losses.geocross, CODES),
    "render": (TINY.render, CODES),
    "synthesise": (TINY.synthesise, CODES),
    "align": (lambda photo: alignment.align(photo, FIVE, 32), PHOTO),
    "paste": (lambda photo: alignment.paste(photo, CROP.flip(2), TRANSFORM), PHOTO),
    "paste, crop": (lambda crop: alignment.paste(PHOTO, crop, TRANSFORM), CROP),
    "find": (lambda photo: detection.find(photo, boxes=[(10, 10, 40, 40)], points="five")[0].points, PHOTO),
}
OTHERS = {  # networks, which compute in the precision that they are asked for, and what is for trainings
    "fingerprint": (images.fingerprint, PHOTO),
    "attention_loss, heatmaps": (lambda maps: losses.attention_loss(maps, SMALL, SMALL), rand(2, 5, 16, 16)),
    "attention_loss, pictures": (lambda x: losses.attention_loss(rand(2, 5, 16, 16), x, SMALL), SMALL),
    "heatmap_loss": (lambda x: losses.heatmap_loss(x, MAPS), MAPS),
    "normalise_heatmaps": (losses.normalise_heatmaps, MAPS),
    "relativistic_generator_loss": (lambda x: losses.relativistic_generator_loss(x, rand(2, 1)), rand(2, 1)),
    "relativistic_discriminator_loss": (lambda x: losses.relativistic_discriminator_loss(rand(2, 1), x), rand(2, 1)),
    "wasserstein_critic_loss": (lambda x: losses.wasserstein_critic_loss(x, rand(2)), rand(2)),
    "gradient_penalty": (lambda x: losses.gradient_penalty(squares, SMALL, x, rand(2)), SMALL),
    "gradient_penalty, epsilon": (lambda x: losses.gradient_penalty(squares, SMALL, SMALL, x), rand(2)),
    "contextual_loss, target": (lambda y: losses.contextual_loss(MAPS, y), MAPS),
    "feature_loss": (lambda x: losses.feature_loss(lambda picture: [picture], x, SMALL), SMALL),
    "feature_l1": (lambda x: losses.feature_l1(x, MAPS), MAPS),
    "lpips_vgg": (lambda x: losses.lpips_vgg(x, SMALL), SMALL),
    "Entrance": (lambda x: losses.Entrance(CRITIC, x, SMALL[:, :, :8, :8]), SMALL),
    "Gaussianity": (lambda v: Gaussianity.of("Z", v), rand(9, 8)),
    "PulseGaussian, forward": (PulseGaussian(torch.zeros(8), torch.ones(8)).forward, CODES),
    "PulseGaussian, inverse": (PulseGaussian(torch.zeros(8), torch.ones(8)).inverse, CODES),
    "flow": (network(Flow, 8, 16, 2).log_prob, CODES),
    "flow, inverse": (network(Flow, 8, 16, 2).inverse, CODES),
    "mapping": (TINY.generator.mapping, rand(2, 8)),
    "synthesis": (TINY.generator.synthesis, CODES),
    "discriminator": (CRITIC, SMALL),
    "DistilledFAN": (network(landmarks.DistilledFAN), FACES),
    "heatmaps": (network(landmarks.DistilledFAN).heatmaps, SMALL),
    "peaks": (landmarks.peaks, MAPS),
    "ProgressiveGenerator": (network(progressive.ProgressiveGenerator, 1 / 16), SMALL),
    "ProgressiveGenerator, enlarge": (network(progressive.ProgressiveGenerator, 1 / 16).enlarge, SMALL),
    "ProgressiveDiscriminator": (network(progressive.ProgressiveDiscriminator, 1 / 16), rand(2, 3, 128, 128)),
    "RRDBNet": (network(rrdb.RRDBNet, 1, 8, 4), SMALL),
    "PatchDiscriminator": (network(rrdb.PatchDiscriminator, 4, 64), FACES),
    "ParsingNetwork": (network(parsing.ParsingNetwork, size=64, bottleneck=16, width=8, max_width=8, depth=1), FACES),
    "VDSR": (network(supervised.VDSR, 0.1).enlarge, SMALL),
    "URDGN": (network(supervised.URDGN, 0.1).enlarge, SMALL),
    "FSRNet": (network(supervised.FSRNet, 0.1).enlarge, SMALL),
    "project_l1_ball": (lambda x: project_l1_ball(x, CODES, 1.0), CODES),
}
INSTEAD = {
    "an array": torch.Tensor.numpy,
    "a list": torch.Tensor.tolist,
    "nothing": lambda x: None,
    "bytes": lambda x: (255 * x).byte(),
    "a side more": lambda x: x[None],
}
ANY_SIDES = ("PulseGaussian", "flow", "project_l1_ball")  # only the last one is looked at, or they have to be alike
IN_RANGE = ("GaussianNoise", "SaltAndPepper", "CameraPipeline", "hide", "ms_ssim", "kid", "align", "paste", "find")


@contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SURROUNDINGS = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "float64": float64,
    "a default device": partial(torch.device, "meta"),
}


@pytest.mark.parametrize(("call", "x"), OTHERS.values(), ids=OTHERS)
def test_what_fits_goes_through(call, x):
    with suppress(AssetMissing):
        call(x)


@pytest.mark.parametrize("instead", INSTEAD)
@pytest.mark.parametrize("name", PLAIN | OTHERS)
def test_what_is_no_such_tensor_is_told_in_a_sentence(name, instead):
    if instead == "a side more" and name.startswith(ANY_SIDES):
        return
    call, x = (PLAIN | OTHERS)[name]
    with pytest.raises((TypeError, ValueError), match=r"^[^\n]* got [^\n]*\.$"):
        call(INSTEAD[instead](x))


@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize(("call", "x"), PLAIN.values(), ids=PLAIN)
def test_numbers_do_not_depend_on_the_state_that_torch_is_in(call, x, surroundings):
    plain = call(x)
    with surroundings():
        found = call(x)
    assert_close(found, plain, atol=0, rtol=0)


@pytest.mark.parametrize("other", [lambda x: 255 * x, lambda x: 2 * x - 1], ids=["0…255", "[−1, 1]"])
@pytest.mark.parametrize("name", IN_RANGE)
def test_pictures_of_another_range_are_refused_where_it_matters(name, other):
    call, x = PLAIN[name]
    with pytest.raises(ValueError, match=r"range.* from -?[\d.]+ to [\d.]+"):
        call(other(x))


def test_noise_on_a_searchs_way_is_not_asked_for_its_range():
    far = (3 * SMALL - 1).requires_grad_()
    for noise in (degrade.GaussianNoise(0.1), degrade.SaltAndPepper(0.2)):
        assert noise(far).requires_grad


@pytest.mark.parametrize("name", ["synthesise", "flow", "flow, inverse", "PulseGaussian, forward"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_codes_may_be_of_any_floating_point_type(name, dtype):
    call, x = (PLAIN | OTHERS)[name]
    assert_close(call(x.to(dtype)).float(), call(x), atol=0.02, rtol=0.01)


def test_of_no_picture_there_is_no_score():
    assert CRITIC(SMALL[:0]).shape == (0, 1)
    assert metrics.ms_ssim(FACES[:0], FACES[:0]).shape == (0,)
