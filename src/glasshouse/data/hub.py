"""How does a model come from the hub? File by file at one commit, with a line for each, and only what is opened.

    with announcing(print):
        fetch("org/model", commit)

Pickles, the weights of other frameworks, second copies of the weights (`consolidated.safetensors`) and files in folders
other than that of chat templates are not fetched: no model is opened from them. The token of HF_TOKEN is sent to the
hub by huggingface_hub and repeated nowhere: `network.without_token` takes it out of every message.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from glasshouse.data.network import without_token
from glasshouse.values.errors import BadInput
from glasshouse.values.wording import counted, gibibytes

WANTED = re.compile(r"[\w.+-]+\.(?:json|txt|model|jinja)|additional_chat_templates/[\w.+-]+\.jinja", re.ASCII)
SHARDS = re.compile(r"(?:adapter_)?model[\w.+-]*\.safetensors", re.ASCII)
"""The weights that transformers and PEFT open."""
CODE = re.compile(r"[\w.+-]+\.py", re.ASCII)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
COMMIT = re.compile(r"[0-9a-f]{40}")
LONGEST = 200
"""Characters of another library's message that are repeated."""
Announce = Callable[[str], object]
_announce: ContextVar[Announce | None] = ContextVar("announce", default=None)


@contextmanager
def announcing(tell: Announce | None) -> Iterator[None]:
    """Inside, every file that is fetched is told."""
    token = _announce.set(tell)
    try:
        yield
    finally:
        _announce.reset(token)


def fetch(name: str, revision: str | None, *, code: bool = False) -> None:
    """Bring a model's files of one commit to the local cache."""
    try:
        with _told(name, revision):
            info = HfApi().model_info(name, revision=revision, files_metadata=True)
    except Unreachable:
        if any(_is_cached(name, file, revision) for file in WEIGHTS):
            return  # what lies in the cache is opened without the hub
        raise
    commit, kinds = str(info.sha), (WANTED, SHARDS, CODE) if code else (WANTED, SHARDS)
    files = [file for file in info.siblings or () if any(kind.fullmatch(file.rfilename) for kind in kinds)]
    if not any(SHARDS.fullmatch(file.rfilename) for file in files):
        raise BadInput(f"{name}: holds no safetensors weights at {commit[:12]}, and no other kind is fetched")
    missing = [file for file in files if not _is_cached(name, file.rfilename, commit)]
    total, done = sum(file.size or 0 for file in missing), 0
    if missing:
        _tell(f"Downloading {name} at {commit[:12]}: {counted(len(missing), 'file')}, {gibibytes(total)}")
    for number, file in enumerate(missing, 1):
        size = file.size or 0
        share = f"{done / total:.0%}" if total else "0%"
        _tell(f"  {number} of {len(missing)}: {file.rfilename}, {gibibytes(size)} ({share} done)")
        with _told(name, revision):
            hf_hub_download(name, file.rfilename, revision=commit)
        done += size


def check_reachable(name: str, revision: str | None) -> None:
    """Refuse, with the reason, a model that the hub does not give to us."""
    with _told(name, revision):
        HfApi().model_info(name, revision=revision)


def cached_commit(name: str, revision: str | None) -> str | None:
    """The commit that a revision stands for in the local cache; None for a folder."""
    file = None if Path(name).exists() else try_to_load_from_cache(name, "config.json", revision=revision)
    commit = Path(file).parent.name if isinstance(file, str) else ""
    return commit if COMMIT.fullmatch(commit) else None


class Unreachable(BadInput):
    """The hub could not be asked."""


@contextmanager
def _told(name: str, revision: str | None) -> Iterator[None]:
    """Inside, what the hub answers becomes one line with its fix."""
    try:
        yield
    except GatedRepoError:
        raise BadInput(
            f"{name}: is gated; accept its terms on the hub and give the token of that account in HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise BadInput(f"{name}: has no revision {revision}; give a branch, a tag or a commit of it") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise BadInput(f"{name}: no such model on the hub, or a private one; check the name, or set HF_TOKEN") from None
    except Exception as problem:  # noqa: BLE001 - every version of the library has its own transport with its own errors
        line = without_token(" ".join(str(problem).split()))[:LONGEST]
        raise Unreachable(f"{name}: the hub cannot be reached ({line}); the same command continues") from None


def _is_cached(name: str, file: str, revision: str | None) -> bool:
    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)


def _tell(line: str) -> None:
    tell = _announce.get()
    if tell is not None:
        tell(line)
