"""Networks that enlarge in one pass, and the loop that trains them: parity, sizes, priors, losses, resume."""

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from facesr_lib import degrade, images, losses
from facesr_lib.networks import supervised as networks
from facesr_lib.networks.folding import fold_norms
from facesr_lib.networks.landmarks import FAN, draw, peaks
from facesr_lib.training import loop
from facesr_lib.training import supervised as training

ORACLES = Path(__file__).parent / "oracles"
ORACLE = load_file(ORACLES / "baselines.safetensors")
KEYS = json.loads((ORACLES / "baselines_keys.json").read_text())


def filled(network, keys):
    """Fill a network by the oracles' rule: the j-th tensor from its name, its shape and j."""
    state = network.state_dict()
    for j, (name, shape) in enumerate(keys.items()):
        i = torch.arange(state[name].numel(), dtype=torch.float64)
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_mean"):
            values = 0.1 * (i + j).sin()
        elif name.endswith("running_var"):
            values = 1 + 0.5 * (i + j).sin()
        elif len(shape) == 1:
            values = name.endswith("weight") + 0.1 * (i + j).sin()
        else:
            noise = (12.9898 * (i + 1) + 78.233 * j).sin() * 43758.5453
            values = sqrt(2 / state[name][0].numel()) * sqrt(12) * (noise - noise.floor() - 0.5)
        assert list(state[name].shape) == shape
        state[name] = values.float().view(state[name].shape)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def count(network, prefix=""):
    return sum(p.numel() for name, p in network.named_parameters() if name.startswith(prefix))


def test_vdsr_equals_the_reimplementation():
    network = networks.VDSR()
    assert network.state_dict().keys() == KEYS["vdsr"].keys()
    assert_close(filled(network, KEYS["vdsr"])(ORACLE["vdsr_x"]), ORACLE["vdsr_y"], atol=1e-4, rtol=0)


def test_fsrnet_folds_its_norms_into_its_convolutions():
    network = filled(networks.FSRNet(), KEYS["fsrnet"])
    expected = network(ORACLE["fsrnet_x"])
    assert norms(network) == 108
    assert fold_norms(network) is network
    assert norms(network) == 21  # a bottleneck begins with one
    for part, known in zip(network(ORACLE["fsrnet_x"]), expected, strict=True):
        assert (part - known).abs().max() < 1e-4 * known.std()


def norms(network):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def test_a_norm_stays_where_others_see_what_comes_before_it():
    fan = FAN(stacks=1).eval()
    x, before = torch.rand(1, 3, 64, 64), norms(fan)
    expected = fan(x)
    assert torch.equal(fold_norms(fan)(x), expected)
    assert norms(fan) == before


def test_fsrnet_equals_the_reimplementation():
    network = networks.FSRNet()
    assert network.state_dict().keys() - KEYS["fsrnet"].keys() == {
        f"prior_conv{i}.{part}" for i in (1, 2) for part in ("weight", "bias")
    }
    coarse, priors, fine = filled(network, KEYS["fsrnet"])(ORACLE["fsrnet_x"])
    assert priors.shape == (1, 79, 16, 16)
    assert_close(coarse, ORACLE["fsrnet_coarse"], atol=1e-4, rtol=0)
    assert_close(fine, ORACLE["fsrnet_y"], atol=1e-4, rtol=0)
    # tanh of numbers in the thousands: where one of them passes zero, rounding shows
    assert (network.fine_SR_Encoder(coarse) - ORACLE["fsrnet_encoder"]).abs().mean() < 1e-5
    prior = network.prior_Estimation_Network(ORACLE["fsrnet_coarse"])
    assert (prior - ORACLE["fsrnet_prior"]).abs().max() < 1e-4 * ORACLE["fsrnet_prior"].std()


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (networks.VDSR, 664_704),
        (networks.URDGN, 1_054_243),
        (networks.URDGNDiscriminator, 6_859_425),
        (networks.FSRNet, 3_262_272 + 8_772 + 1_419),
        (networks.FSRGANDiscriminator, 4_693_697),
    ],
)
def test_networks_have_their_papers_numbers_of_parameters(network, parameters):
    assert count(network()) == parameters
    assert count(network(0.5)) < 0.3 * parameters


def test_the_parts_of_fsrnet_have_their_numbers_of_parameters():
    network = networks.FSRNet()
    parts = {"coarse": 225_536, "fine_SR_Encoder": 926_528, "prior_Est": 1_738_816, "fine_SR_Decoder": 371_392}
    assert {part: count(network, part) for part in parts} == parts


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_face_becomes_eight_times_larger(name):
    network = networks.NETWORKS[name](0.1).eval()
    lowres = torch.rand(2, 3, 16, 16)
    large = network.enlarge(lowres)
    assert large.shape == (2, 3, 128, 128)
    assert_close(network.enlarge(lowres[1:]), large[1:], atol=1e-5, rtol=0)


