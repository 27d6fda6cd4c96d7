"""Networks' files: what they are is told by their contents, whatever their names."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from facesr_lib.networks import checkpoints, rrdb, stylegan2
from facesr_lib.prior import FacePrior

ORACLE = Path(__file__).parent / "oracles" / "stylegan2.safetensors"
LOADERS = [stylegan2.load, rrdb.load]
TENSORFLOW = b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81}X\x04\x00\x00\x00nameX\x01\x00\x00\x00Gsb."


def _zip() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("stylegan2/readme.txt", "hello")
    return file.getvalue()


def _tar() -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return file.getvalue()


WEB_PAGE, ARCHIVE = "is a web page.*in a browser", "is an archive, not the file in it: unpack it"
FOREIGN = {
    "TensorFlow": (TENSORFLOW, "is a TensorFlow-era pickle.*take the .pkl of the PyTorch release"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "is a Git LFS pointer.*lfs pull"),
    "HTML": (b"\n<!DOCTYPE html><html></html>", WEB_PAGE),
    "HTML with no more than a head": (b"<head><title>Log in</title></head>", WEB_PAGE),
    "HTML after a byte order mark": ("\ufeff<html></html>".encode(), WEB_PAGE),
    "HTML in UTF-16": ("<html></html>".encode("utf-16"), WEB_PAGE),
    "HTML after a comment": (b"<!-- saved from url=(0022) --><html></html>", WEB_PAGE),
    "JSON": (b'{"error": "Invalid username or password."}', "is a text in JSON.*: give the file with the weights"),
    "gzip": (gzip.compress(b"weights"), ARCHIVE),
    "tar": (_tar(), ARCHIVE),
    "HDF5": (b"\x89HDF\r\n\x1a\n\x00\x00", "is an HDF5 file.*PyTorch"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x03", "is an ONNX graph"),
    "zip": (_zip(), "is a zip archive without a checkpoint in it: unpack it"),
    "a list": (b"]\x94.", "holds no network: expected a module at 'the top', got a list"),
}


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_network_is_recognised_in_one_sentence(tmp_path, kind, suffix, load):
    contents, message = FOREIGN[kind]
    if (kind, suffix) == ("a list", ".safetensors"):
        contents = b"\x80\x04" + contents  # else nothing says that it is a pickle
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith(".")
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("load", LOADERS)
def test_addresses_folders_and_what_is_not_there_are_told(tmp_path, load):
    with pytest.raises(ValueError, match="is an address, not a file: download it"):
        load("https://example.org/a.pth")
    with pytest.raises(ValueError, match="is a folder: give the checkpoint in it"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no network at"):
        load(tmp_path / "nothing.pt")


def test_a_zip_whose_list_of_files_is_damaged_is_called_so(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "x.pt")
    raw = bytearray((tmp_path / "x.pt").read_bytes())
    raw[raw.index(b"PK\x01\x02")] = 0
    (tmp_path / "x.pt").write_bytes(raw)
    with pytest.raises(ValueError, match=r"x\.pt is damaged"):
        rrdb.load(tmp_path / "x.pt")


def test_safetensors_and_torchs_files_may_bear_each_others_names(tmp_path):
    network = rrdb.RRDBNet(1, 4, 2)
    save_file(network.state_dict(), tmp_path / "a.pth")
    torch.save(network.state_dict(), tmp_path / "b.safetensors")
    torch.save(network.state_dict(), tmp_path / "c.safetensors", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "b.safetensors", "c.safetensors"):
        assert torch.equal(rrdb.load(tmp_path / name).conv_first.weight, network.conv_first.weight)


def test_a_priors_statistics_are_read_whatever_its_name(tmp_path):
    mean, std = torch.arange(64.0), torch.ones(64)
    held = load_file(ORACLE) | {"pulse.mean": mean, "pulse.std": std}
    save_file({name: value for name, value in held.items() if "." in name}, tmp_path / "prior.pt")
    assert torch.equal(FacePrior.load(tmp_path / "prior.pt").pulse_gaussian.mean, mean)
    generator = {name[2:]: value for name, value in held.items() if name.startswith("G.")}
    torch.save(generator, tmp_path / "torch.safetensors")
    assert FacePrior.load(tmp_path / "torch.safetensors").flow is None


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1j])
@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_weights_that_are_no_finite_real_number_are_refused(tmp_path, name, value):
    state = rrdb.RRDBNet(1, 4, 2).state_dict()
    state["conv_first.bias"] = state["conv_first.bias"] * value
    save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save(state, tmp_path / name)
    with pytest.raises(ValueError, match=r"cannot be used: conv_first\.bias should hold real numbers.*give another"):
        rrdb.load(tmp_path / name)


@pytest.mark.filterwarnings("error")
def test_only_what_is_wanted_is_asked_of(tmp_path):
    """Complex numbers and NaN elsewhere in the file disturb nobody."""
    network = rrdb.RRDBNet(1, 4, 2)
    contents = {"params_ema": network.state_dict(), "spectrum": torch.tensor([1j]), "loss": torch.tensor(torch.nan)}
    torch.save(contents, tmp_path / "x.pth")
    assert torch.equal(rrdb.load(tmp_path / "x.pth").conv_last.weight, network.conv_last.weight)
    assert checkpoints.read(tmp_path / "x.pth")[0]["spectrum"].is_complex()
