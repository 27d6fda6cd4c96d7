"""The seam of methods; photos in, photos out."""

import inspect
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from facesr_lib import assets, data, images, restoration, search
from facesr_lib.assets import AssetMissing
from facesr_lib.degrade import Downsample, halvings
from facesr_lib.networks import checkpoints, landmarks, parsing, progressive, rrdb, supervised
from facesr_lib.networks.rrdb import RRDBNet
from facesr_lib.networks.stylegan2 import Generator
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import METHODS, check, tiles
from facesr_lib.restoration.outputs import Outputs


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    return FacePrior("tiny", Generator(8, 8, 16, channel_base=128, channel_max=16), None)


@pytest.fixture
def photos(prior, tmp_path):
    """Three low-resolution faces on disk."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lowres = Downsample(4)(prior.sample(3, seed=7)[0])
    for i, image in enumerate(lowres):
        images.write(image, folder / f"{i}.png")
    return sorted(folder.iterdir())


def run(prior, photos, out, **options):
    options = {"steps": 4, "progress": False} | options
    return list(restoration.restore(photos, out, prior, Downsample(4), **options))


def enlarged(prior, photos, out, **options):
    return list(restoration.restore(photos, out, prior, Downsample(4), method="lsrgan", progress=False, **options))


def test_every_photo_gets_a_face_that_is_the_same_alone_and_in_a_batch(prior, photos, tmp_path):
    together = run(prior, photos, tmp_path / "new" / "folder")
    assert [outcome.output.name for outcome in together] == ["0.png", "1.png", "2.png"]
    (alone,) = run(prior, photos[2:], tmp_path / "alone")
    a, b = images.read(together[2].output), images.read(alone.output)
    assert a.shape == (3, 16, 16)
    assert_close(a, b, atol=1.5 / 255, rtol=0)
    assert alone.residual == pytest.approx(together[2].residual, rel=1e-2)
    assert alone.output.name in alone.message


def test_a_bad_photo_does_not_stop_the_others(prior, photos, tmp_path):
    photos[0].write_bytes(photos[0].read_bytes()[:40])
    images.write(torch.zeros(3, 5, 4), photos[1])
    outcomes = run(prior, [*photos, tmp_path / "nowhere.png"], tmp_path / "out")
    assert [outcome.output is not None for outcome in outcomes] == [False, False, True, False]
    assert "4×5" in outcomes[1].message
    assert "nowhere.png" in outcomes[3].message
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["2.png"]


def test_photos_of_one_name_do_not_overwrite_each_other(prior, photos, tmp_path):
    twin, upper = tmp_path / "other" / "0.jpg", tmp_path / "upper" / "A.png"
    for copy in (twin, upper, lower := tmp_path / "lower" / "a.png"):
        copy.parent.mkdir()
        images.write(images.read(photos[0]), copy)
    outcomes = run(prior, [photos[0], twin, upper, lower], tmp_path / "out", batch=1)
    assert [outcome.output.name for outcome in outcomes] == ["0.png", "0-2.png", "A.png", "a-2.png"]


def test_no_file_of_one_photo_has_the_name_of_anothers(tmp_path):
    """Not even where a photo is named as the contact sheet beside another's result is."""
    outputs = Outputs(tmp_path, [], overwrite=True)
    patterns = "{}.png", "{}-faces.png", "{}.json"
    stems = ("a-faces", "a", "a-faces", "A-2", "b", "b-faces")
    named = [path.name for stem in stems for path in outputs.named(stem, *patterns)]
    assert len({name.casefold() for name in named}) == len(named) == 3 * len(stems)
    assert named[:6] == ["a-faces.png", "a-faces-faces.png", "a-faces.json", "a-2.png", "a-2-faces.png", "a-2.json"]


def test_a_result_replaces_nothing_that_exists_unless_it_may(prior, photos, tmp_path):
    """``face.webp`` restored into its own folder: the ``face.png`` that lies there is another picture."""
    face, bystander = photos[0].with_name("face.webp"), photos[0].with_name("face.png")
    images.write(images.read(photos[0]), face)
    bystander.write_bytes(photos[1].read_bytes())
    before = bystander.read_bytes()
    refused, done = run(prior, [face, photos[2]], tmp_path / "photos", overwrite=False)[0], photos[2].read_bytes()
    assert "face.png exists" in refused.message
    assert bystander.read_bytes() == before
    assert run(prior, [face], tmp_path / "photos", overwrite=True)[0].output == bystander
    assert images.read(bystander).shape == (3, 16, 16)
    assert photos[2].read_bytes() == done


