"""How are units of work computed on the workers of a Ray cluster?

    with ray_workers("ray") as executor:             workers on this machine, one per core
    with ray_workers("ray:10.0.0.1:6379") as executor:     joins a running cluster of which this machine is a node

Each unit is one Ray task. The work travels as a pickle in memory, Subjects in it as handles (`engine/handles.py`) and
images as bytes; the result comes back packed. A worker that dies costs its unit, which is tried again; an exception of
the work is raised here as it was raised there. Ray is imported here only, reports no usage, starts no dashboard, and a
cluster that is started here listens on the loopback interface only and is gone afterwards.
"""

import io
import logging
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from glasshouse.data.images import StoredImage
from glasshouse.data.network import online
from glasshouse.engine.handles import Handle
from glasshouse.engine.provenance import code
from glasshouse.model.subject import Subject
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput

S = TypeVar("S")
TRIES_AGAIN = 3
"""How often a unit is tried again whose worker died."""
PATIENCE = 10
"""Seconds in which a cluster must answer."""
LONGEST_FOLDER = 35
"""Characters of a temporary folder beneath which Ray's sockets still have paths short enough for the system."""


def address_of(on: str) -> str:
    """The address behind `ray:`, empty for workers on this machine; what is neither is refused."""
    kind, _, address = on.partition(":")
    if kind != "ray" or (address and not address.rpartition(":")[2].isdigit()) or on.endswith(":"):
        raise BadInput(f"--on {on}: write ray, or ray:HOST:PORT of a running cluster")
    return address


