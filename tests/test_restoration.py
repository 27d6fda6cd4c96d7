"""Photos in, photos out, by the library and by the command line."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from facesr_lib import cli, data, images, restoration, search
from facesr_lib.degrade import Downsample
from facesr_lib.networks.stylegan2 import Generator
from facesr_lib.prior import FacePrior


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
    assert "5×4" in outcomes[1].message
    assert "nowhere.png" in outcomes[3].message
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["2.png"]


def test_photos_of_one_name_do_not_overwrite_each_other(prior, photos, tmp_path):
    twin = tmp_path / "other" / "0.jpg"
    twin.parent.mkdir()
    images.write(images.read(photos[0]), twin)
    outcomes = run(prior, [photos[0], twin], tmp_path / "out", batch=1)
    assert [outcome.output.name for outcome in outcomes] == ["0.png", "0-2.png"]


def test_a_result_never_replaces_a_photo(prior, photos):
    before = [photo.read_bytes() for photo in photos]
    outcomes = run(prior, photos, photos[0].parent)
    assert all("choose another folder" in outcome.message and outcome.output is None for outcome in outcomes)
    assert [photo.read_bytes() for photo in photos] == before


def test_what_every_search_takes_is_handed_on(prior, photos, tmp_path):
    seen = []
    run(prior, photos, tmp_path / "out", record_every=2, callback=lambda step, *_: seen.append(step))
    assert seen == [0, 1, 2, 3]


def test_ctrl_c_keeps_what_was_found_and_is_passed_on(prior, photos, tmp_path, monkeypatch, capsys, checkpoint):
    def callback(step, image, loss):
        raise KeyboardInterrupt

    pulse = partial(search.pulse, callback=callback)
    monkeypatch.setattr(search, "method", lambda name: pulse)
    found = restoration.restore(photos, tmp_path / "out", prior, Downsample(4), batch=2, progress=False)
    assert [next(found).output.name for _ in range(2)] == ["0.png", "1.png"]
    with pytest.raises(KeyboardInterrupt):
        next(found)
    command = ["restore", *map(str, photos), "--prior", checkpoint, "--scale", "4", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 130
    assert "interrupted" in capsys.readouterr().err


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


@pytest.fixture
def checkpoint(prior, tmp_path):
    prior.save(tmp_path / "tiny.safetensors")
    return str(tmp_path / "tiny.safetensors")


def test_the_command_restores_and_reports(photos, checkpoint, tmp_path, capsys):
    command = ["restore", *map(str, photos), "--prior", checkpoint, "--scale", "4", "--steps", "3"]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("→") == 3
    photos[1].write_text("no picture")
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert out.count("→") == 2
    assert "1.png" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "puls"], "did you mean pulse"),
        (["--prior", "faces-46"], "faces-64"),
        (["--prior", "nowhere.pkl"], "nowhere.pkl"),
        (["--kernel", "cubic"], "did you mean bicubic"),
        (["--scale", "7"], "scale"),
        (["--steps", "0"], "at least 1"),
        (["--scale", "2"], "--degrade"),
        (["--device", "gpu"], "try 'cpu'"),
        (["--out", __file__], "name a folder"),
    ],
)
def test_the_command_explains_what_it_cannot_do(photos, checkpoint, tmp_path, capsys, arguments, message):
    defaults = {"--prior": checkpoint, "--scale": "4", "--steps": "3", "--out": str(tmp_path / "out")}
    defaults |= dict([arguments])
    assert cli.main(["restore", str(photos[0]), *(word for pair in defaults.items() for word in pair)]) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_assets_are_listed_and_verified(capsys):
    assert cli.main(["assets", "list"]) == 0
    assert "stylegan2-ffhq-1024" in capsys.readouterr().out
    assert cli.main(["assets", "verify", "faces-64"]) == 0
    assert "faces-64: ok" in capsys.readouterr().out
    assert cli.main(["assets", "verify"]) == 0
    assert "faces-64: ok" in (out := capsys.readouterr().out)
    assert "missing" not in out
    assert cli.main(["assets", "verify", "faces-46"]) == 1
    assert "faces-64" in capsys.readouterr().err


def test_importing_the_library_loads_nothing_heavy():
    heavy = ["lpips", "kornia", "torchmetrics", "torchvision", "matplotlib", "anywidget", "nflows", "pooch"]
    program = (
        "import sys; from facesr_lib import assets, data, degrade, images, losses, metrics, prior, search; "
        f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