def test_what_exists_stops_no_other_photo(prior, photos, tmp_path):
    run(prior, photos[:1], tmp_path / "out")
    outcomes = run(prior, photos, tmp_path / "out")
    assert [outcome.output is not None for outcome in outcomes] == [False, True, True]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_result_never_replaces_a_photo(prior, photos, tmp_path, overwrite):
    before = [photo.read_bytes() for photo in photos]
    os.link(photos[0], tmp_path / "link.jpg")  # the same photo by another name
    outcomes = run(prior, [tmp_path / "link.jpg", *photos[1:]], photos[0].parent, overwrite=overwrite)
    assert [outcome.output and outcome.output.name for outcome in outcomes] == ["link.png", None, None]
    (linked,) = run(prior, [tmp_path / "link.jpg"], photos[0].parent, overwrite=False)
    assert "link.png exists" in linked.message
    assert all("choose another folder" in outcome.message for outcome in outcomes[1:])
    os.link(photos[0], tmp_path / "0.jpg")
    assert "would replace the photo" in run(prior, [tmp_path / "0.jpg"], photos[0].parent, overwrite=True)[0].message
    assert [photo.read_bytes() for photo in photos] == before


def test_a_result_that_cannot_be_written_is_told_and_stops_no_other(prior, photos, tmp_path):
    (tmp_path / "out" / "0.png").mkdir(parents=True)
    outcomes = run(prior, photos, tmp_path / "out", overwrite=True)
    assert [outcome.output is not None for outcome in outcomes] == [False, True, True]
    assert "0.png" in outcomes[0].message


def test_a_name_that_no_system_takes_is_that_photos_own_failure(prior, photos, tmp_path):
    long, odd = photos[0].with_name("x" * 300 + ".png"), "broken \ud800.png"
    longest = photos[0].with_name("y" * 251 + ".png")
    images.write(images.read(photos[0]), longest)
    twin = tmp_path / "twin" / longest.name
    twin.parent.mkdir()
    twin.write_bytes(longest.read_bytes())
    outcomes = run(prior, [long, odd, longest, twin, photos[1]], tmp_path / "out")
    assert [outcome.output is not None for outcome in outcomes] == [False, False, True, False, True]
    assert "rename the photo" in outcomes[3].message  # y…y-2.png would be too long


def test_a_full_disk_is_told_of_each_photo_that_it_could_not_take(prior, photos, tmp_path, monkeypatch):
    write = images.write

    def full(image, path, **options):
        if path.name == "1.png":
            raise OSError(28, "No space left on device")
        write(image, path, **options)

    monkeypatch.setattr(images, "write", full)
    outcomes = run(prior, photos, tmp_path / "out", batch=2)
    assert [outcome.output is not None for outcome in outcomes] == [True, False, True]
    assert "1.png could not be written (No space left on device): make room" in outcomes[1].message