@contextmanager
def ray_workers(on: str, workers: int | None = None) -> Iterator["RayExecutor"]:
    """Workers on this machine ("ray"), as many as `workers` says or one per core, or those of a running cluster
    ("ray:HOST:PORT"). Workers that were started here end with the block."""
    address = address_of(on)
    threads = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1
    terminated = signal.getsignal(signal.SIGTERM)
    scratch = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        with online():
            ray, owned = (
                _joined(address) if address else _started(max(1, workers or _cores() // threads), threads, scratch)
            )
        signal.signal(signal.SIGTERM, terminated)  # Ray puts a handler of its own in place
        try:
            yield RayExecutor(ray, threads, scratch / "models")
        finally:
            if owned:
                ray.shutdown()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class RayExecutor:
    """Computes units as tasks of a Ray cluster that this process has joined."""

    ray: Any
    threads: int
    """Threads of each worker, and cores it takes."""
    exports: Path
    """Where models are exported that exist in memory only."""

    def results(
        self, work: Callable[..., S], units: Sequence[tuple[int, Any]], result: type[S], handles: Mapping[str, Any]
    ) -> Iterator[tuple[int, S]]:
        """Results in the order in which they finish, each with the number of its unit."""
        if not units:
            return
        shipment, on_gpu = self._pickled((work, dict(handles)))
        stored = self.ray.put(shipment)
        task = self.ray.remote(_computed).options(
            num_cpus=self.threads, num_gpus=int(on_gpu), max_retries=TRIES_AGAIN, retry_exceptions=False
        )
        # Twice as many as there are cores: no worker waits for its next unit, and no million units wait in memory.
        most = 2 * max(1, int(self.ray.cluster_resources().get("CPU", 1)) // self.threads)
        waiting, running = iter(units), dict[Any, int]()
        try:
            while True:
                for i, unit in islice(waiting, most - len(running)):
                    running[task.remote(_software(), self.threads, stored, self._pickled(unit)[0])] = i
                if not running:
                    return
                ended, _ = self.ray.wait(list(running), num_returns=1)
                i = running.pop(ended[0])
                yield i, unpack(result, *self._result(ended[0], i))
        finally:
            for reference in running:
                self.ray.cancel(reference)

    def _result(self, reference: Any, i: int) -> tuple[Any, Mapping[str, Tensor]]:
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayTaskError as problem:
            _raise_as_there(problem)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as problem:
            raise BadInput(
                f"unit {i}: its worker died {TRIES_AGAIN + 1} times ({_first_line(problem)}); the system kills a "
                "worker that runs out of memory: use fewer workers, fewer examples at once or a smaller --dtype"
            ) from problem
        except errors.RayError as problem:
            raise BadInput(
                f"unit {i}: Ray failed ({_first_line(problem)}); finished units are kept, run it again"
            ) from problem

    def _pickled(self, value: Any) -> tuple[bytes, bool]:
        """The value as it travels, and whether a Subject in it is on a GPU."""
        subjects: list[Subject] = []

        def by_identity(part: Any) -> Any:
            match part:
                case Subject():
                    subjects.append(part)
                    return Handle.open, (Handle.of(part, self.exports),)
                case nn.Module():
                    raise TypeError(
                        f"work for a worker holds a {type(part).__name__}: pass its Subject in `handles` and "
                        "take modules from it inside the work"
                    )
                case StoredImage():
                    return StoredImage, (part.path, part.read())
                case _:
                    return NotImplemented

        buffer = io.BytesIO()
        _pickler(self.ray, by_identity)(buffer).dump(value)
        return buffer.getvalue(), any(subject.model.device.type == "cuda" for subject in subjects)


def _pickler(ray: Any, special: Callable[[Any], Any]) -> Any:
    """Ray's pickler, which knows functions that no module holds, with a way of its own for some values."""

    class Pickler(ray.cloudpickle.CloudPickler):
        def reducer_override(self, obj: Any) -> Any:
            own = special(obj)
            return super().reducer_override(obj) if own is NotImplemented else own

    return Pickler


def _computed(sender: Mapping[str, str], threads: int, shipment: bytes, unit: bytes) -> tuple[Any, dict[str, Tensor]]:
    """On a worker: the packed result of one unit."""
    for name, wanted in sender.items():
        installed = _software()[name]
        if installed != wanted:
            raise BadInput(
                f"worker on {platform.node()}: {name} is {installed} there and {wanted} here; install the same on both"
            )
    torch.set_num_threads(threads)
    work, handles = _unpickled(shipment)
    return pack(work(_imported().cloudpickle.loads(unit), **handles))


@lru_cache(maxsize=1)
def _unpickled(shipment: bytes) -> Any:
    """The work and its handles, read once for all units of a call, as in the process that sent them."""
    return _imported().cloudpickle.loads(shipment)


@cache
def _software() -> dict[str, str]:
    """What must be the same on a worker for the same result."""
    packages = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return {"python": platform.python_version(), **packages, "glasshouse's code": code()[:12]}


def _raise_as_there(problem: Any) -> NoReturn:
    """The exception of the work itself; where it was raised stays with it as a note."""
    cause = problem.cause
    if not isinstance(cause, BadInput):
        cause.add_note(f"On a worker:\n{_COLOUR.sub('', str(problem))}")
    raise cause from None


_COLOUR = re.compile(r"\x1b\[\d*m")


def _first_line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""No telemetry, and no warning about a default of Ray's that will change."""
_QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def _joined(address: str) -> tuple[Any, bool]:
    """Ray, and whether this joined the cluster at an address or the process had joined one before."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()  # Ray itself would try for minutes
        with _environment(_SETTINGS):
            ray = _imported()
            owned = not ray.is_initialized()
            if owned:
                ray.init(address=address, **_QUIET)
            return ray, owned
    except (OSError, OverflowError, RuntimeError, ValueError) as problem:
        raise BadInput(
            f"--on ray:{address}: no cluster could be joined there ({_first_line(problem)}); make this machine a "
            f"node of it: ray start --address={address}"
        ) from None


def _started(workers: int, threads: int, scratch: Path) -> tuple[Any, bool]:
    """Ray, and whether this started it or the process had it running before."""
    modules = os.pathsep.join(os.path.abspath(place) for place in sys.path)  # workers import what this process can
    with _environment({**_SETTINGS, **_secret(), "PYTHONPATH": modules}):
        ray = _imported()
        if ray.is_initialized():
            return ray, False
        short = {"_temp_dir": str(scratch)} if len(str(scratch)) <= LONGEST_FOLDER else {}
        with _loopback_only():
            ray.init(address="local", num_cpus=workers * threads, include_dashboard=False, **short, **_QUIET)
        return ray, True


@cache
def _secret() -> dict[str, str]:
    """A token that only this process and its workers know; the same for the life of the process, because Ray reads it
    once. Whether Ray asks for tokens it decides when it is imported, and newer ones always do for such a cluster."""
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_MODE" in os.environ:
        return {}
    mode = {} if sys.modules.get("ray") else {"RAY_AUTH_MODE": "token"}
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32), **mode}


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Inside, Ray takes this machine for 127.0.0.1 and listens on that alone: whoever reaches one of its ports
    can run code. Ray itself does so on macOS and Windows; it has no argument for it."""
    constants: Any = import_module("ray._private.ray_constants")
    before, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Inside, and in processes started inside, these variables are set."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise BadInput("--on ray: Ray is not installed; pip install ray") from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray
