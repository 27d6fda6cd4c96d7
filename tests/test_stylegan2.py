"""StyleGAN2: parity with the official implementation, its file formats, and what must hold for any generator."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.testing import assert_close

from facesr_lib.assets.unpickling import UnsafePickle
from facesr_lib.networks.stylegan2 import (
    Discriminator,
    FastSynthesis,
    Generator,
    SynthesisLayer,
    layers,
    load,
    minibatch_std,
)
from facesr_lib.networks.stylegan2.generator import modulated_convolution
from facesr_lib.prior import FacePrior

ORACLE = Path(__file__).parent / "oracles" / "stylegan2.safetensors"


@pytest.fixture(scope="module")
def oracle():
    return load_file(ORACLE)


@pytest.fixture(scope="module")
def networks():
    return load(ORACLE)


@torch.no_grad()
def test_parity_with_the_official_generator(oracle, networks):
    generator, _ = networks
    w = generator.mapping(oracle["z"])
    assert_close(w[:, None].expand_as(oracle["w"]), oracle["w"], atol=1e-5, rtol=1e-5)
    truncated = generator.mapping(oracle["z"], truncation_psi=0.7)
    assert_close(truncated[:, None].expand_as(oracle["w"]), oracle["w_psi07"], atol=1e-5, rtol=1e-5)
    for key, ws, mode in [("image_const", "w", "const"), ("image_none", "w", "none"), ("image_ws", "ws", "const")]:
        assert_close(generator.synthesis(oracle[ws], mode), oracle[key], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_parity_with_the_official_discriminator(oracle, networks):
    _, discriminator = networks
    assert_close(discriminator(oracle["image_const"]), oracle["logits"], atol=1e-4, rtol=1e-5)


def test_official_parameter_names_load_strictly(oracle):
    g, d = ({k[2:]: v for k, v in oracle.items() if k.startswith(letter)} for letter in ("G.", "D."))
    generator, discriminator = Generator(64, 64, 32, 512, 32), Discriminator(32, 512, 32)
    generator.load_state_dict(g, strict=True)
    discriminator.load_state_dict(d, strict=True)
    filters = {key for key in g if key.endswith("resample_filter")}
    assert filters
    assert g.keys() - filters == generator.state_dict().keys()


def _rosinality(oracle):
    """The oracle's weights under rosinality's names and shapes, written out from the naming table by hand."""
    g, d = {}, {}
    layer = [("weight", "conv.weight"), ("affine.weight", "conv.modulation.weight")]
    layer += [("affine.bias", "conv.modulation.bias")]
    rgb = [*layer, ("bias", "bias")]
    conv = [*layer, ("bias", "activate.bias"), ("noise_strength", "noise.weight")]
    places = [("b4.conv1", "conv1", conv), ("b4.torgb", "to_rgb1", rgb)]
    for k, r in enumerate((8, 16, 32)):
        places += [(f"b{r}.conv0", f"convs.{2 * k}", conv), (f"b{r}.conv1", f"convs.{2 * k + 1}", conv)]
        places += [(f"b{r}.torgb", f"to_rgbs.{k}", rgb)]
    for ours, theirs, parts in places:
        for a, b in parts:
            g[f"{theirs}.{b}"] = oracle[f"G.synthesis.{ours}.{a}"]
        g[f"{theirs}.conv.weight"] = g[f"{theirs}.conv.weight"][None]
        if "rgb" in theirs:
            g[f"{theirs}.bias"] = g[f"{theirs}.bias"].view(1, 3, 1, 1)
        else:
            g[f"{theirs}.noise.weight"] = g[f"{theirs}.noise.weight"].view(1)
            g[f"{theirs}.conv.blur.kernel"] = torch.ones(4, 4)
    order = ["b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1", "b32.conv0", "b32.conv1"]
    for i, name in enumerate(order):
        g[f"noises.noise_{i}"] = oracle[f"G.synthesis.{name}.noise_const"][None, None]
    g["input.input"] = oracle["G.synthesis.b4.const"][None]
    for i in range(8):
        g[f"style.{i + 1}.weight"] = oracle[f"G.mapping.fc{i}.weight"]
        g[f"style.{i + 1}.bias"] = oracle[f"G.mapping.fc{i}.bias"]
    d["convs.0.0.weight"], d["convs.0.1.bias"] = oracle["D.b32.fromrgb.weight"], oracle["D.b32.fromrgb.bias"]
    for k, r in enumerate((32, 16, 8), start=1):
        for ours, theirs in [("conv0.weight", "conv1.0.weight"), ("conv0.bias", "conv1.1.bias")]:
            d[f"convs.{k}.{theirs}"] = oracle[f"D.b{r}.{ours}"]
        for ours, theirs in [("conv1.weight", "conv2.1.weight"), ("conv1.bias", "conv2.2.bias")]:
            d[f"convs.{k}.{theirs}"] = oracle[f"D.b{r}.{ours}"]
        d[f"convs.{k}.skip.1.weight"] = oracle[f"D.b{r}.skip.weight"]
    d["final_conv.0.weight"], d["final_conv.1.bias"] = oracle["D.b4.conv.weight"], oracle["D.b4.conv.bias"]
    for i, name in enumerate(("fc", "out")):
        d[f"final_linear.{i}.weight"] = oracle[f"D.b4.{name}.weight"]
        d[f"final_linear.{i}.bias"] = oracle[f"D.b4.{name}.bias"]
    return {"g_ema": g, "d": d, "latent_avg": oracle["G.mapping.w_avg"]}


@torch.no_grad()
def test_rosinality_checkpoints_give_the_same_pictures(oracle, tmp_path):
    torch.save(_rosinality(oracle), tmp_path / "rosinality.pt")
    generator, discriminator = load(tmp_path / "rosinality.pt")
    assert_close(generator.synthesis(oracle["ws"]), oracle["image_ws"], atol=1e-4, rtol=1e-5)
    assert_close(generator.mapping(oracle["z"], 0.7), oracle["w_psi07"][:, 0], atol=1e-5, rtol=1e-5)
    assert_close(discriminator(oracle["image_const"]), oracle["logits"], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_rosinalitys_training_checkpoints_hold_no_mean_so_it_is_estimated(oracle, tmp_path):
    contents = _rosinality(oracle)
    del contents["latent_avg"]
    contents |= {
        "g_optim": {"state": {0: {"step": torch.tensor(1.0)}}},
        "args": argparse.Namespace(iter=8),
        "ada_aug_p": 0,
    }
    torch.save(contents, tmp_path / "550000.pt")
    generator, _ = load(tmp_path / "550000.pt")
    assert_close(generator.synthesis(oracle["ws"]), oracle["image_ws"], atol=1e-4, rtol=1e-5)
    codes = generator.mapping(torch.randn(10_000, 64, generator=torch.Generator().manual_seed(1)))
    assert_close(generator.mapping.w_avg, codes.mean(0), atol=0.05 * float(codes.std()), rtol=0)


@pytest.mark.parametrize("up", [False, True])
def test_modulating_activations_equals_modulating_weights(up):
    draw = torch.Generator().manual_seed(0)
    x, s, weight = (torch.randn(shape, generator=draw) for shape in [(3, 6, 8, 8), (3, 6), (4, 6, 3, 3)])
    kernels = s[:, None, :, None, None] * weight  # (N, C_out, C_in, 3, 3): equation 1
    kernels = kernels / (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()  # equations 2 and 3
    if up:
        expected = torch.cat([F.conv_transpose2d(x[i : i + 1], kernels[i].transpose(0, 1), stride=2) for i in range(3)])
        expected = layers.blur(expected, padding=1, gain=4.0)
    else:
        expected = torch.cat([F.conv2d(x[i : i + 1], kernels[i], padding=1) for i in range(3)])
    assert_close(modulated_convolution(x, s, weight, up=up), expected, atol=1e-5, rtol=1e-5)


def test_a_layer_adds_noise_and_bias_and_bends():
    layer, draw = SynthesisLayer(6, 4, 8, 8), torch.Generator().manual_seed(0)
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    torch.nn.init.normal_(layer.bias, generator=draw)
    x, w, noise = (torch.randn(shape, generator=draw) for shape in [(3, 6, 8, 8), (3, 8), (3, 1, 8, 8)])
    convolved = modulated_convolution(x, layer.affine(w), layer.weight)
    expected = convolved + 0.3 * noise + layer.bias[None, :, None, None]
    assert_close(layer(x, w, noise), 2**0.5 * torch.where(expected > 0, expected, 0.2 * expected))


def frozen_generator(precision=torch.float32, resolution=16):
    """A small generator whose every parameter counts."""
    torch.manual_seed(0)
    generator = Generator(8, 8, resolution, channel_base=128, channel_max=11, num_mapping_layers=1)
    for name, parameter in generator.synthesis.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    generator.synthesis.precision = precision
    return generator.to(torch.promote_types(precision, torch.float32)).requires_grad_(False).eval()


def seen_and_felt(synthesis, generator, n):
    """Pictures, and the gradients of codes and noise, as one vector each."""
    draw, dtype = torch.Generator().manual_seed(n), generator.mapping.w_avg.dtype
    shapes = [
        (n, generator.num_ws, 8),
        *[(1 if i % 2 else n, 1, *m.noise_const.shape) for i, m in enumerate(generator.synthesis.layers)],
    ]
    ws, *noise = (torch.randn(shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes)
    picture = synthesis(ws, noise=noise)
    gradients = torch.autograd.grad(picture, [ws, *noise], torch.randn(picture.shape, generator=draw, dtype=dtype))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    return [picture.detach().flatten(), *(gradient.flatten() for gradient in gradients)]


def assert_same(generator, fast, n=2, tolerance=1e-5):
    for ours, plain in zip(*(seen_and_felt(each, generator, n) for each in (fast, generator.synthesis)), strict=True):
        assert (ours - plain).norm() <= tolerance * plain.norm()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.15)])
def test_the_fast_network_draws_and_feels_as_the_plain_one(n, precision, tolerance):
    generator = frozen_generator(getattr(torch, precision))
    fast = FastSynthesis(generator.synthesis)
    assert_same(generator, fast, n, tolerance)
    ws = torch.randn(n, generator.num_ws, 8, dtype=generator.mapping.w_avg.dtype)
    for mode in ("const", "none"):
        plain = generator.synthesis(ws, mode)
        assert (fast(ws, mode) - plain).norm() <= tolerance * plain.norm()


def test_the_fast_network_sees_weights_that_change():
    generator = frozen_generator()
    fast = FastSynthesis(generator.synthesis)
    assert_same(generator, fast)
    for parameter in generator.synthesis.parameters():
        before = fast(torch.ones(1, generator.num_ws, 8))
        parameter.mul_(-2)
        assert not torch.allclose(fast(torch.ones(1, generator.num_ws, 8)), before)
        assert_same(generator, fast)
    generator.load_state_dict(frozen_generator().state_dict())
    assert_same(generator, fast)
    generator.load_state_dict({name: 2 * value for name, value in generator.state_dict().items()}, assign=True)
    assert_same(generator, fast)
    generator.synthesis.precision = torch.bfloat16
    assert_same(generator, fast, tolerance=0.15)


def test_what_is_kept_in_inference_mode_serves_a_search():
    generator = frozen_generator()
    fast = FastSynthesis(generator.synthesis)
    with torch.inference_mode():
        fast(torch.ones(2, generator.num_ws, 8))
    assert_same(generator, fast)


def test_the_fast_network_does_not_pretend_to_teach():
    generator = frozen_generator()
    fast = FastSynthesis(generator.synthesis)
    fast(torch.ones(1, generator.num_ws, 8))
    generator.synthesis.b4.const.requires_grad_()
    with pytest.raises(
        ValueError, match=r"freeze them with generator\.requires_grad_\(False\), or call generator\.synth"
    ):
        fast(torch.ones(1, generator.num_ws, 8))


def test_gradients_of_the_generator_match_finite_differences():
    torch.manual_seed(0)
    generator = Generator(4, 4, 8, channel_base=16, channel_max=4, num_mapping_layers=1).double()
    ws = torch.randn(1, 4, 4, dtype=torch.float64, requires_grad=True)
    # path-length regularisation differentiates twice
    assert torch.autograd.gradgradcheck(lambda w: generator.synthesis(w)[..., ::4, ::4], ws)
    assert torch.autograd.gradcheck(FastSynthesis(generator.requires_grad_(False).synthesis), ws)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.sampled_from([8, 16]), st.integers(1, 3))
def test_a_picture_does_not_depend_on_its_batch_mates(n, resolution, scale):
    torch.manual_seed(n)
    generator = Generator(8, 8, resolution, channel_base=8 * 16 * scale, channel_max=16).eval()
    ws = torch.randn(n, generator.num_ws, 8)
    with torch.no_grad():
        together = generator.synthesis(ws)
        alone = torch.cat([generator.synthesis(ws[i : i + 1]) for i in range(n)])
    assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_minibatch_std_of_single_images_is_the_constant():
    x = torch.randn(5, 3, 4, 4)
    assert_close(minibatch_std(x, group_size=1), torch.full((5, 1, 4, 4), 1e-4))
    pair = minibatch_std(x[:2], group_size=4)  # fewer images than the group: one group
    expected = ((x[0] - x[1]).abs() / 2).square().add(1e-8).sqrt().mean()
    assert_close(pair, expected.expand(2, 1, 4, 4))


def test_group_size_one_scores_every_image_on_its_own(networks, oracle):
    _, discriminator = networks
    alone = Discriminator(32, 512, 32, group_size=1)
    alone.load_state_dict(discriminator.state_dict())
    image = oracle["image_const"]
    with torch.no_grad():
        assert_close(alone(image)[3:4], alone(image[3:4]), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(discriminator(image)[3:4], discriminator(image[3:4]), atol=1e-3)


def test_noise_modes(networks, oracle):
    generator, _ = networks
    ws = oracle["ws"][:2]
    maps = [layer.noise_const[None, None] for layer in generator.synthesis.layers]
    with torch.no_grad():
        assert torch.equal(generator.synthesis(ws, noise=maps), generator.synthesis(ws))
        assert not torch.equal(generator.synthesis(ws, "random"), generator.synthesis(ws, "random"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda g, d: g.synthesis(torch.zeros(1, 5, 64)),
            r"one per layer, .* \(N, 8, 64\), got .*\(1, 5, 64\)",
        ),
        (lambda g, d: g.synthesis(torch.zeros(1, 8, 64), "constant"), "no noise mode 'constant': did you mean const"),
        (lambda g, d: d(torch.zeros(1, 3, 16, 16)), r"images as a float tensor \(N, 3, 32, 32\)"),
        (lambda g, d: Generator(8, 8, 48), "power of two"),
    ],
)
def test_wrong_calls_say_what_was_expected(networks, call, message):
    with pytest.raises(ValueError, match=message):
        call(*networks)


@pytest.mark.parametrize("name", ["truncated.safetensors", "noise.pkl", "empty.pt", "other.safetensors", "other.pt"])
def test_files_that_are_no_checkpoint_are_refused(tmp_path, name, oracle):
    path = tmp_path / name
    if name == "truncated.safetensors":
        path.write_bytes(ORACLE.read_bytes()[:5000])
    elif name == "other.safetensors":
        save_file({"weight": torch.zeros(3)}, path)
    elif name == "other.pt":
        torch.save({"weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(b"\x80\x04 not a pickle" if name == "noise.pkl" else b"")
    with pytest.raises(ValueError, match=name.split(".")[0]):
        load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere.pkl")


def test_a_checkpoint_with_a_layer_missing_is_refused(tmp_path, oracle):
    kept = {k: v for k, v in oracle.items() if k[:2] in ("G.", "D.") and k != "G.synthesis.b8.conv0.weight"}
    save_file(kept, tmp_path / "partial.safetensors")
    with pytest.raises(ValueError, match=r"b8\.conv0\.weight"):
        load(tmp_path / "partial.safetensors")


def _modules(tensors, prefix):
    """A tree of modules that holds ``tensors`` under their dotted names, as the official classes would."""
    root = torch.nn.Module()
    for name, value in tensors.items():
        if name.startswith(prefix):
            *path, last = name.removeprefix(prefix).split(".")
            place = root
            for part in path:
                if part not in place._modules:
                    place.add_module(part, torch.nn.Module())
                place = place._modules[part]
            place.register_buffer(last, value)
    return root


@torch.no_grad()
def test_official_pickles_give_the_same_pictures(oracle, tmp_path):
    # whole modules, pickled; resample filters and all (test_unpickling.py imitates the release's own pickling calls)
    contents = {"G": None, "D": _modules(oracle, "D."), "G_ema": _modules(oracle, "G."), "augment_pipe": None}
    with (tmp_path / "official.pkl").open("wb") as file:
        pickle.dump(contents, file)
    generator, discriminator = load(tmp_path / "official.pkl")
    assert_close(generator.synthesis(oracle["ws"]), oracle["image_ws"], atol=1e-4, rtol=1e-5)
    assert_close(discriminator(oracle["image_const"]), oracle["logits"], atol=1e-4, rtol=1e-5)


def _official(oracle, letter="G."):
    return {name[2:]: value for name, value in oracle.items() if name.startswith(letter)}


def _below(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def _encoder(oracle, mean):
    theirs = _rosinality(oracle)
    encoder = {"encoder.input_layer.0.weight": torch.zeros(64, 3, 3, 3)}
    state = encoder | _below("decoder.", theirs["g_ema"])
    return {"state_dict": state, "latent_avg": mean, "opts": {"encoder_type": "Encoder4Editing"}}


AS_PEOPLE_HAVE_THEM = {
    "rosinality, bare": lambda oracle: _rosinality(oracle)["g_ema"],
    "rosinality, g only": lambda oracle: {"g": _rosinality(oracle)["g_ema"], "d": _rosinality(oracle)["d"]},
    "rosinality, averaged": lambda oracle: (
        {"g": {name: torch.zeros_like(value) for name, value in _rosinality(oracle)["g_ema"].items()}}
        | _rosinality(oracle)
    ),
    "rosinality, DataParallel": lambda oracle: {"g_ema": _below("module.", _rosinality(oracle)["g_ema"])},
    "official, bare": _official,
    "official, G_ema": lambda oracle: {"G_ema": _official(oracle), "D": _official(oracle, "D.")},
    "official, DataParallel": lambda oracle: _below("module.", _official(oracle)),
    "official, modules": lambda oracle: {"G": _modules({}, ""), "G_ema": _modules(oracle, "G.")},
    "encoder": lambda oracle: _encoder(oracle, oracle["G.mapping.w_avg"].repeat(8, 1)),
    "encoder, batched": lambda oracle: _encoder(oracle, oracle["G.mapping.w_avg"].repeat(1, 8, 1)),
    "encoder, one mean": lambda oracle: _encoder(oracle, oracle["G.mapping.w_avg"]),
    "encoder, mean as an array": lambda oracle: _encoder(oracle, oracle["G.mapping.w_avg"].numpy()),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", AS_PEOPLE_HAVE_THEM)
@torch.no_grad()
def test_checkpoints_as_people_have_them_give_the_same_pictures(oracle, tmp_path, kind, legacy):
    path = tmp_path / "CHECKPOINT.PT"
    torch.save(AS_PEOPLE_HAVE_THEM[kind](oracle), path, _use_new_zipfile_serialization=not legacy)
    generator, discriminator = load(path)
    assert_close(generator.synthesis(oracle["ws"]), oracle["image_ws"], atol=1e-4, rtol=1e-5)
    if "mean" in kind or "official" in kind or "batched" in kind:
        assert_close(generator.mapping(oracle["z"], 0.7), oracle["w_psi07"][:, 0], atol=1e-5, rtol=1e-5)
    assert (discriminator is not None) == (kind in ("rosinality, g only", "rosinality, averaged", "official, G_ema"))
    if discriminator:
        assert_close(discriminator(oracle["image_const"]), oracle["logits"], atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_an_encoders_mean_that_cannot_be_read_is_estimated_and_that_is_told(oracle, tmp_path):
    torch.save(_encoder(oracle, oracle["G.mapping.w_avg"].to_sparse()), tmp_path / "e4e.pt")
    with pytest.warns(UserWarning, match=r"e4e\.pt: latent_avg \(not read: .*sparse.*; the mean of W is estimated"):
        generator, _ = load(tmp_path / "e4e.pt")
    codes = generator.mapping(torch.randn(10_000, 64, generator=torch.Generator().manual_seed(1)))
    assert_close(generator.mapping.w_avg, codes.mean(0), atol=0.05 * float(codes.std()), rtol=0)


@torch.no_grad()
def test_noise_maps_that_a_file_lacks_are_drawn_the_same_in_every_load(oracle, tmp_path):
    contents = _rosinality(oracle)
    contents["g_ema"] = {name: value for name, value in contents["g_ema"].items() if not name.startswith("noises.")}
    torch.save(contents, tmp_path / "550000.pt")
    (generator, _), (again, _) = (load(tmp_path / "550000.pt") for _ in range(2))
    assert_close(generator.synthesis(oracle["ws"], "none"), load(ORACLE)[0].synthesis(oracle["ws"], "none"))
    assert torch.equal(generator.synthesis(oracle["ws"]), again.synthesis(oracle["ws"]))
    maps = torch.cat([layer.noise_const.flatten() for layer in generator.synthesis.layers])
    assert abs(maps.mean()) < 0.1
    assert abs(maps.std() - 1) < 0.1


@pytest.mark.parametrize("name", ["weights.SAFETENSORS", "official.PKL"])
@torch.no_grad()
def test_suffixes_may_be_in_capitals_and_a_tilde_is_the_users_folder(oracle, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    if name.endswith("PKL"):
        (tmp_path / name).write_bytes(pickle.dumps({"G_ema": _modules(oracle, "G.")}))
    else:
        save_file({key: value for key, value in oracle.items() if key.startswith("G.")}, tmp_path / name)
    generator, discriminator = load(f"~/{name}")
    assert discriminator is None
    assert_close(generator.synthesis(oracle["ws"]), oracle["image_ws"], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("other", ["conditional", "resnet without skips", "other names", "NaN"])
@torch.no_grad()
def test_a_discriminator_of_another_architecture_is_left_out_with_a_warning(oracle, tmp_path, other):
    d = _official(oracle, "D.")
    if other == "conditional":
        d |= {"mapping.fc0.weight": torch.zeros(64, 64), "b4.out.weight": torch.zeros(64, 32)}
    elif other == "other names":
        d = {"body.0.weight": torch.zeros(3)}
    elif other == "NaN":
        d["b4.fc.bias"] = d["b4.fc.bias"] * float("nan")
    else:
        d = {name: value for name, value in d.items() if ".skip." not in name}
    torch.save({"G_ema": _official(oracle), "D": d}, tmp_path / "mixed.pt")
    with pytest.warns(
        UserWarning, match=r"mixed\.pt: its discriminator is of another architecture, or broken, and left"
    ):
        generator, discriminator = load(tmp_path / "mixed.pt")
    assert discriminator is None
    assert_close(generator.synthesis(oracle["ws"]), oracle["image_ws"], atol=1e-4, rtol=1e-5)


FOREIGN = {
    "a class-conditional generator": (
        lambda path, g: torch.save({"G_ema": g | {"mapping.embed.weight": torch.zeros(64, 10)}}, path),
        "class-conditional, and faces have no classes: give an unconditional",
    ),
    "StyleGAN3": (
        lambda path, g: torch.save({"G_ema": {"synthesis.L0_36_512.weight": torch.zeros(1)}}, path),
        "is a StyleGAN3 generator.*give one of StyleGAN2",
    ),
    "a weight that is NaN": (
        lambda path, g: torch.save({"G_ema": g | {"mapping.w_avg": torch.full((64,), torch.nan)}}, path),
        r"mapping\.w_avg should hold real numbers, and holds complex or infinite ones or none \(NaN\)",
    ),
    "a mean that cannot be read": (
        lambda path, g: torch.save({"G_ema": g | {"mapping.w_avg": torch.ones(64).to_sparse()}}, path),
        r"w_avg \(not read: torch\._utils\._rebuild_sparse_tensor\)",
    ),
    "a weight that an unknown call would make": (
        lambda path, g: torch.save({"G_ema": g | {"synthesis.b8.conv0.weight": Path("weight")}}, path),
        r"Missing key.*b8\.conv0\.weight",
    ),
    "another network": (
        lambda path, g: torch.save({"w": torch.ones(1)}, path),
        r"no tensor is named like .* \(there is w\)",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_cannot_load_is_recognised_in_one_sentence(oracle, tmp_path, kind):
    write, message = FOREIGN[kind]
    path = tmp_path / "foreign.pt"
    write(path, _official(oracle))
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert "foreign" in str(caught.value)
    assert str(caught.value).endswith(".")
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("read", [load, FacePrior.load])
@pytest.mark.parametrize("address", ["https://example.org/ffhq.pkl", "https://example.org/uc?id=1", "s3://faces/g.pt"])
def test_an_address_is_no_path(address, read):
    with pytest.raises(ValueError, match="is an address, not a file: download it"):
        read(address)


@pytest.mark.parametrize("side", [4096, 1 << 30])
def test_a_small_file_that_claims_large_pictures_reserves_nothing(tmp_path, oracle, side):
    g = _official(oracle) | {f"synthesis.b{side}.conv1.bias": torch.zeros(1)}
    torch.save(g, tmp_path / "claims.pt")
    with pytest.raises(ValueError, match=r"claims\.pt.*(Missing key|4096² pixels)"):
        load(tmp_path / "claims.pt")


@torch.no_grad()
def test_a_checkpoint_loaded_in_inference_mode_or_with_another_default_is_as_ever(oracle, monkeypatch):
    with torch.inference_mode():
        generator, _ = load(ORACLE)
    assert not any(value.is_inference() for value in generator.state_dict().values())
    torch.set_default_dtype(torch.float64)
    try:
        generator, discriminator = load(ORACLE)
    finally:
        torch.set_default_dtype(torch.float32)
    states = [*generator.state_dict().values(), *discriminator.state_dict().values()]
    assert {value.dtype for value in states} == {torch.float32}
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert_close(generator.synthesis(oracle["ws"]), oracle["image_ws"], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["evil.pkl", "evil.pt"])
def test_a_checkpoint_that_wants_to_run_something_is_refused(tmp_path, name):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    if name.endswith(".pt"):
        torch.save({"g_ema": Evil()}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps({"G_ema": Evil()}))
    with pytest.raises(UnsafePickle, match="system"):
        load(tmp_path / name)
    assert not (tmp_path / "ran").exists()