@pytest.mark.parametrize(
    ("photos", "options", "message"),
    [
        ("photos/0.png", {}, r"a list of paths; got 'photos/0\.png': put it in brackets"),
        (b"0.png", {}, r"a list of paths; got b'0\.png'"),
        (None, {}, r"a list of paths; got None"),
        ([1, None], {}, r"a path is a text or a pathlib\.Path.*; got 1\."),
        ([b"0.png"], {}, r"a path is a text or a pathlib\.Path.*; got b'0\.png'"),
        (["~nobody-here/0.png"], {}, r"~ the home of a user; got '~nobody-here/0\.png'"),
        (["a.png"], {"batch": -1}, "batch must be a whole number, at least 1; got -1"),
        (["a.png"], {"batch": 1.5}, "batch must be a whole number, at least 1; got 1.5"),
        (["a.png"], {"seed": None}, "seed must be a whole number, at least 0; got None"),
    ],
)
def test_what_cannot_be_restored_is_refused_before_anything_is_made(prior, tmp_path, photos, options, message):
    with pytest.raises(ValueError, match=message):
        run(prior, photos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_home_folder_may_be_written_as_a_tilde(prior, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (outcome,) = run(prior, ["~/photos/0.png"], "~/out")
    assert outcome.output == tmp_path / "out" / "0.png"


def test_what_every_search_takes_is_handed_on(prior, photos, tmp_path):
    seen = []
    run(prior, photos, tmp_path / "out", record_every=2, callback=lambda step, *_: seen.append(step))
    assert seen == [0, 1, 2, 3]


def test_ctrl_c_keeps_what_was_found_and_is_passed_on(prior, photos, tmp_path):
    def callback(step, image, loss):
        raise KeyboardInterrupt

    found = restoration.restore(
        photos, tmp_path / "out", prior, Downsample(4), batch=2, progress=False, callback=callback
    )
    assert [next(found).output.name for _ in range(2)] == ["0.png", "1.png"]
    with pytest.raises(KeyboardInterrupt):
        next(found)


def test_originals_are_cropped_and_made_small_first(prior, tmp_path):
    original = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(0))
    images.write(original, tmp_path / "original.png")
    (outcome,) = run(prior, [tmp_path / "original.png"], tmp_path / "out", degrade=True)
    small = Downsample(4)(data.square(images.read(tmp_path / "original.png"), 16)).clamp(0, 1)
    got = Downsample(4)(images.read(outcome.output)[None])
    assert outcome.residual == pytest.approx((got - small).square().mean().sqrt().item() * 255, abs=0.5)


def test_a_picture_that_no_face_explains_is_pointed_out(prior, photos, tmp_path):
    checkers = torch.zeros(3, 4, 4)
    checkers[:, ::2, ::2] = checkers[:, 1::2, 1::2] = 1
    images.write(checkers, photos[0])
    assert "does not explain" in run(prior, photos[:1], tmp_path / "out")[0].message


# Pictures of any size


def looks_far(picture):
    """What a network does that sees all of its tile: darker or brighter everywhere by what is there."""
    return torch.nn.functional.interpolate(picture, scale_factor=2) / 2 + picture.mean((2, 3), keepdim=True) / 2


@pytest.mark.parametrize("tile", [7, 8, 40])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (8, 25), (40, 15)])
@pytest.mark.parametrize("overlap", [0, 3])
def test_tiles_together_are_the_picture(height, width, tile, overlap):
    lowres = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    double = partial(torch.nn.functional.interpolate, scale_factor=2)
    assert_close(tiles.enlarge(double, lowres, 2, tile=tile, overlap=overlap), double(lowres))


def test_tiles_are_the_whole_where_the_network_looks_no_farther_than_they_overlap():
    torch.manual_seed(0)
    network, lowres = RRDBNet(1, 8, 4).eval(), torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        network.conv_last.bias.fill_(0.5)
        whole, cut = network(lowres), tiles.enlarge(network, lowres, 4, tile=24, overlap=0)
        assert_close(tiles.enlarge(network, lowres, 4, tile=40, overlap=20), whole, atol=1e-4, rtol=0)
    assert (cut - whole).abs().max() > 1e-3


def test_tiles_of_a_network_that_looks_far_leave_no_seam():
    lowres = torch.linspace(0, 1, 96).expand(1, 3, 64, 96)
    cut, faded = (tiles.enlarge(looks_far, lowres, 2, tile=32, overlap=overlap) for overlap in (0, 16))
    assert cut.diff(dim=3).abs().max() > 30 / 255
    assert faded.diff(dim=3).abs().max() < 4 / 255  # the picture's own slope is 0.7 of a level


@pytest.mark.parametrize("name", ["esrgan", "lsrgan", "cesrgan", "clsrgan", "realesrgan"])
def test_tiles_differ_from_the_whole_by_less_than_a_grey_level(name):
    try:
        check(name)
        picture = data.faces("test", 256, 1)[:, :, 100:116]
    except (ValueError, AssetMissing) as missing:
        pytest.skip(str(missing))
    cut, whole = (METHODS[name](picture, Downsample(4), tile=tile, progress=False).image for tile in (128, 256))
    assert not torch.equal(cut, whole)
    assert 255 * (cut - whole).abs().max() < 1


@pytest.mark.parametrize(("options", "message"), [({"tile": 0}, "tile must be"), ({"overlap": 97}, "at most 96")])
def test_impossible_tiles_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        METHODS["esrgan"](torch.rand(1, 3, 8, 8), Downsample(4), **options)


def test_pictures_of_any_size_are_enlarged_one_by_one(prior, tmp_path):
    for name, (height, width) in {"a": (9, 14), "b": (20, 5)}.items():
        images.write(torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)), tmp_path / f"{name}.png")
    pictures = sorted(tmp_path.glob("*.png"))
    outcomes = enlarged(prior, pictures, tmp_path / "out")
    assert [tuple(images.read(outcome.output).shape[1:]) for outcome in outcomes] == [(36, 56), (80, 20)]


