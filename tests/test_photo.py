"""Whole photographs: faces found, restored and put back, and everything else left alone."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from torch.testing import assert_close

from facesr_lib import assets, cli, data, images, restoration
from facesr_lib.degrade import Downsample
from facesr_lib.metrics import MetricUnavailable, recognition
from facesr_lib.prior import FacePrior
from facesr_lib.restoration import METHODS, Method, detection, photo, restore_photo, whole
from facesr_lib.restoration.alignment import align, ellipse, paste, quad, side, view
from facesr_lib.restoration.detection import Found


def at(left, top, size, **changes):
    """A face whose FFHQ crop is about this square."""
    box = (left + 0.2 * size, top + 0.2 * size, 0.6 * size, 0.7 * size)
    given = {"box": box, "points": detection.MEAN * size + torch.tensor([left, top]), "score": 1.0}
    return Found(**(given | {"detector": "by hand", "landmarks": "five"} | changes))


def scene(height=120, width=160):
    """A smooth coloured picture."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
    return torch.stack([0.5 + 0.3 * torch.sin(x + k) * torch.cos(y - k) for k in range(3)])


@pytest.fixture
def stub(monkeypatch):
    """Make methods for faces of 32² of functions (lowres, seed) → large pictures; ``stub(function)`` is "stub"."""

    def make(function):
        def restore(prior, lowres, operator, *, seed=0, progress=True):
            image = function(operator.upsample(lowres), seed)
            return photo_result(image, torch.zeros(len(image)))

        monkeypatch.setitem(METHODS, "stub", Method(restore, resolution=32))
        return "stub"

    return make


class photo_result:
    def __init__(self, image, residual, interrupted=False):
        self.image, self.residual, self.interrupted = image, residual, interrupted


def textured(image, seed):
    """Fine stripes, which are no low frequency."""
    return (image + 0.2 * (-1.0) ** torch.arange(image.shape[-1])).clamp(0, 1)


# What is changed, and what is not


def test_a_method_that_changes_nothing_changes_nothing():
    result = restore_photo(scene(), "bicubic", 1, faces=[at(30, 20, 64)], progress=False)
    assert result.faces[0].restored
    assert_close(result.image, scene(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("scale", [1, 2])
def test_only_the_chosen_faces_change(stub, scale):
    method, faces = stub(textured), [at(100, 20, 40), at(10, 10, 40), at(60, 70, 40)]
    plain = photo.enlarged(scene(), "bicubic", scale)
    assert plain.shape == (3, scale * 120, scale * 160)
    both = restore_photo(scene(), method, scale, faces=faces[:2], only=[2], progress=False)
    assert [face.restored for face in both.faces] == [False, True]
    (other,) = both.faces[1:]
    changed = (both.image - plain).abs().amax(0)
    left, top, right, bottom = (int(scale * n) for n in (8, 8, 52, 52))
    assert changed[top:bottom, left:right].max() > 0.05
    changed[top:bottom, left:right] = 0
    assert changed.max() == 0
    assert other.size == pytest.approx(40, rel=0.02)


def test_faces_are_chosen_by_number():
    faces = [at(10, 10, 40), at(60, 10, 40), at(110, 10, 40)]

    def restored(**chosen):
        result = restore_photo(scene(), "bicubic", 1, faces=faces, progress=False, **chosen)
        return [face.number for face in result.faces if face.restored]

    assert restored() == [1, 2, 3]
    assert restored(only=[1, 3]) == [1, 3]
    assert restored(leave=[2]) == [1, 3]
    assert restored(only=[1, 3], leave=[3]) == [1]
    assert restored(only=[]) == []
    for chosen in ({"only": [9]}, {"leave": [4]}):
        with pytest.raises(
            ValueError, match=r"there is no face [94] in this photograph: they are numbered from 1 to 3"
        ):
            restored(**chosen)


def test_strength_blends_with_the_photograph(stub):
    method, faces = stub(textured), [at(30, 20, 64)]
    none, half, whole = (
        restore_photo(scene(), method, 1, faces=faces, strength=strength, progress=False).image - scene()
        for strength in (0, 0.5, 1)
    )
    assert none.abs().max() == 0
    assert whole.abs().max() > 0.1
    assert_close(half, whole / 2, atol=1e-4, rtol=0)


def test_colours_are_the_photographs(stub):
    """A method that makes everything green changes the colour of nothing."""
    method = stub(
        lambda image, seed: (textured(image, seed) + torch.tensor([-0.2, 0.2, -0.2])[:, None, None]).clamp(0, 1)
    )
    result = restore_photo(scene(), method, 1, faces=[at(30, 20, 64)], progress=False)
    changed = result.image - scene()
    assert changed.abs().max() > 0.1
    blurred = torch.nn.functional.avg_pool2d(changed, 16, stride=4)
    assert blurred.abs().max() < 3 / 255


@pytest.mark.parametrize(
    ("method", "scale", "background"),
    [("fpn", 1, "bicubic"), ("fpn", 2, "bicubic"), ("bicubic", 1, "bicubic"), ("bicubic", 2, "esrgan")],
)
def test_a_grey_photograph_stays_grey(method, scale, background):
    grey = scene().mean(0, keepdim=True).expand(3, -1, -1)
    faces = [at(30, 20, 64)]
    result = restore_photo(grey, method, scale, faces=faces, background=background, grain=True, progress=False)
    assert result.faces[0].restored
    pixels = images.to_uint8(result.image[None])
    assert (pixels == pixels[..., :1]).all()


def test_a_face_starts_as_it_would_alone(stub):
    def noisy(image, seed):
        return image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed[0]))

    method, faces = stub(noisy), [at(5, 10, 40), at(100, 60, 40)]
    together = restore_photo(scene(), method, 1, faces=faces, seed=3, progress=False)
    alone = restore_photo(scene(), method, 1, faces=faces[1:], seed=3, progress=False)
    other = restore_photo(scene(), method, 1, faces=faces[1:], seed=4, progress=False)
    half = (slice(None), slice(None), slice(90, None))
    assert torch.equal(together.image[half], alone.image[half])
    assert not torch.equal(other.image[half], alone.image[half])


def test_of_faces_that_overlap_the_larger_is_in_front(stub):
    method = stub(textured)
    small, large = at(20, 30, 40), at(40, 20, 64)
    both = restore_photo(scene(), method, 1, faces=[small, large], progress=False).image
    front = restore_photo(scene(), method, 1, faces=[large], progress=False).image
    crops = [align(image, large.points, 64)[0] for image in (both, front)]
    inside = ellipse(64) > 0.99
    assert (crops[0] - crops[1])[:, inside].abs().mean() < 0.005


def test_the_mask_comes_from_the_parsing_network_or_is_an_ellipse(monkeypatch):
    smooth = restore_photo(scene(), "bicubic", 1, faces=[at(30, 20, 64)], progress=False)
    assert smooth.faces[0].mask in ("parsing", "ellipse")
    monkeypatch.setattr(photo, "PARSER", "celeba-hq")
    assert restore_photo(scene(), "bicubic", 1, faces=[at(30, 20, 64)], progress=False).faces[0].mask == "ellipse"


def test_the_mask_follows_the_outline_of_the_face(monkeypatch):
    """Stripes that a method draws are seen where a held-out face and its hair are, and not in the ellipse round it."""
    try:
        faces, labels = data.faces("test", 256), data.parsing("faces-test", 256)
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    points, outside = data.landmarks("faces-test", 256), torch.tensor(photo.OUTSIDE)

    def striped(prior, lowres, operator, *, seed=0):
        return photo_result(lowres + 0.03 * (-1.0) ** torch.arange(128), torch.zeros(1))

    monkeypatch.setitem(METHODS, "striped", Method(striped, resolution=128, scale=1))
    shapes, ovals = [], []
    for i in (0, 15, 30):
        found = Found((0.0, 0.0, 256.0, 256.0), points[i], 1.0, "by hand", "ours")
        result = restore_photo(faces[i], "striped", 1, faces=[found], progress=False)
        assert result.faces[0].mask == "parsing"
        change = torch.nn.functional.avg_pool2d((result.image - faces[i]).abs().mean(0)[None], 9, 1, 4)[0]
        face = ~torch.isin(torch.from_numpy(labels[i]), outside)
        for scores, mask in ((shapes, change > change.quantile(0.95) / 2), (ovals, ellipse(256) > 0.5)):
            scores.append(float((mask & face).sum() / (mask | face).sum()))
    assert np.mean(shapes) > np.mean(ovals) + 0.1, (shapes, ovals)


def test_grain_is_matched_on_request(stub):
    generator = torch.Generator().manual_seed(0)
    noisy = (scene(200, 200) + 0.06 * torch.randn(1, 200, 200, generator=generator)).clamp(0, 1)
    smooth = stub(lambda image, seed: torch.nn.functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False))
    levels = {}
    for grain in (False, True):
        result = restore_photo(noisy, smooth, 1, faces=[at(80, 80, 40)], grain=grain, progress=False)
        levels[grain] = photo.noise_level(result.image[:, 95:108, 93:107])
    assert levels[False] < 0.5 * photo.noise_level(noisy)
    assert levels[True] == pytest.approx(float(photo.noise_level(noisy)), rel=0.35)


# Faces that are left as they are


@pytest.mark.parametrize(
    ("face", "note"),
    [
        (at(60, 40, 20), "its crop is 20 pixels wide, less than 32"),
        (at(-40, 40, 64), "the border cuts it"),
        (at(40, 40, 64, points=torch.tensor([[60.0, 70], [75, 70], [80, 80], [60, 90], [70, 90]])), "turned away"),
    ],
)
@pytest.mark.parametrize("method", ["fpn", "esrgan"])
def test_a_face_that_cannot_be_restored_is_named_and_left(face, note, method):
    result = restore_photo(scene(), method, 1, faces=[face], progress=False)
    assert note in result.faces[0].note
    assert not result.faces[0].restored
    assert torch.equal(result.image, scene())


