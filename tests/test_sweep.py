"""Rows measured side by side: in processes and on a Ray cluster the same records, whatever becomes of a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from facesr_lib.evaluation import measures, records, run, sweep
from facesr_lib.evaluation.papers import TABLES
from facesr_lib.evaluation.tables import Row
from facesr_lib.prior import FacePrior

ROWS = (Row("bicubic", "bicubic"), Row("PULSE", "pulse", {"steps": 3}), Row("bilinear", "bilinear"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same rows, one after the other in this process, with one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("alone")))
        patch.setitem(TABLES, "dse-1", replace(TABLES["dse-1"], rows=ROWS))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield measured()
        torch.set_num_threads(threads)


@pytest.fixture
def fresh(monkeypatch, tmp_path, alone):
    """A cache of its own, which workers inherit, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def measured(**options):
    return run.run("dse-1", FacePrior.load("faces-64"), faces=4, batch=2, progress=False, **options).records


def lost_once(unit, marker):
    """Measure a row; the first time, the worker is killed while it does."""
    if unit.row.label == "PULSE" and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run.measure(unit)


def test_processes_give_the_same_records_to_the_byte(fresh, alone):
    assert measured(map=sweep.on_processes(2)) == alone


def test_a_lost_process_is_told_and_what_was_done_is_kept(fresh, alone):
    def lossy(_, units):
        return sweep.on_processes(1)(partial(lost_once, marker=fresh / "killed"), units)

    with pytest.raises(ChildProcessError, match=r"a process was killed.*run the same command again"):
        measured(map=lossy)
    kept = {path: path.stat().st_mtime_ns for path in fresh.rglob("*.csv")}
    assert kept  # the rows before it
    assert measured(map=lossy) == alone
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import test_sweep
test_sweep.two_rows()
"""


def two_rows():
    todo = run.units("dse-1", FacePrior.load("faces-64"), faces=1, progress=False)[:2]
    list(sweep.on_processes(2)(one_quick_one_slow, todo))


def one_quick_one_slow(unit):
    here = Path(os.environ["XDG_CACHE_HOME"])
    if unit.row.label == "bilinear":
        (here / "quick").touch()
        return []
    while not (here / "quick").exists():
        time.sleep(0.1)
    time.sleep(1)  # the other has nothing left to do
    (here / "slow").touch()
    time.sleep(60)
    return []


def test_ctrl_c_ends_processes_at_once_and_quietly(tmp_path, monkeypatch, interruptible):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    rows = interruptible([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "slow").exists():
        assert rows.poll() is None
        time.sleep(0.1)
    os.killpg(rows.pid, signal.SIGINT)  # as a terminal does, to every process
    _, errors = rows.communicate(timeout=30)
    assert errors.count("Traceback") == 1  # this process's own, at its end
    assert errors.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("jobs", [0, -2])
def test_no_processes_are_refused(jobs):
    with pytest.raises(ValueError, match=f"at least 1; got {jobs}"):
        sweep.on_processes(jobs)


def test_timed_rows_never_run_side_by_side(fresh, monkeypatch):
    timed = replace(TABLES["dse-1"], measure=measures.seconds, rows=(ROWS[0], ROWS[2]), scales={8: 8})
    monkeypatch.setitem(TABLES, "dse-1", timed)
    process = []

    def note(_, units):
        found = list(sweep.on_processes(2)(who, units))
        process.extend(found)
        return [[] for _ in units]

    measured(map=note)
    assert len(set(process)) == 1


def who(unit):
    return os.getpid()


def test_a_table_that_is_started_twice_at_once_is_written_once_and_whole(tmp_path, monkeypatch):
    """The one that ends later is told so, and every row is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    flags = ["--faces", "1", "--effort", "0.002", "--jobs", "1", "--out", str(tmp_path / "dse-2.csv")]
    command = [sys.executable, "-m", "facesr_lib", "table", "dse-2", *flags]
    two = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = {one.returncode: error for one in two for _, error in [one.communicate()]}
    assert sorted(told) == [0, 1], told
    assert "dse-2.csv exists: give another name" in told[1]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "facesr" / "results").iterdir()}
    assert len(kept) == 2 * 6  # of each row at each scale the pictures, and what was measured of them
    found = run.run("dse-2", FacePrior.load("faces-64"), faces=1, effort=0.002, progress=False)
    assert records.read(tmp_path / "dse-2.csv").records == found.records
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "facesr" / "results").iterdir()} == kept
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("ray", reason="Ray (the extra cluster) is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:  # its workers find the library and this file
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cluster")))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        two, one = Cluster(), {"num_cpus": 1, "object_store_memory": 10**8}
        for _ in range(2):
            patiently(lambda: two.add_node(**one))
        yield two.address
        two.shutdown()


def patiently(start):
    """Start a node; Ray gives a busy machine thirty seconds for it, and no more."""
    for attempt in range(4):
        try:
            return start()
        except Exception:
            if attempt == 3:
                raise


def test_a_cluster_of_two_machines_gives_the_same_records_though_a_worker_is_killed(cluster, fresh, alone):
    def lossy(_, units):
        return sweep.on_ray(cluster)(partial(lost_once, marker=fresh / "killed"), units)

    assert measured(map=lossy) == alone
    assert (fresh / "killed").exists()


def test_an_address_where_something_else_answers_is_told(fresh):
    pytest.importorskip("ray", reason="Ray (the extra cluster) is not installed")
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        try:
            with pytest.raises(ConnectionError, match=rf"no Ray cluster answers at '{address}'.*give host:port"):
                measured(map=sweep.on_ray(address))
        finally:
            server.shutdown()


def test_an_address_that_does_not_answer_is_told(fresh):
    pytest.importorskip("ray", reason="Ray (the extra cluster) is not installed")
    for address in ("127.0.0.1:9", "nowhere"):
        with pytest.raises(ConnectionError, match=rf"no Ray cluster answers at '{address}'.*leave the address out"):
            measured(map=sweep.on_ray(address))
