"""The rows of a table side by side: in processes of this machine, or on a Ray cluster; the same records to the byte.

A worker takes one row at a time and computes with one thread: sums of another order would have other last digits.
Rows that are finished are kept (`run.measure`), so a sweep that ends early goes on where it stopped.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import active_children, get_context
from typing import Any

import torch

from facesr_lib import devices
from facesr_lib.evaluation import measures
from facesr_lib.evaluation.records import Record
from facesr_lib.evaluation.run import Unit
from facesr_lib.messages import check

Measure = Callable[[Unit], list[Record]]


def on_processes(jobs: int | None = None) -> Callable[[Measure, list[Unit]], Iterator[list[Record]]]:
    """Return a map for `run.run` over processes of this machine, ``jobs`` at once; default: one for each core.

    Rows that are timed, or on a GPU, run one after the other. The map raises a ``ChildProcessError`` if a process
    was killed, such as by a machine that ran out of memory.
    """
    jobs = devices.cores() if jobs is None else jobs
    check("jobs", jobs, int, at_least=1)

    def spread(measure: Measure, units: list[Unit]) -> Iterator[list[Record]]:
        alone = any(unit.measure is measures.seconds or unit.device != "cpu" for unit in units)
        deaf: Any = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}  # Ctrl-C reaches all
        others = set(active_children())
        pool = ProcessPoolExecutor(1 if alone else jobs, get_context("spawn"), **deaf)
        try:
            yield from pool.map(partial(_measured, measure), units)
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a process was killed, perhaps for want of memory; what it had finished is kept: run the same command "
                "again, with a smaller --batch or fewer --jobs."
            ) from error
        except KeyboardInterrupt:
            for process in set(active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    return spread


def on_ray(address: str | None = None) -> Callable[[Measure, list[Unit]], Iterator[list[Record]]]:
    """Return a map for `run.run` over a Ray cluster; a row whose worker or machine is lost is measured on another.

    ``address`` is "host:port" of a cluster, each of whose machines has this version of the library, the checkpoint and
    the faces; default: a cluster of this machine alone, made for the purpose. A ``ModuleNotFoundError`` says that Ray
    is not installed; from the map a ``ConnectionError`` that no cluster answers, a ``ChildProcessError`` that a
    row was lost several times.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Ray is not installed: pip install 'facesr_lib[cluster]'.") from error

    def spread(measure: Measure, units: list[Unit]) -> Iterator[list[Record]]:
        if address:
            _reach(address)
        ray.init(address, include_dashboard=False if address is None else None, log_to_driver=False)
        try:
            remote: Any = ray.remote(num_cpus=1, max_retries=3)(_measured)
            waiting = [remote.remote(measure, unit) for unit in units]
            yield from map(ray.get, waiting)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
            raise ChildProcessError(f"a row was lost with its worker, four times: {error}") from error
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        finally:
            ray.shutdown()

    return spread


def _measured(measure: Measure, unit: Unit) -> list[Record]:
    torch.set_num_threads(1)
    return measure(replace(unit, progress=False))


SETTINGS = b"\4"
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)
"""How HTTP/2, which Ray speaks, begins (RFC 9113, 3.4); the first frame of either side is of the type "settings"."""


def _reach(address: str) -> None:
    """Ask whether anybody is there who could be Ray, which itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as there:
            if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):  # else nothing is said in the clear
                there.sendall(HELLO)
                if there.makefile("rb").read(4)[3:] != SETTINGS:
                    raise ConnectionError("something else is there")
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address!r} ({error}): start one there by `ray start --head`, give host:port, "
            "or leave the address out to use this machine."
        ) from error