def test_a_face_that_goes_on_beyond_the_border_is_left():
    """Cut at its eyes: the box that is found ends with the photograph, the face does not."""
    picture = group()[0][:, 110:]
    faces = restore_photo(picture, "fpn", 1, progress=False).faces
    upper = [face for face in faces if face.found.box[1] < 100]
    assert {face.note for face in upper} == {"left as it is: the border cuts it"}
    assert sum(face.restored for face in faces) == 3 == len(faces) - len(upper)


def test_the_threshold_can_be_set():
    (face,) = restore_photo(scene(), "fpn", 1, faces=[at(60, 40, 20)], smallest=10, progress=False).faces
    assert face.restored
    (face,) = restore_photo(scene(), "fpn", 1, faces=[at(60, 40, 40)], smallest=50, progress=False).faces
    assert not face.restored


def test_a_background_is_cut_once_and_as_its_method_says(monkeypatch):
    seen = []

    def enlarge(prior, lowres, operator, *, seed=0, tile=40, overlap=8, progress=True):
        seen.append((*lowres.shape[2:], tile))
        return METHODS["bicubic"](lowres, operator)

    monkeypatch.setitem(METHODS, "stub", Method(enlarge, scale=4, pictures=True))
    picture = scene()[:, :50, :90]
    assert_close(photo.enlarged(picture, "stub", 4), photo.enlarged(picture, "bicubic", 4), atol=1e-5, rtol=0)
    assert {(height, width) for height, width, _ in seen} == {(h, w) for h in (48, 18) for w in (48, 56, 18)}
    assert all(tile >= max(height, width) for height, width, tile in seen)


def test_boxes_stand_for_the_faces_that_are_found_in_them(stub):
    box, quiet = (40.0, 30.0, 40.0, 40.0), {"method": stub(textured), "scale": 1, "progress": False}
    found = detection.find(scene(), boxes=[box])
    result = restore_photo(scene(), boxes=[box], **quiet)
    assert result.faces[0].found.box == box
    assert torch.equal(result.image, restore_photo(scene(), faces=found, **quiet).image)
    assert not torch.equal(result.image, scene())


def test_a_photograph_without_faces_is_enlarged():
    result = restore_photo(scene(), "bicubic", 2, faces=[], progress=False)
    assert_close(result.image, Downsample(2).upsample(scene()[None])[0].clamp(0, 1), atol=1e-5, rtol=0)
    assert result.faces == []


def test_what_is_to_be_doubted_is_told(stub):
    face, large = at(30, 20, 64), at(20, 10, 90)
    coarse, smaller = (
        restore_photo(scene(), stub(textured), 2, faces=[one], progress=False).faces[0].note for one in (face, large)
    )
    assert "drawn at 32×32 and shown at 126×126" in coarse
    assert "made 5.5 times smaller for the method, which invents as much" in smaller
    assert restore_photo(scene(), stub(textured), 1, faces=[at(30, 20, 40)], progress=False).faces[0].note == ""


def test_ctrl_c_keeps_the_faces_that_are_done(stub):
    calls = []

    def interrupted(image, seed):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return textured(image, seed)

    faces = [at(5, 10, 36), at(60, 60, 40), at(110, 10, 44)]
    result = restore_photo(scene(), stub(interrupted), 1, faces=faces, progress=False)
    assert result.interrupted
    assert [face.restored for face in result.faces] == [True, False, False]
    first = restore_photo(scene(), stub(textured), 1, faces=faces, only=[1], progress=False)
    assert torch.equal(result.image, first.image)