def test_vdsr_sharpens_luminance_and_leaves_colour():
    network, lowres = networks.VDSR(0.1), torch.rand(1, 3, 8, 8)
    before, after = networks.upsample(lowres), network.enlarge(lowres).detach()
    assert_close(images.luma(after), network(images.luma(before)).detach(), atol=1e-5, rtol=0)
    assert_close(after[:, 0] - after[:, 2], before[:, 0] - before[:, 2], atol=1e-5, rtol=0)
    assert (after - before).abs().max() > 1e-3


@pytest.mark.parametrize("critic", [networks.URDGNDiscriminator(0.1), networks.FSRGANDiscriminator(0.1)])
def test_critics_judge_each_picture(critic):
    logits = critic.eval()(torch.rand(2, 3, 128, 128))
    assert logits.shape in {(2, 1), (2, 1, 8, 8)}
    assert (logits[0] - logits[1]).abs().max() > 0


# Training


@pytest.fixture(scope="module")
def faces():
    """Sixteen smooth faces of 128², their landmarks and labels: an eye, a brow and half a mouth, on skin."""
    random = torch.Generator().manual_seed(0)
    pixels = images.resize(torch.rand(16, 3, 8, 8, generator=random), (128, 128)).clamp(0, 1)
    points = torch.rand(16, 68, 2, generator=random) * 60 + 34
    labels = np.ones((16, 128, 128), np.uint8)
    labels[:, 40:48, 80:92], labels[:, 32:36, 76:92], labels[:, 90:98, 64:84], labels[:, :10] = 4, 6, 10, 255
    return {"pixels": images.to_uint8(pixels), "points": points, "labels": labels}


def training_of(name, faces, config=None, **options):
    config = config or training.Config(width=0.05, batch=2, images=64)
    priors = {} if name in ("vdsr", "urdgn") else {k: faces[k] for k in ("points", "labels")}
    return training.SupervisedTraining(name, faces["pixels"], config, **priors, **options)


