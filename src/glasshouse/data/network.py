"""May this thread use the network? Not while a stranger's model is opened, unless its user asked for a download.

A configuration, a tokenizer or an adapter can name anything on the hub, and several libraries fetch what is named. So
the ban is on the transport: Python's audit events for sockets, which every Python library passes, and the offline
switch of huggingface_hub, which also covers its compiled downloader. Loopback addresses stay reachable, except the
ports of proxies that the environment names, because a proxy fetches for others.

The ban holds for one thread and for the `threading.Thread`s it starts. Kernels, debuggers and Ray in other threads
stay connected. It stops libraries that fetch what a file names; it is no sandbox for code. Child processes, threads
from `_thread` or of a pool that ran before, and compiled code with sockets of its own are not covered: run remote code
that you allow in a container without a network.
"""

import ipaddress
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from weakref import WeakSet

LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Where users keep the token of their account."""
CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")


class NetworkRefused(ConnectionError):
    """A connection was attempted where none is allowed. Libraries treat it as any other failed connection."""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address}: connection refused, because the network is used only with download")
        self.address = address


class _Ban(threading.local):
    """This thread's ban: how many contexts impose it."""

    depth = 0


_ban = _Ban()
_banned_threads: WeakSet[threading.Thread] = WeakSet()
"""Threads started under a ban. They keep it: what they do was begun by the stranger's files."""
_lock = threading.Lock()
_watching = False


def denied() -> bool:
    """Whether this thread may not use the network."""
    return _ban.depth > 0 or (bool(_banned_threads) and _current_thread() in _banned_threads)


def deny() -> None:
    """Ban the network for this thread and the threads it starts, for good. Imports nothing."""
    watch()
    _ban.depth += 1


@contextmanager
def offline(*, download: bool = False) -> Iterator[None]:
    """No network inside, in this thread and the threads it starts; with `download`, nothing changes."""
    if download:
        yield
        return
    import huggingface_hub.constants  # noqa: F401 - so that its switch is there to be replaced

    with banned():
        yield


@contextmanager
def banned() -> Iterator[None]:
    """The ban of `offline`, before huggingface_hub is imported; its switch follows when a model is opened."""
    watch()
    _ban.depth += 1
    try:
        yield
    finally:
        _ban.depth -= 1


@contextmanager
def online() -> Iterator[None]:
    """Lift this thread's ban inside, for our own connections, such as those to a Ray cluster."""
    depth, _ban.depth = _ban.depth, 0
    try:
        yield
    finally:
        _ban.depth = depth


def attempt(problem: BaseException) -> str | None:
    """The address that a failure, or one that led to it, tried to reach against the ban; None where none did."""
    hub: Any = sys.modules.get("huggingface_hub.errors")
    seen: set[int] = set()
    cause: BaseException | None = problem
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, NetworkRefused):
            return cause.address
        if hub is not None and isinstance(cause, hub.OfflineModeIsEnabled):
            address = re.search(r"https?://\S+?(?=:? )", str(cause))
            return address[0] if address else "the hub"
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def without_token(text: str) -> str:
    """A message in which the token of the hub does not stand."""
    for name in TOKENS:
        token = os.environ.get(name)
        text = text.replace(token, f"[{name}]") if token else text
    return text


class _OfflineSwitch:
    """What huggingface_hub reads as HF_HUB_OFFLINE: true in threads under a ban, elsewhere as it was."""

    def __init__(self, otherwise: object) -> None:
        self.otherwise = otherwise

    def __bool__(self) -> bool:
        return denied() or bool(self.otherwise)

    def __repr__(self) -> str:
        return str(bool(self))


def watch() -> None:
    """Put the guard in place, once per process because it cannot be removed, and the switch once there is one."""
    global _watching
    with _lock:
        if not _watching:
            sys.addaudithook(_guard)
            thread_class: Any = threading.Thread
            thread_class.start = _inheriting(thread_class.start)
            _watching = True
        constants: Any = sys.modules.get("huggingface_hub.constants")
        if constants is not None and not isinstance(constants.HF_HUB_OFFLINE, _OfflineSwitch):
            constants.HF_HUB_OFFLINE = _OfflineSwitch(constants.HF_HUB_OFFLINE)


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook: refuses connections under a ban."""
    if event in CONNECTIONS and denied():
        address = arguments[1]
        # A path or nothing is no address of the network: a Unix socket, or a socket connected before.
        if isinstance(address, tuple) and (not _is_loopback(address[0]) or address[1] in _proxy_ports()):
            raise NetworkRefused(str(address[0]))
    elif event in LOOKUPS and denied():
        host = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
        if not _is_loopback(host):
            raise NetworkRefused(str(host))


def _inheriting(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """`Thread.start`, passing a ban on to the thread it starts; no audit event tells who started a thread."""

    @wraps(start)
    def starting(self: threading.Thread) -> None:
        if denied():
            _banned_threads.add(self)
        start(self)

    return starting


def _proxy_ports() -> set[int]:
    """Ports of the proxies that the environment names: behind a local proxy lies the network."""
    urls = (value for name, value in os.environ.items() if name.lower().endswith("_proxy"))
    ports = (re.search(r":(\d+)/?$", url) for url in urls)
    return {int(port[1]) for port in ports if port}


def _is_loopback(host: object) -> bool:
    """Whether a host is this machine."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name is None or name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(name).split("%")[0]).is_loopback
    except ValueError:
        return False


def _current_thread() -> threading.Thread | None:
    """This thread's object where it has one; `threading.current_thread` would create one for it."""
    number = threading.get_ident()
    return next((thread for thread in threading.enumerate() if thread.ident == number), None)