@pytest.mark.parametrize("last", ["paste_", "noise_level", "view"])
def test_ctrl_c_within_a_paste_leaves_no_face_half_pasted(stub, monkeypatch, last):
    faces, method, canvases = [at(5, 10, 36), at(60, 60, 40)], stub(textured), []
    enlarged, real = photo.enlarged, getattr(photo, last)

    def seen(*given):
        canvases.append(enlarged(*given))
        return canvases[0]

    def interrupted(*given):
        result = real(*given)
        if (canvases[0] != scene())[:, 60:, 60:].any():  # the second face is there, as a whole or in part
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patched:
        patched.setattr(photo, "enlarged", seen)
        patched.setattr(photo, last, interrupted)
        result = restore_photo(scene(), method, 1, faces=faces, grain=True, progress=False)
    first = restore_photo(scene(), method, 1, faces=faces, grain=True, only=[1], progress=False)
    assert result.interrupted
    assert [face.restored for face in result.faces] == [True, False]
    assert (result.faces[1].note, result.faces[1].mask) == ("", "")
    assert torch.equal(result.image, first.image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fnp"}, "did you mean fpn"),
        ({"scale": 0}, "scale must be a whole number, at least 1; got 0"),
        ({"strength": 1.5}, "strength must be a finite number, at least 0, at most 1; got 1.5"),
        ({"seed": -1}, "seed must be"),
        ({"background": "pulse"}, "pulse restores faces and no backgrounds: choose one of .*bicubic"),
        ({"method": "pulse", "scale": 3}, "faces of 64×64, which cannot be made 3 times smaller"),
        ({"image": torch.full((3, 8, 8), torch.nan)}, "NaN"),
        ({"image": scene()[None]}, r"one float picture \(3, H, W\), got shape \(1, 3, 120, 160\)"),
        ({"faces": [(30, 20, 64, 64)]}, r"faces are what detection\.find gives"),
        ({"faces": [at(30, 20, 1e30)]}, "landmarks are .*, or a place that is NaN or far away"),
        ({"faces": 3}, r"faces are what detection\.find gives"),
        ({"only": 1}, "only is a list of numbers of faces, such as .*; got 1"),
        ({"leave": 2}, "leave is a list of numbers of faces"),
        ({"leave": [0]}, r"leave is a list of numbers of faces, such as .*; got \[0\]"),
        ({"smallest": "small"}, "smallest must be a finite number, at least 0; got 'small'"),
        (
            {"image": torch.zeros(3, 1, 1).expand(3, 5000, 8000)},
            "8000×5000 pixels, enlarged 2 times, are 160 megapixels",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    given = {"image": scene(), "faces": [at(30, 20, 64)], "progress": False} | options
    with pytest.raises(ValueError, match=message):
        restore_photo(**given)


def test_photographs_are_a_list_of_paths(tmp_path):
    for photos in (b"a.png", [1, None], ["~nobody-here/a.png"]):
        with pytest.raises(ValueError, match=r"list of paths|a path is a text or a pathlib\.Path"):
            list(restoration.restore_photos(photos, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_was_written_before_the_disk_was_full_is_listed(tmp_path, monkeypatch, capsys):
    write = images.write

    def full(image, path, **options):
        if path.name == "a-faces.png":
            raise OSError(28, "No space left on device", str(path))
        write(image, path, **options)

    monkeypatch.setattr(images, "write", full)
    write(scene(), tmp_path / "a.png")
    command = ["restore", str(tmp_path / "a.png"), "--method", "bicubic", "--box", "40,30,40,40", "--scale", "1"]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "a.png  1 of 1 faces restored" in told
    assert "a-faces.png could not be written (No space left on device): make room" in told
    assert images.read(tmp_path / "out" / "a.png").shape == scene().shape


# Found in made-up photographs


@cache
def group():
    """A made-up group photograph, 960 × 640: six held-out faces in a landscape; and their quads, left to right."""
    try:
        faces, backdrop = data.faces("test", 256)[:30:5], data.picture_set("bsd100")[3]
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    points = data.landmarks("faces-test", 256)[:30:5]
    picture = images.resize(backdrop[None], (640, 960))[0].clamp(0, 1)
    sizes, turns = (120, 150, 90, 170, 110, 140), (0, 10, -15, 5, 0, 20)
    quads = []
    for i, (face, place, size, turn) in enumerate(zip(faces, points, sizes, turns, strict=True)):
        left, top = 10 + 158 * i, 60 + 330 * (i % 2)
        small = images.resize(face[None], (size, size), "bicubic").clamp(0, 1)
        turned, mask = (
            Image.fromarray(images.to_uint8(x)[0]).rotate(turn, Image.Resampling.BICUBIC)
            for x in (small, torch.stack([ellipse(size)] * 3)[None])
        )
        turned, mask = (torch.from_numpy(np.array(x)).permute(2, 0, 1).float() / 255 for x in (turned, mask))
        region = picture[:, top : top + size, left : left + size]
        region += mask * (turned - region)
        angle, centre = torch.tensor(-turn * torch.pi / 180), (size - 1) / 2
        matrix = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        there = ((place + 0.5) * (size / 256) - 0.5 - centre) @ matrix.T + centre + torch.tensor([left, top])
        quads.append(quad(there))
    return picture, torch.stack(quads)


def off(found, quads):
    """Mean distance of the corners from where they should be, as a share of the face's width: half of its crop's."""
    return torch.stack(
        [
            (quad(face.points) - q).norm(dim=1).mean() / ((q[3] - q[0]).norm() / 2)
            for face, q in zip(found, quads, strict=True)
        ]
    )


def test_every_face_is_found_and_aligned():
    picture, quads = group()
    found = detection.find(picture, points="five")
    assert len(found) == len(quads)
    assert off(found, quads).max() < 0.35
    try:
        recognition.model_files()
    except MetricUnavailable as missing:
        pytest.skip(str(missing))
    found = detection.find(picture)
    assert {(face.detector, face.landmarks) for face in found} == {("yunet", "dlib")}
    assert off(found, quads).max() < 0.03
    assert len(detection.find(picture, detector="dlib")) >= len(quads) - 1


def test_our_landmark_network_aligns_better_than_five_points():
    picture, quads = group()
    five, ours = (detection.find(picture, points=name) for name in ("five", "landmarks"))
    assert {face.landmarks for face in ours} <= {"landmarks", "five"}
    assert off(ours, quads).mean() < 0.06
    assert off(ours, quads).mean() < off(five, quads).mean()


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_photograph_that_lies_on_its_side_is_turned_until_faces_are_found(quarter):
    picture, quads = group()
    upright = detection.find(picture, points="five")
    lying = detection.find(picture.rot90(quarter, (1, 2)), points="five")
    assert len(lying) == len(quads)
    sizes = sorted((quad(face.points)[3] - quad(face.points)[0]).norm().item() for face in upright)
    turned = sorted((quad(face.points)[3] - quad(face.points)[0]).norm().item() for face in lying)
    assert turned == pytest.approx(sizes, rel=0.02)
    crops = [align(picture, face.points, 32)[0] for face in upright]
    for face in lying:  # each is cut out upright
        crop, _ = align(picture.rot90(quarter, (1, 2)), face.points, 32)
        assert min((crop - other).abs().mean() for other in crops) < 0.03


def test_faces_can_be_given_by_hand():
    picture, quads = group()
    boxes = [face.box for face in detection.find(picture, points="five")]
    found = detection.find(picture, boxes=boxes)
    assert {face.detector for face in found} == {"by hand"}
    assert off(found, quads).max() < 0.35


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 0, 10), r"left, top, width and height in pixels, the last two above 0; got \(0, 0, 0, 10\)"),
        ((0, 0, 10), "left, top, width and height"),
        ((500, 0, 10, 10), r"\(500, 0, 10, 10\) lies outside of the photograph, of 160×120"),
        (None, "left, top, width and height.*got None"),
        (("a", "b", "c", "d"), "left, top, width and height"),
    ],
)
def test_a_box_that_is_none_is_refused(box, message):
    with pytest.raises(ValueError, match=message):
        detection.find(scene(), boxes=[box])