@pytest.mark.parametrize("name", training.RECIPES)
def test_a_network_learns_resumes_exactly_and_is_read_back(name, faces, tmp_path):
    whole = training_of(name, faces)
    loop.fit(whole, tmp_path / "whole", steps=8, progress=False)
    loop.fit(training_of(name, faces), tmp_path / "parts", steps=3, progress=False)
    parts = training_of(name, faces)
    loop.fit(parts, tmp_path / "parts", steps=5, resume=True, progress=False)
    for ours, theirs in zip(parts.network.state_dict().values(), whole.network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    start = training_of(name, faces).network.state_dict()
    assert any(not torch.equal(start[key], value) for key, value in whole.network.state_dict().items())

    network, lowres = networks.load(tmp_path / "whole" / f"{name}.safetensors"), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert_close(network.enlarge(lowres), whole.network.eval().enlarge(lowres), atol=1e-2, rtol=0)
    assert list((tmp_path / "whole").glob("samples-*.png"))


@pytest.mark.parametrize("name", training.RECIPES)
def test_losses_fall(name, faces):
    trainee = training_of(name, faces, training.Config(width=0.1, batch=2, images=10_000))
    batch = trainee.faces()
    trainee.faces = lambda: batch
    falling = {"pixel", "coarse", "fine", "priors"}
    history = [{k: float(v) for k, v in trainee.step().items() if k in falling} for _ in range(20)]
    assert all(history[-1][key] < history[0][key] for key in history[0])


def test_fsrgan_begins_with_fsrnet(faces):
    started = training_of("fsrnet", faces, training.Config(width=0.05, seed=3)).network
    config = training.Config(width=0.05, batch=2, rate=0.0)
    trainee = training_of("fsrgan", faces, config, start=started)
    assert trainee.network.training
    trainee.step()
    for ours, theirs in zip(trainee.network.parameters(), started.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    of_another = (
        r"the network to begin with is of another architecture or width than this FSRNet: .{10,100}, and \d+ more"
    )
    for other in (networks.VDSR(0.05), networks.FSRNet(0.1)):
        with pytest.raises(ValueError, match=of_another + r" differ\.$"):
            training_of("fsrgan", faces, config, start=other)


def test_a_run_is_resumed_with_the_same_faces_labels_and_start_alone(faces):
    def begun(**options):
        return training_of("fsrnet", faces | options, start=start).config

    start = None
    first, labels = begun(), faces["labels"].copy()
    labels[:, 50:60] = 2
    for name, other in (("faces", {"pixels": faces["pixels"] // 2}), ("landmarks", {"points": faces["points"] + 1})):
        again = begun(**other)
        assert {key for key in first if first[key] != again[key]} == {name}
    assert first | {"parsing": begun(labels=labels)["parsing"]} == begun(labels=labels) != first
    start = training_of("fsrnet", faces).network
    assert first | {"start": begun()["start"]} == begun() != first


def test_the_training_ends_with_its_images_and_its_rate_has_fallen(faces, tmp_path):
    config = training.Config(width=0.05, batch=2, images=12)
    trainee = training.SupervisedTraining("vdsr", faces["pixels"], config)
    report = loop.fit(trainee, tmp_path / "run", steps=100, progress=False)
    assert (report.images_seen, report.steps) == (12, 6)
    state = torch.load(tmp_path / "run" / loop.CHECKPOINT, weights_only=True)["state"]
    assert state["network_optimizer"]["param_groups"][0]["lr"] == pytest.approx(3e-5)
    ended = (tmp_path / "run" / "vdsr.safetensors").read_bytes()
    again = training.SupervisedTraining("vdsr", faces["pixels"], config)
    report = loop.fit(again, tmp_path / "run", resume=True, progress=False)
    assert (report.images_seen, report.steps) == (12, 0)
    assert (tmp_path / "run" / "vdsr.safetensors").read_bytes() == ended


def test_small_faces_are_halved_thrice(faces):
    batch = training_of("vdsr", faces).faces()
    assert batch.true.shape == (2, 3, 128, 128)
    once = degrade.Downsample(2, "bilinear")
    assert_close(batch.small, once(once(once(batch.true))))
    assert (batch.small - degrade.Downsample(8, "bilinear")(batch.true)).abs().max() > 1e-3


def test_aligned_faces_are_the_faces_or_their_mirror_images(faces):
    batch = training_of("vdsr", faces, training.Config(batch=8)).faces()
    theirs = torch.from_numpy(faces["pixels"]).permute(0, 3, 1, 2).float() / 255
    distance = [(batch.true[:, None] - x).abs().amax((2, 3, 4)).amin(1) for x in (theirs, theirs.flip(3))]
    assert (torch.stack(distance).amin(0) < 1e-3).all()
    assert (distance[0] < 1e-3).any()
    assert (distance[1] < 1e-3).any()


def test_priors_move_with_the_picture(faces):
    """Colour a landmark and the classes into the picture, and find them there in the moved maps."""
    pixels = np.zeros((1, 128, 128, 3), np.uint8)
    pixels[..., 1] = (faces["labels"][:1] == 10) * 255
    points = torch.full((1, 68, 2), 63.5)
    points[0, 30] = torch.tensor([70.0, 80.0])
    pixels[..., 0] = (draw(points[:, 30:31], 128, 4.0)[0, 0] * 255).byte().numpy()
    config = training.Config(batch=6, rotation=20, scale=0.2, shift=0.1)
    moved = training.SupervisedTraining("fsrnet", pixels, config, points=points, labels=faces["labels"][:1]).faces()
    assert_close(peaks(moved.true[:, :1]), peaks(moved.maps[:, 30:31]) * 2 + 0.5, atol=0.7, rtol=0)
    mouth = F.avg_pool2d(moved.true[:, 1:2], 2) * moved.known[:, 68 + 8 : 68 + 9]
    assert (mouth - moved.maps[:, 68 + 8 : 68 + 9]).abs().mean() < 0.01
    assert moved.maps[:, 68 + 8].amax() > 0.9


def test_left_and_right_change_names_in_the_mirror(faces):
    batch = training_of("fsrnet", faces, training.Config(batch=8)).faces()
    left_eye, right_eye = batch.maps[:, 68 + 4].sum((1, 2)), batch.maps[:, 68 + 5].sum((1, 2))
    assert ((left_eye > 0) ^ (right_eye > 0)).all()
    mirrored = right_eye > 0
    assert 0 < mirrored.sum() < 8
    columns = torch.arange(64.0)
    centre = (batch.maps[:, 68 + 4] + batch.maps[:, 68 + 5]).sum(1) @ columns / (left_eye + right_eye)
    assert torch.equal(centre < 31.5, mirrored)


def test_undecided_pixels_teach_nothing(faces):
    batch = training_of("fsrnet", faces).faces()
    assert (batch.known[:, 68:, :5] == 0).all()
    assert (batch.known[:, 68:, 5:] == 1).all()
    assert (batch.known[:, :68] == 1).all()
    assert_close(batch.maps[:, 68:, 6:].sum(1), torch.ones(2, 58, 64), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("real", "fake", "learn"),
    [(0, 0, "discriminator network"), (0.1, -2, "network"), (-1, 0, "discriminator"), (2, 2, "discriminator network")],
)
@torch.no_grad()
def test_urdgns_networks_wait_for_one_another(real, fake, learn, faces):
    trainee = training_of("urdgn", faces)
    batch, critic = trainee.faces(), trainee.discriminator.eval()
    batch.true.fill_(1)
    trainee.faces = lambda: batch
    trainee.network.layers[-1].weight.zero_()  # makes grey, where the true faces are white
    trainee.network.layers[-1].bias.zero_()
    convolutions = [layer for layer in critic.layers if isinstance(layer, torch.nn.Conv2d)]
    first, last = (layer for layer in critic.layers if isinstance(layer, torch.nn.Linear))
    for parameter in critic.parameters():
        parameter.zero_()
    for layer in convolutions:
        layer.weight[0, 0, 2, 2] = 1  # what is white stays white
    first.weight[0, 0], last.weight[0, 0], last.bias[0] = 1, real - fake, fake
    parts = {"network": trainee.network, "discriminator": critic}
    before = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
    with torch.enable_grad():
        trainee.step()
    changed = {n for n, part in parts.items() if not all(map(torch.equal, before[n], part.parameters()))}
    assert changed == set(learn.split())


def test_fsrgan_compares_what_an_imagenet_network_sees(faces, tmp_path):
    trainee = training_of("fsrgan", faces)
    batch = trainee.faces()
    trainee.faces = lambda: batch
    name, maps = losses.block_features()
    with torch.no_grad():
        made = trainee.network(2 * networks.upsample(batch.small) - 1)[2]
        seen, target = maps((made + 1) / 2)[-1], maps(batch.true)[-1]
    assert_close(trainee.step()["perceptual"], 0.1 * (seen - target).square().mean())
    loop.fit(trainee, tmp_path / "run", steps=1, progress=False)
    with safe_open(tmp_path / "run" / "fsrgan.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"])["seen_by"] == trainee.seen_by == name


def test_bfloat16_changes_little(faces):
    exact, rounded = (training_of("fsrnet", faces, bf16=bf16).step() for bf16 in (False, True))
    assert rounded != exact
    for key, value in exact.items():
        assert_close(rounded[key], value, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "fsrnett"}, "no supervised network 'fsrnett': did you mean fsrnet"),
        ({"pixels": np.zeros((16, 96, 96, 3), np.uint8)}, "multiple of 128"),
        ({"pixels": np.zeros((16, 128, 128, 3))}, "uint8, S a multiple of 128; got .*, float64"),
        ({"points": None}, "fsrnet learns priors as well: give the faces' points"),
        (
            {"labels": np.full((16, 128, 128), 77, np.uint8)},
            r"labels hold 77: classes are 0 to 18, and 255 is undecided",
        ),
        ({"points": torch.zeros(15, 68, 2)}, r"need points \(16, 68, 2\) and labels"),
        ({"labels": np.zeros((16, 64, 64), np.uint8)}, r"labels \(16, 128, 128\); got"),
    ],
)
def test_what_does_not_fit_is_refused(change, message, faces):
    given = {"name": "fsrnet", "config": training.Config(), **faces} | change
    with pytest.raises(ValueError, match=message):
        training.SupervisedTraining(given.pop("name"), given.pop("pixels"), given.pop("config"), **given)


def test_files_of_something_else_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="check the path"):
        networks.load(tmp_path / "none.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="damaged or cut short"):
        networks.load(tmp_path / "y.safetensors")
    path, narrow = tmp_path / "x.safetensors", networks.VDSR(0.1).state_dict()
    for state, about, message in (
        (narrow, {}, "holds no network that `facesr train supervised` wrote"),
        (narrow, {"network": "vdsrr", "width": "0.1"}, "did you mean vdsr"),
        (narrow, {"network": "vdsr"}, "holds no network that"),
        (narrow, {"network": "vdsr", "width": "0.5"}, "another architecture or width than this VDSR"),
        ({"x": torch.zeros(1)}, {"network": "vdsr", "width": "0.1"}, "another architecture or width than this VDSR"),
    ):
        save_file(state, path, about)
        with pytest.raises(ValueError, match=message):
            networks.load(path)
