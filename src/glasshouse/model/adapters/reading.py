"""Is this folder a LoRA adapter that can be examined, and on which model was it trained?

An adapter is as suspect as a model. Its weights come from its one safetensors file, and all of them must be finite. Its
configuration can name other repositories, modules to import and ways to change the base, so the entries that glasshouse
can merge exactly are listed here, and every other entry that is set is refused by name.
"""

import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from glasshouse.data.strangers import strangers_files
from glasshouse.model.checkpoint import check_file
from glasshouse.model.configs import check_entries
from glasshouse.values.codec import tensor_bytes
from glasshouse.values.errors import BadInput

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MERGE_FIRST = "merge it with peft in a sandbox (merge_and_unload) and audit the merged folder with --base"
MERGED = frozenset(
    ("r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "bias", "fan_in_fan_out", "target_modules",
     "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "modules_to_save",
     "target_parameters", "trainable_token_indices")
)  # fmt: skip
"""Entries that decide what is merged."""
TRAINED = frozenset(
    ("peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
     "init_lora_weights", "lora_dropout", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
     "megatron_core", "qalora_group_size", "runtime_config")
)  # fmt: skip
"""Entries about training and about loading by name, which decide nothing of the merged weights; none is acted on."""
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to begin the training that leave the base as it is."""
WITHOUT_MERGED_FORM = (
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE"),
    *("POLY", "SHADOW"),
)
TEXTS = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "target_parameters")
"""Entries that hold one text or a list of them."""
TABLES = ("rank_pattern", "alpha_pattern")
"""Entries that hold numbers by name."""
PATTERNS = (*TEXTS[:3], *TABLES)
PLAIN_NAME = re.compile(r"[\w.]+|all-linear")
LONGEST_PATTERN = 10_000
PATTERN_SECONDS = 10.0
HUB_OR_FOLDER = re.compile(r"[\w./ +@=()-]+")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter whose files were read and checked."""

    folder: Path
    settings: Mapping[str, Any]
    """Entries of its configuration that decide what is merged."""
    base: str | None
    """The folder or hub name of the model it was trained on, as its configuration says."""
    revision: str | None
    """Revision of that model on the hub."""
    weights: str
    """SHA-256 over the settings and over names, types, shapes and bytes of all weights."""

    @property
    def kind(self) -> str:
        """The name of the method in the field."""
        name = "DoRA" if self.settings.get("use_dora") else "LoRA"
        return f"{name} with rsLoRA scaling" if self.settings.get("use_rslora") else name


def is_adapter(source: str | Path) -> bool:
    """Whether this is the folder of a PEFT adapter, whatever its kind."""
    folder = Path(source)
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path) -> Adapter:
    """Read and check everything but whether it fits a model."""
    file, weights = folder / CONFIG, folder / WEIGHTS
    if not file.is_file():
        raise BadInput(f"{folder}: no {CONFIG}, so this is not a PEFT adapter; give the folder that holds it")
    if not weights.is_file():
        raise BadInput(f"{folder}: no {WEIGHTS}; pickle adapters are not read, convert it in a sandbox")
    check_file(weights)
    with strangers_files(file, "this adapter's configuration cannot be read", "download it again"):
        entries = json.loads(file.read_text("utf-8"))
        if not isinstance(entries, dict):
            raise TypeError(f"a JSON object is needed, not {type(entries).__name__}")
    check_entries(str(file), entries)
    _check_kind(file, str(entries.get("peft_type")).rpartition(".")[2].upper())
    _check_entries_known(file, entries)
    settings = {name: entries[name] for name in sorted(MERGED & entries.keys()) if entries[name] is not None}
    _check_forms(file, settings)
    running = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8", "surrogatepass"))
    with strangers_files(weights, "the adapter's weights cannot be read", "download it again"):
        _check_ranks(file, settings, _read_weights(weights, running))
    base, revision = (_text(file, entries, name) for name in ("base_model_name_or_path", "revision"))
    return Adapter(folder, settings, base, revision, running.hexdigest())


def base_of(adapter: Adapter) -> str:
    """The folder or hub name of its base. The name is a stranger's, so it must be a plain name and not a way out of a
    folder, to another machine or to a home directory."""
    file, name = adapter.folder / CONFIG, adapter.base
    if not name:
        raise BadInput(f"{file}: names no base model; give the model that the adapter was trained on: --base FOLDER")
    if not HUB_OR_FOLDER.fullmatch(name) or ".." in Path(name).parts or name.startswith("//"):
        raise BadInput(
            f"{file}: base_model_name_or_path is {name[:80]!r}, neither a plain folder nor a hub name; "
            "give the base yourself: --base FOLDER"
        )
    if is_adapter(name):
        raise BadInput(f"{file}: its base {name} is itself an adapter; merge that one first and give it: --base FOLDER")
    return name


