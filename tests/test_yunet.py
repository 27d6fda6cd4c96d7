"""The face detector against the official one, and what a file may hold."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facesr_lib import assets
from facesr_lib.networks import yunet


@pytest.fixture(scope="module")
def network():
    return yunet.load(assets.checked("yunet"))


@pytest.fixture(scope="module")
def oracle():
    path = Path(os.environ.get("FACESR_ORACLES", ""), "yunet_check.safetensors")
    if not path.is_file():
        pytest.skip(f"no oracle at {path}: set FACESR_ORACLES")
    return load_file(path)


def test_heads_and_detections_are_the_official_ones(network, oracle):
    image = oracle["image_rgb"].permute(2, 0, 1).float() / 255
    assert sum(parameter.numel() for parameter in network.parameters()) == 75_856
    for name, maps in network(image[None]).items():
        for stride, found in zip(yunet.STRIDES, maps, strict=True):
            assert_close(found, oracle[f"{name}_{stride}"], atol=1e-4, rtol=1e-4)
    assert_close(network.detect(image), oracle["detections"], atol=1e-3, rtol=1e-5)


def test_a_photograph_need_not_be_a_multiple_of_32(network, oracle):
    image = oracle["image_rgb"].permute(2, 0, 1).float() / 255
    cut = network.detect(image[:, :, :-7])
    assert_close(cut[:, :4], oracle["detections"][:, :4], atol=2, rtol=0)
    assert len(network.detect(torch.rand(3, 1, 1))) == 0


def test_a_higher_threshold_finds_fewer(network, oracle):
    image = oracle["image_rgb"].permute(2, 0, 1).float() / 255
    scores = network.detect(image)[:, 14]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert len(network.detect(image, score=float(scores[1]))) == 2


def test_what_is_no_detector_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no network at"):
        yunet.load(tmp_path / "nowhere.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        yunet.load(tmp_path / "cut.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="of another architecture or width than this YuNet"):
        yunet.load(tmp_path / "other.safetensors")