def test_what_is_missing_says_what_to_install(monkeypatch):
    def missing():
        raise assets.AssetMissing("registry entry 'yunet' is not on this machine.")

    monkeypatch.setattr(detection, "DETECTORS", {"yunet": missing})
    with pytest.raises(ValueError, match=r"no detector is on this machine: yunet: registry entry 'yunet'.*as boxes"):
        detection.find(scene())
    assert len(detection.find(scene(), boxes=[(30, 30, 40, 40)], points="five")) == 1
    with pytest.raises(ValueError, match="there is no detector 'yunot'"):
        detection.find(scene(), detector="yunot")


def test_without_the_extra_dlib_says_what_to_install_and_our_network_finds_landmarks(monkeypatch):
    def missing():
        raise MetricUnavailable("it needs the extra: pip install 'facesr_lib[photos]'.")

    monkeypatch.setattr(recognition, "model_files", missing)
    with pytest.raises(ValueError, match=r"no detector is on this machine: dlib: .*facesr_lib\[photos\].*--aligned"):
        detection.find(scene(), detector="dlib")
    (found,) = detection.find(scene(), boxes=[(30, 30, 60, 60)])
    assert found.landmarks == "landmarks"


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (40, 3)])
def test_a_picture_of_nearly_nothing_has_no_faces(size):
    assert detection.find(torch.rand(3, *size)) == []


