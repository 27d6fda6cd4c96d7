"""What a chapter opens with: the prior and the faces that this machine has, and a word where they are others."""

import pytest
import torch
from torch.testing import assert_close

from facesr_lib import assets, chapter, images
from facesr_lib.networks import stylegan2
from facesr_lib.networks.stylegan2 import Generator
from facesr_lib.prior import FacePrior


@pytest.fixture(scope="module")
def prior():
    return FacePrior.load("faces-64")


@pytest.fixture
def large():
    torch.manual_seed(0)
    return FacePrior("large", Generator(4, 4, 512, channel_base=512, channel_max=4, num_mapping_layers=1), None)


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Leave this machine nothing but what is shipped."""
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_without_face_data_the_prior_draws_its_own(prior, bare):
    faces, origin = chapter.faces(prior, 3)
    assert origin == "samples of the prior"
    assert faces.shape == (3, 3, 64, 64)


def test_faces_are_those_that_no_training_saw(prior):
    try:
        assets.path("faces-test")
    except assets.AssetMissing as error:
        pytest.skip(str(error))
    faces, origin = chapter.faces(prior, 2)
    assert origin == "held-out faces"
    kept = images.read(assets.path("faces-test") / "1263.jpg")[None]
    assert_close(faces[:1], torch.nn.functional.avg_pool2d(kept, 4), atol=0.51 / 255, rtol=0)
    assert chapter.faces(prior, 51)[1] == "samples of the prior"


def test_a_prior_larger_than_the_face_data_draws_its_own(large, bare):
    assert chapter.faces(large, 1)[1] == "samples of the prior"


def test_a_prior_larger_than_the_face_data_is_tried_on_the_papers_faces(large, bare):
    (bare / "celeba-hq").mkdir()
    for i in range(50):
        images.write(torch.full((1, 3, 8, 8), i / 255), bare / "celeba-hq" / f"{i}.png")
    faces, origin = chapter.faces(large, 3)
    assert origin == "CelebA-HQ"
    assert faces.shape == (3, 3, 512, 512)
    assert_close(faces.mean((1, 2, 3)) * 255, torch.arange(3.0))
    with pytest.raises(ValueError, match=r"CelebA-HQ on this machine .* at most 50; got 51"):
        chapter.faces(large, 51)


def test_the_paper_profile_runs_on_what_is_there(bare, capsys):
    assert chapter.prior("paper", "cpu").name == "faces-64"
    assert "facesr assets fetch stylegan2-ffhq-1024" in capsys.readouterr().out


def test_the_paper_profile_needs_a_flow_only_where_the_chapter_does(prior, bare, monkeypatch, capsys):
    (bare / "models").mkdir()
    beside = bare / "models" / "stylegan2-ffhq-1024.safetensors"
    beside.with_suffix(".pkl").write_bytes(b"whatever the official file holds")
    monkeypatch.setattr(stylegan2, "load", lambda path: (prior.generator, prior.discriminator))
    assert chapter.prior("paper", "cpu").name == "stylegan2-ffhq-1024"
    assert capsys.readouterr().out == ""
    assert chapter.prior("paper", "cpu", with_flow=True).name == "faces-64"
    assert f"put it at {beside}" in capsys.readouterr().out
    prior.save(beside)
    assert chapter.prior("paper", "cpu", with_flow=True).name == "stylegan2-ffhq-1024"


def test_an_unknown_profile_is_named():
    with pytest.raises(ValueError, match=r"no profile 'papers': did you mean paper\?"):
        chapter.prior("papers")


def sentence(here: chapter.Chapter, *conditions: object, **options: object) -> str | None:
    shown = here.finding("It gains {gain:.1f} dB.", *conditions, gain=torch.tensor(1.25), **options)
    return None if shown is None else shown.data


@pytest.mark.parametrize(
    ("profile", "seed", "origin"),
    [("smoke", 0, "held-out faces"), ("read", 0, "samples of the prior"), ("read", 1, "held-out faces")],
)
def test_a_finding_is_shown_only_where_it_holds(profile, seed, origin):
    here = chapter.Chapter(profile, seed, FacePrior.load("faces-64"), torch.zeros(1, 3, 64, 64), origin)
    assert sentence(here, torch.tensor(True), 2 > 1) == "It gains 1.2 dB."
    assert sentence(here, True, torch.tensor(False)) is None
    with pytest.raises(AssertionError, match=r"no longer true: It gains 1\.2 dB\."):
        sentence(here, False, always=True)


def test_a_finding_that_no_longer_holds_stops_the_book():
    here = chapter.Chapter("read", 0, FacePrior.load("faces-64"), torch.zeros(1, 3, 64, 64), chapter.HELD_OUT)
    with pytest.raises(AssertionError, match="It gains"):
        sentence(here, True, False)


def test_a_chapter_says_which_faces_it_shows(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FACESR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = chapter.open("smoke", "cpu", count=2)
    said = capsys.readouterr().out
    assert here.origin == "samples of the prior"
    assert "2 samples of the prior; the prior draws 64×64 pixels" in said
    assert "HTML" in said  # the banner, as a program without a page shows it
    assert "held-out faces are not on this machine" in " ".join(chapter.BANNER.split())