def test_an_original_of_any_size_is_cropped_to_multiples_and_made_small(prior, tmp_path):
    images.write(original := torch.rand(3, 34, 51, generator=torch.Generator().manual_seed(0)), tmp_path / "a.png")
    images.write(torch.rand(3, 3, 9), tmp_path / "b.png")
    with pytest.warns(UserWarning, match="a.png is cropped from 51×34 to 48×32, multiples of 4"):
        first, second = enlarged(prior, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", degrade=True)
    assert images.read(first.output).shape == original[:, :32, :48].shape
    assert "9×3 pixels cannot be made 4 times smaller" in second.error


LARGE = """
import sys
import torch
from facesr_lib import images, restoration
from facesr_lib.benchmark import clock
from facesr_lib.degrade import Downsample
from facesr_lib.networks import checkpoints
from facesr_lib.networks.rrdb import RRDBNet
from facesr_lib.prior import FacePrior

folder, prior = sys.argv[1], FacePrior.load("faces-64")
checkpoints.save(RRDBNet(1, 8, 4), f"{folder}/weights.safetensors", {})
images.write(torch.full((3, 900, 1200), 0.5), f"{folder}/photo.png")

def work():
    given = {"method": "esrgan", "weights": f"{folder}/weights.safetensors"}
    [outcome] = restoration.restore([f"{folder}/photo.png"], f"{folder}/out", prior, Downsample(4), **given)
    assert outcome.output, outcome.error

print(clock.peak_megabytes(work, torch.device("cpu")))
"""


def test_a_large_picture_takes_little_more_memory_than_its_result(tmp_path):
    """One megapixel makes 17: 207 MB of numbers and 52 of bytes; in a process of its own, a bar says how far it is."""
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, check=True, text=True)
    assert re.search(r"tiles:.* 35/35 ", done.stderr)
    assert images.read(tmp_path / "out" / "photo.png").shape == (3, 3600, 4800)
    if (peak := float(done.stdout)) != peak:
        pytest.skip("this system counts no peaks of memory")
    assert peak < 500  # another copy of the numbers would be 207 more


def test_a_result_beyond_a_hundred_megapixels_is_told_before_it_is_made(prior, tmp_path):
    images.write(torch.zeros(1, 3, 2500, 3000), tmp_path / "large.png")
    images.write(torch.zeros(1, 3, 8, 8), tmp_path / "small.png")
    photos = [tmp_path / "large.png", tmp_path / "small.png"]
    large, small = restoration.restore(photos, tmp_path / "out", prior, Downsample(4), method="esrgan")
    assert "3000×2500 pixels, enlarged 4 times, are 120 megapixels, more than 100: choose a smaller" in large.error
    assert images.read(small.output).shape == (3, 32, 32)


def test_esrgan_enlarges_by_any_scale_by_enlarging_again_and_making_small():
    lowres = torch.rand(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))

    def enlarged_by(scale, lowres=lowres):
        return METHODS["esrgan"](lowres, Downsample(scale), progress=False).image

    once = enlarged_by(4)
    twice = enlarged_by(4, once)
    assert_close(enlarged_by(16), twice)
    assert_close(enlarged_by(8), images.resize(twice, (48, 72)).clamp(0, 1))
    assert_close(enlarged_by(2), images.resize(once, (12, 18)).clamp(0, 1))


def test_a_method_without_its_weights_says_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"realesrgan needs weights:.*facesr assets fetch realesrgan-release"):
        check("realesrgan")


@contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("surroundings", ["torch.set_default_dtype(torch.float64)", "autocast.__enter__()"])
def test_networks_are_loaded_and_run_the_same_in_any_surroundings(surroundings):
    """In a process of its own, which has loaded none of them."""
    program = f"""
import torch
from facesr_lib.restoration import METHODS
autocast, lowres = torch.autocast("cpu", torch.bfloat16), torch.rand(1, 3, 16, 16, dtype=torch.float32)
for name in ("bicubic", "lsrgan", "progressive", "fpn"):
    method = METHODS[name]
    operator = method.operator(method.scale or 4)
    {surroundings}
    found = method(lowres, operator).image
    {"torch.set_default_dtype(torch.float32)" if "dtype" in surroundings else "autocast.__exit__(None, None, None)"}
    print(found.dtype == torch.float32 and torch.equal(found, method(lowres, operator).image))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["True"] * 4), done.stderr


LOADS = {
    "landmarks": landmarks.load,
    "parsing-128": parsing.load,
    "progressive": progressive.load,
    "vdsr": supervised.load,
    "esrgan": rrdb.load,
}


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize("surroundings", [torch.inference_mode, float64, partial(torch.device, "meta")])
def test_a_network_loaded_in_any_surroundings_is_the_same(name, surroundings):
    path = assets.path(name)
    expected = LOADS[name](path).state_dict()
    with surroundings():
        found = LOADS[name](path).state_dict()
    assert not any(value.is_inference() for value in found.values())
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


@pytest.mark.parametrize("name", ["bicubic", "lsrgan", "progressive", "fpn"])
def test_an_operator_of_one_channel_is_told(name):
    class Grey(torch.nn.Module):
        scale = METHODS[name].scale or 4

        def forward(self, image):
            return METHODS[name].operator(self.scale)(image)[:, :1]

    with pytest.raises(ValueError, match=r"of which the operator makes \(1, 1, 16, 16\): its scale is another"):
        METHODS[name](torch.rand(1, 3, 16, 16), Grey())


# Networks for faces

OF_FACES = ["progressive", "vdsr", "urdgn", "fsrnet", "fsrgan"]


@pytest.fixture(scope="module")
def held_out():
    try:
        return data.faces("test", 128, 8)
    except AssetMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", OF_FACES)
def test_a_shipped_network_restores_faces_of_strangers(name, held_out):
    lowres = halvings(3)(held_out)
    found = METHODS[name](lowres, halvings(3))
    away = (found.image[:, None] - held_out).square().mean((2, 3, 4))  # (N, N)
    assert torch.equal(away.argmin(1), torch.arange(8))
    assert away.diag().max() < 0.02  # 17 dB
    assert_close(METHODS[name](lowres[3:4], halvings(3)).image, found.image[3:4], atol=1e-4, rtol=0)


def test_a_face_is_made_small_as_its_network_has_learnt(prior, held_out, tmp_path):
    """Eight times smaller at once, bicubically, is another picture, on which it is worse."""
    images.write(held_out[0], tmp_path / "face.png")
    operator = METHODS["vdsr"].operator(8)
    (outcome,) = restoration.restore(
        [tmp_path / "face.png"], tmp_path / "out", prior, operator, method="vdsr", degrade=True
    )
    restored = images.read(outcome.output)
    assert restored.shape == (3, 128, 128)  # though the prior makes faces of 16²
    assert_close(restored, METHODS["vdsr"](halvings(3)(held_out[:1]), operator).image[0], atol=3 / 255, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "operator", "came"),
    [
        (20, 20, Downsample(8), r"got 20×20 and an operator of scale 8"),
        (16, 12, Downsample(8), r"got 12×16"),
        (16, 16, Downsample(4), r"got 16×16 and an operator of scale 4: .*choose scale 8, or choose another method"),
        (16, 16, lambda image: image, r"got 16×16 and an operator of scale None"),
    ],
)
@pytest.mark.parametrize("name", OF_FACES)
def test_a_network_for_faces_says_what_it_takes(name, height, width, operator, came):
    with pytest.raises(ValueError, match=rf"{name} makes faces of 128×128 of pictures of 16×16; {came}"):
        METHODS[name](torch.rand(1, 3, height, width), operator)


def test_photos_of_another_size_are_told_what_to_do(prior, tmp_path):
    for name, shape in {"a": (3, 100, 100), "b": (3, 16, 12), "c": (3, 16, 16)}.items():
        images.write(torch.rand(shape, generator=torch.Generator().manual_seed(0)), tmp_path / f"{name}.png")
    a, b, c = restoration.restore(
        sorted(tmp_path.glob("*.png")), tmp_path / "out", prior, Downsample(8), method="progressive"
    )
    assert "100×100; at scale 8 faces of 128×128 explain pictures of 16×16: crop it square and resize" in a.error
    assert "12×16" in b.error
    assert images.read(c.output).shape == (3, 128, 128)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["c.png"]


def test_a_network_of_ones_own_takes_the_shipped_ones_place(tmp_path):
    torch.manual_seed(0)
    for name in ("vdsr", "fsrgan"):
        network = supervised.NETWORKS[name](0.1).eval()
        checkpoints.save(network, tmp_path / f"{name}.safetensors", {"network": name, "width": "0.1"})
    lowres = torch.rand(1, 3, 16, 16)
    given = {"weights": str(tmp_path / "fsrgan.safetensors")}
    with torch.no_grad():
        expected = network.enlarge(lowres).clamp(0, 1)
    assert check("fsrgan", given) is METHODS["fsrgan"]
    assert_close(METHODS["fsrgan"](lowres, halvings(3), **given).image, expected, atol=2e-2, rtol=0)
    checkpoints.save(supervised.FSRNet(0.2), tmp_path / "fsrgan.safetensors", {"network": "fsrgan", "width": "0.2"})
    assert not torch.equal(METHODS["fsrgan"](lowres, halvings(3), **given).image, expected)  # as it is now
    with pytest.raises(ValueError, match="holds vdsr, not fsrgan"):
        check("fsrgan", {"weights": str(tmp_path / "vdsr.safetensors")})
    with pytest.raises(FileNotFoundError, match="check the path"):
        check("fsrgan", {"weights": str(tmp_path / "none.safetensors")})
    with pytest.raises(ValueError, match="no generator of progressive"):
        check("progressive", given)


def test_another_training_of_esrgan_takes_the_shipped_ones_place(tmp_path):
    torch.manual_seed(0)
    network = RRDBNet(1, 8, 4).eval()
    network.conv_last.bias.data.fill_(0.5)
    checkpoints.save(network, tmp_path / "generator.safetensors", {})
    lowres = torch.rand(1, 3, 9, 12)
    with torch.no_grad():
        expected = network(lowres).clamp(0, 1)
    given = {"weights": str(tmp_path / "generator.safetensors")}
    assert_close(METHODS["esrgan"](lowres, Downsample(4), **given).image, expected, atol=1e-2, rtol=0)
    check("realesrgan", given)  # even where its own are missing
    assert torch.equal(*(METHODS[name](lowres, Downsample(4), weights="lsrgan").image for name in ("esrgan", "lsrgan")))
    with pytest.raises(ValueError, match="holds no RRDBNet"):
        check("esrgan", {"weights": "vdsr"})


# The seam


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_called_alike_and_says_what_it_leaves_open(name):
    scale = METHODS[name].scale or 4  # of the shipped prior, which each loads where it needs one
    operator = METHODS[name].operator(scale)
    lowres = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    quick = {"steps": 1, "perceptual": None, "rls_options": {"steps": 1}}
    options = {option: value for option, value in quick.items() if option in METHODS[name].options}
    try:
        check(name, options)
    except ValueError as missing:
        pytest.skip(str(missing))
    found = METHODS[name](lowres, operator, seed=0, progress=False, **options)
    assert found.image.shape == (2, 3, 16 * scale, 16 * scale)
    assert not found.interrupted
    assert_close(found.residual, (operator(found.image) - lowres).square().mean((1, 2, 3)).sqrt())


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_interpolation_is_the_kernel_whatever_made_the_picture_small(kernel):
    lowres = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = METHODS[kernel](lowres, Downsample(3, "box"))
    assert_close(found.image, images.resize(lowres.detach(), (15, 21), kernel).clamp(0, 1))
    assert not found.image.requires_grad


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "esrgan"])
def test_an_operator_that_does_not_tell_its_scale_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} enlarges by operator\.scale, which .* lacks: give a Downsample"):
        METHODS[name](torch.rand(1, 3, 5, 7), lambda image: image)


def test_options_are_those_of_the_functions_signature():
    for name in ("pulse", "rls_plus"):
        options, own = METHODS[name].options, inspect.signature(getattr(search, name)).parameters
        assert options["steps"] == own["steps"].default
        assert options["record_every"] == inspect.signature(search.run_search).parameters["record_every"].default
        assert options.keys() == METHODS[name].types.keys()
        assert options.keys().isdisjoint({"prior", "lowres", "operator", "seed", "run"})


@pytest.mark.parametrize(
    ("typed", "meant"), [("rls+", "rls_plus"), ("rls-plus", "rls_plus"), ("RLS", "rls"), ("puls", "pulse")]
)
def test_near_names_of_methods_are_told(typed, meant):
    with pytest.raises(ValueError, match=rf"did you mean {meant}\?"):
        check(typed)


def test_unknown_options_are_told_before_anything_runs(prior, photos, tmp_path):
    with pytest.raises(ValueError, match=r"did you mean lambda_l2"):
        check("pulse", {"lambda_2": 1.0})
    with pytest.raises(ValueError, match=r"no option of bicubic 'steps'"):
        run(prior, photos, tmp_path / "out", method="bicubic")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bicubic", "lsrgan", "progressive", "fpn"])
def test_a_method_that_is_called_names_its_options(name):
    with pytest.raises(ValueError, match=r"there is no option of this method 'progres': did you mean progress"):
        METHODS[name](torch.rand(1, 3, 16, 16), METHODS[name].operator(8), progres=False)


def test_what_a_method_lacks_is_told_before_anything_runs(prior, photos, tmp_path):
    assert check("dse").needs == {"prior", "discriminator"}  # the shipped prior has all of it
    assert check("rls_plus").needs == {"prior", "flow"}
    for method, message in {"dse": "needs a discriminator", "rls": "facesr train flow"}.items():
        with pytest.raises(ValueError, match=message):
            run(prior, photos, tmp_path / "out", method=method)
    assert not (tmp_path / "out").exists()
    check("rls_plus", {"anchor": torch.zeros(1)}, prior)  # codes of one's own take the flow's place
    with pytest.raises(ValueError, match="needs a flow"):
        check("rls_plus", {"anchor": None}, prior)


def test_weights_that_are_not_here_are_told_with_the_way_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="facesr assets fetch vgg16"):
        check("brgm")
    check("brgm", {"perceptual": None})


def test_a_new_method_is_an_entry_and_nothing_else(prior, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "mine", replace(METHODS["bicubic"]))
    outcomes = list(restoration.restore(photos, tmp_path / "out", prior, Downsample(4), method="mine"))
    assert all(outcome.residual < 25 for outcome in outcomes)


def test_importing_the_library_loads_nothing_heavy():
    heavy = ["lpips", "kornia", "torchmetrics", "torchvision", "torch._dynamo", "matplotlib", "anywidget", "nflows"]
    program = (
        "import sys; from facesr_lib import chapter, losses, metrics, restoration, search; "
        "from facesr_lib.evaluation import ledger; "
        f"sys.exit(', '.join(name for name in {[*heavy, 'pooch']} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: 255 * x, r"ranges from 0\.00 to 255\.00; pixels are in \[0, 1\]"),
        (lambda x: 2 * x - 1, r"ranges from -1\.00 to 1\.00; pixels are in \[0, 1\]"),
        (lambda x: x / x, "NaN"),
        (lambda x: x[:0], "at least one"),
        (lambda x: x[0], r"\(3, 8, 8\)"),
        (lambda x: (255 * x).byte(), "uint8"),
        (torch.Tensor.numpy, "ndarray"),
        (torch.Tensor.tolist, "list"),
    ],
)
def test_every_method_refuses_what_is_no_batch_of_pictures(name, spoil, message):
    lowres = torch.linspace(0, 1, 192).view(1, 3, 8, 8)
    with pytest.raises((TypeError, ValueError), match=rf"{message}.*\.$"):
        METHODS[name](spoil(lowres), Downsample(8))


def test_interpolation_gives_float32_as_a_search_does():
    assert METHODS["bicubic"](torch.zeros(1, 3, 8, 8, dtype=torch.float64), Downsample(8)).image.dtype == torch.float32


def test_only_a_picture_as_large_as_the_results_is_asked_whether_it_is_an_original(prior, photos, tmp_path):
    images.write(torch.zeros(3, 16, 16), original := tmp_path / "original.png")
    large, small = run(prior, [original, photos[0]], tmp_path / "out")
    assert "Is it a high-resolution original? Then say so: --degrade." in large.error
    images.write(torch.zeros(3, 5, 5), odd := tmp_path / "odd.png")
    (odd_one,) = run(prior, [odd], tmp_path / "out2")
    assert "explain pictures of 4×4" in odd_one.error
    assert "--degrade" not in odd_one.error + small.error


def test_interpolation_tells_an_operator_whose_scale_is_another():
    class Grey(torch.nn.Module):
        scale = 8

        def forward(self, image):
            return Downsample(8)(image)[:, :1]

    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\) was enlarged.* the operator makes \(1, 1, 8, 8\)"):
        METHODS["bicubic"](torch.zeros(1, 3, 8, 8), Grey())