def check_patterns(adapter: Adapter, names: Iterable[str]) -> None:
    """Refuse regular expressions that take for ever on these module names. They are tried in another process, because
    matching cannot be interrupted in this one."""
    patterns = [pattern for pattern in _patterns(adapter.settings) if not PLAIN_NAME.fullmatch(pattern)]
    if not patterns:
        return
    file = adapter.folder / CONFIG
    longest = max(patterns, key=len)
    if len(longest) > LONGEST_PATTERN:
        raise BadInput(f"{file}: a pattern of {len(longest):,} characters; at most {LONGEST_PATTERN:,} are read")
    # peft matches some of them from the start and some behind any prefix; both are tried.
    program = (
        "import json, re, sys\n"
        "patterns, names = json.load(sys.stdin)\n"
        "for p in patterns:\n"
        "    for n in names: re.fullmatch(p, n), re.match(rf'(.*\\.)?({p})$', n)\n"
    )
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            input=json.dumps([patterns, list(names)]), capture_output=True, text=True, timeout=PATTERN_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        shown = longest if len(longest) <= 80 else f"{longest[:80]}…"
        raise BadInput(
            f"{file}: a pattern such as {shown!r} takes longer than {PATTERN_SECONDS:g} seconds on this model's module "
            "names; list the names of the modules instead"
        ) from None
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or ["no message"])[-1]
        raise BadInput(f"{file}: a pattern is no regular expression ({last[:120]}); list the names of the modules")


def _patterns(settings: Mapping[str, Any]) -> list[str]:
    """Every text of the configuration that peft may take for a regular expression."""
    found: list[str] = []
    for name in PATTERNS:
        value = settings.get(name)
        found += [value] if isinstance(value, str) else list(value or ())
    return found


def _check_kind(file: Path, kind: str) -> None:
    if kind == "XLORA":
        raise BadInput(f"{file}: an X-LoRA adapter loads further adapters by name; audit each of those on its own")
    if kind in WITHOUT_MERGED_FORM:
        raise BadInput(
            f"{file}: {kind} adds inputs or modules and has no merged weights, so its effect cannot be audited as "
            "weights; audit its base, or train a LoRA adapter"
        )
    if kind != "LORA":
        raise BadInput(f"{file}: peft_type is {kind[:40]}, and only LORA is merged here; {MERGE_FIRST}")


def _check_entries_known(file: Path, entries: Mapping[str, Any]) -> None:
    if entries.get("megatron_config"):
        raise BadInput(f"{file}: megatron_config makes peft import a module that the file names; remove the entry")
    start = entries.get("init_lora_weights")
    if not any(start is plain or start == plain for plain in PLAIN_STARTS):
        raise BadInput(
            f"{file}: init_lora_weights {str(start)[:40]!r} changes the base itself before the adapter is added; save "
            "the adapter again with path_initial_model_for_weight_conversion, which makes it a plain LoRA"
        )
    unknown = sorted(name for name, value in entries.items() if value and name not in MERGED | TRAINED)
    if unknown:
        raise BadInput(f"{file}: {unknown[0]} is set, which is not merged exactly here; {MERGE_FIRST}")


def _check_forms(file: Path, settings: Mapping[str, Any]) -> None:
    for name in TEXTS:
        value = settings.get(name, [])
        if not isinstance(value, str) and not (
            isinstance(value, list) and all(isinstance(each, str) for each in value)
        ):
            raise BadInput(f"{file}: {name} must be a list of names; download it again")
    for name in TABLES:
        value = settings.get(name, {})
        if not isinstance(value, dict) or not all(_is_number(number) for number in value.values()):
            raise BadInput(f"{file}: {name} must hold a number for each name; download it again")
    if not _is_number(settings.get("lora_alpha", 8)):
        raise BadInput(f"{file}: lora_alpha is {str(settings['lora_alpha'])[:40]}, no number; download it again")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_weights(file: Path, running: Any) -> int:
    """The largest rank that the file holds; every weight goes into the hash."""
    largest = 0
    with safe_open(file, framework="pt") as opened:
        for name in sorted(opened.keys()):
            tensor = opened.get_tensor(name)
            if not tensor.is_floating_point():
                raise BadInput(f"{file}: {name} holds {tensor.dtype}, which is no weight; download the adapter again")
            if not bool(tensor.float().isfinite().all()):
                raise BadInput(f"{file}: {name} holds NaN or infinity; the adapter is broken, train or download again")
            if "lora_A" in name or "lora_embedding_A" in name:
                largest = max(largest, tensor.shape[0] if tensor.ndim else 0)
            running.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode("utf-8", "surrogatepass"))
            running.update(tensor_bytes(tensor))
    return largest


def _check_ranks(file: Path, settings: Mapping[str, Any], largest: int) -> None:
    """peft allocates what the configuration asks for before it looks at the weights."""
    for name, rank in (("r", settings.get("r", 8)), *settings.get("rank_pattern", {}).items()):
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise BadInput(f"{file}: the rank {name} is {str(rank)[:40]}, and must be a whole number of at least 1")
        if rank > largest:
            raise BadInput(
                f"{file}: the rank {name} is {rank:,}, and the weights have rank {largest:,} at most; "
                "configuration and weights do not belong together"
            )


def _text(file: Path, entries: Mapping[str, Any], name: str) -> str | None:
    value = entries.get(name)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{file}: {name} must be a text; give the base yourself: --base FOLDER")
    return value