def painted(picture):
    """As if with a brush: flat patches of few colours, on canvas."""
    flat = torch.nn.functional.avg_pool2d(picture[None], 3, 1, 1, count_include_pad=False)[0]
    threads = 0.02 * (-1.0) ** (torch.arange(picture.shape[1])[:, None] // 2 + torch.arange(picture.shape[2]) // 2)
    return ((flat * 16).round() / 16 + threads).clamp(0, 1)


@pytest.mark.parametrize(
    ("method", "scale", "look"),
    [("fpn", 1, torch.clone), ("fpn", 2, torch.clone), ("esrgan", 2, torch.clone), ("fpn", 1, painted)],
)
def test_no_seam_is_seen_round_a_restored_face(method, scale, look, monkeypatch):
    """Mean colour step across the mask's border: at most 2 grey levels, also in a picture that was painted."""
    picture, masks, make = look(group()[0]), [], photo.face_mask
    monkeypatch.setattr(photo, "face_mask", lambda face: masks.append(make(face)) or masks[-1])
    result = restore_photo(picture, method, scale, progress=False)
    plain = photo.enlarged(picture, "bicubic", scale)
    assert sum(face.restored for face in result.faces) >= 5
    changed = result.image - plain
    where = (changed != 0).any(0, keepdim=True).float()
    border = (where - 1 + torch.nn.functional.max_pool2d(1 - where, 7, 1, 3))[0] > 0  # 3 pixels wide
    assert where.mean() > 0.05
    assert 255 * changed[:, border].mean(1).abs().max() < 0.5
    assert 255 * changed[:, border].abs().mean() < 2
    done = sorted((face for face in result.faces if face.restored), key=lambda face: face.size)
    for face, (mask, _) in zip(done, masks, strict=True):
        after, before = (view(one, face.transform, len(mask)) for one in (result.image, plain))
        assert 255 * (after - before)[:, (mask > 0.25) & (mask < 0.75)].mean(1).abs().max() < 2


LARGE = """
import torch
from test_photo import at, scene
from facesr_lib import images
from facesr_lib.benchmark import clock
from facesr_lib.restoration import detection, restore_photo

large = images.resize(scene()[None], (3000, 4000))[0].clamp(0, 1)

def family():
    faces = [at(400, 300, 900), at(2400, 1500, 600), *detection.find(large)]
    restore_photo(large, "fpn", 1, faces=faces, progress=False)

def scan():
    (face,) = restore_photo(large, "fpn", 1, faces=[at(400, 300, 900)], progress=False).faces
    assert face.restored

print(clock.peak_megabytes(family, torch.device("cpu")))
large = scene(100, 160).repeat(1, 50, 50)
print(clock.peak_megabytes(scan, torch.device("cpu")))
"""


def test_a_large_photograph_takes_little_memory():
    """Twelve megapixels, looked through, and a scan of forty: numbers of 144 and 480 MB, and few times as much.

    In a process of its own: the command line lets one keep the memory that it frees.
    """
    done = subprocess.run([sys.executable, "-c", LARGE], cwd=Path(__file__).parent, capture_output=True, check=True)
    family, scan = map(float, done.stdout.split())
    if family != family:
        pytest.skip("this system counts no peaks of memory")
    assert family < 600
    assert scan < 900


def test_everybody_in_the_photograph_of_1927_is_found():
    """Skipped where the photograph is not at hand."""
    try:
        place = assets.path("solvay-1927")
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    found = detection.find(images.read(place), points="five")
    assert len(found) == 29
    assert {face.detector for face in found} == {"yunet"}
    sizes = [side(align(torch.zeros(3, 1066, 2732), face.points, 1)[1], 1066, 2732) for face in found]
    assert 100 < min(sizes) < max(sizes) < 200


# On the command line


@pytest.fixture
def family(tmp_path):
    """A photograph on disk, as a camera writes it: lying on its side, and its EXIF saying so."""
    picture, _ = group()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "1927:10:24 11:00:00"
    lying = Image.fromarray(images.to_uint8(picture[None])[0]).transpose(Image.Transpose.ROTATE_90)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lying.save(tmp_path / "family.jpg", quality=97, exif=exif, icc_profile=profile)
    return tmp_path / "family.jpg"


def test_the_command_restores_a_photograph(family, tmp_path, capsys):
    before, out = family.read_bytes(), tmp_path / "out"
    command = ["restore", str(family), "--out", str(out), "--scale", "1"]
    assert cli.main([*command, "--only", "1,4", "--strength", "0.8", "--set", "tile=64"]) == 0
    said = capsys.readouterr()
    assert "family.jpg  2 of 6 faces restored" in said.out
    assert re.search(r"faces: 100%.* 2/2 ", said.err)
    assert family.read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["family-faces.png", "family.jpg", "family.json"]
    with Image.open(out / "family.jpg") as written:
        assert written.size == (960, 640)
        exif = written.getexif()
        assert exif[ExifTags.Base.Make] == "Camera"
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "1927:10:24 11:00:00"
        assert written.info["icc_profile"]
    told = json.loads((out / "family.json").read_text())
    setting = {name: told[name] for name in ("photo", "method", "scale", "strength", "background", "smallest", "grain")}
    assert list(setting.values()) == ["family.jpg", "esrgan", 1, 0.8, "bicubic", 32, False]
    assert (told["seed"], told["interrupted"]) == (0, False)
    assert told["options"] == {"weights": "esrgan", "tile": 64, "overlap": 16}
    assert [face["number"] for face in told["faces"] if face["restored"]] == [1, 4]
    assert {face["detector"] for face in told["faces"]} == {"yunet"}
    found = [Found(**at(0, 0, 9).__dict__ | {"points": torch.tensor(face["points"])}) for face in told["faces"]]
    sure = {face["landmarks"] for face in told["faces"]} == {"dlib"}
    assert off(found, group()[1]).mean() < (0.02 if sure else 0.1)  # of a JPEG; without, each is within 0.03
    assert images.read(out / "family-faces.png").shape[2] > 2 * 160
    assert cli.main(command) == 1
    assert "exists: choose another folder" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--except", "1,2,3,4,5,9"]) == 2
    assert "there is no face 9" in capsys.readouterr().err


def test_no_face_is_told_with_the_ways_out(tmp_path, capsys):
    clear = Image.fromarray(images.to_uint8(scene()[None])[0])
    clear.putalpha(200)
    clear.save(tmp_path / "sea.png")
    assert cli.main(["restore", str(tmp_path / "sea.png"), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "no face was found" in told
    assert "--box" in told
    assert "    what is transparent is laid on white." in told.splitlines()
    assert "--aligned" in told
    assert not list((tmp_path / "out").iterdir())
    boxed = ["restore", str(tmp_path / "sea.png"), "--out", str(tmp_path / "out"), "--box", "40,30,40,40"]
    assert cli.main([*boxed, "--method", "bicubic"]) == 0


def test_faces_are_found_with_nothing_but_what_is_shipped(tmp_path, monkeypatch):
    """Faces that the shipped prior has drawn, before a plain wall."""
    for name in ("FACESR_DATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    picture = torch.full((3, 200, 400), 0.5)
    for i, face in enumerate(FacePrior.load("faces-64").sample(2, seed=0)[0]):
        picture = paste(picture, face, align(picture, at(20 + 190 * i, 20, 160).points, 1)[1])
    images.write(picture, tmp_path / "two.jpg")
    assert cli.main(["restore", str(tmp_path / "two.jpg"), "--out", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "two.json").read_text())
    assert [face["restored"] for face in told["faces"]] == [True, True]
    assert {face["detector"] for face in told["faces"]} == {"yunet"}


@pytest.mark.parametrize(
    ("name", "mode", "told", "note"),
    [
        ("scan.jpg", "CMYK", "1 of 1 faces restored", None),
        ("opaque.png", "RGBA", "1 of 1 faces restored", None),
        ("clear.png", "LA", "1 of 1 faces restored", "what is transparent is laid on white."),
        ("grey.jpg", "L", "1 of 1 faces restored", None),
        ("moving.gif", "P", "1 of 1 faces restored", "it holds several pictures, and only the first is taken."),
        ("dot.png", "RGB", "lies outside of the photograph, of 1×1", None),
    ],
)
def test_unusual_pictures_are_photographs_too(tmp_path, capsys, name, mode, told, note):
    pixels = Image.fromarray(images.to_uint8(scene()[None])[0])
    pixels = (pixels.resize((1, 1)) if name == "dot.png" else pixels).convert(mode)
    more = {"save_all": True, "append_images": [pixels.transpose(Image.Transpose.ROTATE_180)]} if mode == "P" else {}
    if mode == "LA":
        pixels.putalpha(128)
    pixels.save(tmp_path / name, **more)
    command = ["restore", str(tmp_path / name), "--out", str(tmp_path / "out"), "--box", "40,30,50,50"]
    assert cli.main([*command, "--method", "bicubic", "--scale", "1"]) == 2 * (mode == "RGB")
    said = capsys.readouterr()
    assert told in said.out + said.err
    lines = (said.out + said.err).splitlines()
    assert [line for line in lines if line.startswith("    ")] == ([f"    {note}"] if note else [])
    if mode != "RGB":
        (described,) = (tmp_path / "out").glob("*.json")
        assert json.loads(described.read_text())["notes"] == ([note] if note else [])
    if mode == "L":
        written = images.read(tmp_path / "out" / name)
        assert (written.amax(0) - written.amin(0)).max() < 2 / 255


@pytest.mark.parametrize(
    ("flags", "message", "early"),
    [
        (["--kernel", "box"], "what --kernel says is for faces cut out already: say --aligned", True),
        (["--aligned", "--only", "1", "--box", "1,2,3,4"], "what --only, --box says is for whole photographs", True),
        (["--set", "steps=3"], "there is no option of esrgan 'steps'", True),
        (["--strength", "1.5"], "strength must be a finite number, at least 0, at most 1; got 1.5", True),
        (["--background", "fpn"], "fpn restores faces and no backgrounds: choose one of ", True),
        (["--only", "0"], "only is a list of numbers of faces, such as", True),
        (["--smallest", "-1"], "smallest must be a finite number, at least 0", True),
        (["--scale", "0"], "scale must be a whole number, at least 1; got 0", True),
        (["--detector", "haar"], "there is no detector 'haar'", True),
        (["--box", "1,2,3"], "left, top, width and height in pixels, the last two above 0; got (1.0, 2.0, 3.0)", True),
        (["--box", "90,90,-40,-40"], "the last two above 0; got (90.0, 90.0, -40.0, -40.0)", True),
        (["--box", "1,2,nan,inf"], "left, top, width and height in pixels", True),
        (["--box=-900,5,40,40"], "(-900.0, 5.0, 40.0, 40.0) lies outside of the photograph, and pixels count", True),
        (["--method", "pulse", "--scale", "3"], "faces of 64×64, which cannot be made 3 times smaller", False),
    ],
)
def test_what_is_wrong_with_the_command_is_told_before_anything_is_loaded(
    tmp_path, capsys, monkeypatch, flags, message, early
):
    def no(*_, **__):
        raise AssertionError("this is slow")

    monkeypatch.setattr(images, "read", no)
    monkeypatch.setattr(detection, "find", no)
    if early:
        monkeypatch.setattr(FacePrior, "load", no)
    photos = [str(tmp_path / name) for name in ("sea.png", "land.png")]
    for path in photos:
        images.write(scene(), path)
    assert cli.main(["restore", *photos, "--out", str(tmp_path / "out"), *flags]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_number_of_no_face_is_told_before_anything_is_enlarged(tmp_path, capsys, monkeypatch):
    """One photograph's failure is its own; where no photograph has the face, the command is wrong."""
    where = {"five.png": [at(28 * i, 40, 30) for i in range(5)], "nine.png": [at(15 * i, 40, 36) for i in range(9)]}
    for name, faces in where.items():
        images.write(scene()[:, : 90 + len(faces)], tmp_path / name)
    by_height = {90 + len(faces): faces for faces in where.values()}
    monkeypatch.setattr(detection, "find", lambda image, **_: by_height[image.shape[1]])
    command = ["--out", str(tmp_path / "out"), "--method", "bicubic", "--scale", "1", "--only", "9"]
    five, nine = (str(tmp_path / name) for name in where)
    assert cli.main(["restore", five, nine, *command]) == 1
    said = capsys.readouterr()
    assert "five.png: there is no face 9 in this photograph: they are numbered from 1 to 5." in said.err
    assert "nine.png  1 of 9 faces restored" in said.out
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["nine", "nine", "nine-faces"]

    def no(*_, **__):
        raise AssertionError("this is slow")

    monkeypatch.setattr(photo, "enlarged", no)
    assert cli.main(["restore", five, five, *command]) == 2
    assert [line.partition(": ")[2][:18] for line in capsys.readouterr().err.splitlines()] == 2 * ["there is no face 9"]


def test_the_contact_sheet_shows_faces_that_were_left_and_why():
    """The longer the reason, the more is written; beside a face that was restored it is again."""
    faces = [at(5, 10, 36), at(40, 60, 20), at(110, 10, 44), at(150, 50, 50)]
    result = restore_photo(scene(), "bicubic", 1, faces=faces, only=[1, 2, 4], progress=False)
    notes = [
        "",
        "left as it is: its crop is 20 pixels wide, less than 32",
        "not chosen",
        "left as it is: the border cuts it",
    ]
    assert [face.note for face in result.faces] == notes
    sheet, tile = whole.contact_sheet(result.faces), whole.TILE
    assert sheet.shape == (3, tile, 4 * (2 * tile + 6) - 6)
    beside = []
    for i, face in enumerate(result.faces):
        shown, right = sheet[:, :, i * (2 * tile + 6) :][:, :, : 2 * tile].split(tile, 2)
        before = images.resize(face.before[None], (tile, tile))[0].clamp(0, 1)
        assert before.std() > 0.01
        assert_close(shown[:, 40:], before[:, 40:], atol=3e-3, rtol=0)  # below the number
        assert (shown - before)[:, :20, :20].abs().max() > 0.3
        beside.append(right)
    assert_close(beside[0], images.resize(result.faces[0].after[None], (tile, tile))[0].clamp(0, 1), atol=3e-3, rtol=0)
    crop, unchosen, border = ((1 - right).sum() for right in beside[1:])
    assert 0 < unchosen < border < crop < 0.2 * right.numel()
    assert all((right[:, :, -4:] == 1).all() for right in beside[1:])  # no line is cut off


def test_ctrl_c_between_faces_writes_what_is_done_once(tmp_path, stub):
    calls = []

    def interrupted(image, seed):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return textured(image, seed)

    for name in ("a.png", "b.png"):
        images.write(scene(), tmp_path / name)
    outcomes = []
    photos, boxes = [tmp_path / "a.png", tmp_path / "b.png"], [(20, 20, 40, 40), (90, 30, 50, 50)]
    restored = restoration.restore_photos(
        photos, tmp_path / "out", method=stub(interrupted), scale=1, boxes=boxes, progress=False
    )
    with pytest.raises(KeyboardInterrupt):
        outcomes.extend(iter(restored.__next__, None))
    assert [outcome.output.name for outcome in outcomes] == ["a.png"]
    assert sum(face.restored for face in outcomes[0].faces) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-faces.png", "a.json", "a.png"]
    told = json.loads((tmp_path / "out" / "a.json").read_text())
    assert told["interrupted"] is True
    assert [face["restored"] for face in told["faces"]] == [True, False]


def test_a_photograph_that_cannot_be_read_stops_no_other(tmp_path):
    images.write(scene(), tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    (tmp_path / "album").mkdir()
    photos = [tmp_path / name for name in ("cut.png", "nowhere.png", "album", "good.png")]
    outcomes = list(
        restoration.restore_photos(photos, tmp_path / "out", method="bicubic", boxes=[(40, 30, 40, 40)], progress=False)
    )
    assert [outcome.output is not None for outcome in outcomes] == [False, False, False, True]
    assert "cut short" in outcomes[0].message
    assert "album is a folder: name the pictures that lie in it, such as" in outcomes[2].message
