"""How are a model's weights quantised, and can they be read here?

    quantisation(config)              the scheme that a configuration names; None for plain weights
    check_quantisation(name, config)  refuses a scheme whose library is missing, before any weight is read

A checkpoint in fp8 or mxfp4 is opened dequantised, in bfloat16: transformers does so without a library of its own. Any
other scheme keeps its packed weights, which the methods that read weights refuse.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from transformers import PreTrainedConfig

from glasshouse.values.errors import BadInput

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "bitsandbytes": ("bitsandbytes",),
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
    "auto-round": ("auto_round",),
    "torchao": ("torchao",),
    "hqq": ("hqq",),
    "quanto": ("optimum.quanto",),
    "compressed-tensors": ("compressed_tensors",),
    "aqlm": ("aqlm",),
    "vptq": ("vptq",),
    "spqr": ("spqr_quant",),
}
"""Modules that transformers needs for the scheme."""
PACKAGES = {"optimum.quanto": "optimum-quanto", "auto_round": "auto-round", "compressed_tensors": "compressed-tensors"}
"""What those modules are installed as, where the name differs."""
UNPACKED = ("fp8", "mxfp4")
UNQUANTISED = "open the unquantised checkpoint"


@dataclass(frozen=True)
class Quantisation:
    """How weights are stored."""

    method: str
    """As transformers calls it."""
    bits: int | None = None

    @property
    def label(self) -> str:
        return f"{self.method}, {self.bits} bits" if self.bits else self.method


def quantisation(config: PreTrainedConfig) -> Quantisation | None:
    """The scheme that a configuration, or that of its language model, names."""
    for owner in (config, config.get_text_config()):
        entry: Any = getattr(owner, "quantization_config", None)
        entries: Any = entry.to_dict() if hasattr(entry, "to_dict") else entry
        if isinstance(entries, Mapping) and entries:
            return _scheme(entries)
    return None


def _scheme(entries: Mapping[str, Any]) -> Quantisation:
    method, bits = str(getattr(entries.get("quant_method"), "value", entries.get("quant_method"))), entries.get("bits")
    for name, count in (("load_in_4bit", 4), ("load_in_8bit", 8)):
        if entries.get(name) or entries.get(f"_{name}"):
            method, bits = "bitsandbytes", count
    return Quantisation(method, bits if isinstance(bits, int) else None)


def check_quantisation(name: str, config: PreTrainedConfig) -> None:
    """Refuse a scheme that cannot be read here; ask for plain weights where transformers can give them."""
    scheme = quantisation(config)
    if scheme is None:
        return
    if scheme.method in UNPACKED:
        for owner in (config, config.get_text_config()):
            if isinstance(entries := getattr(owner, "quantization_config", None), dict):
                entries["dequantize"] = True
        return
    if scheme.method not in LIBRARIES:
        raise BadInput(
            f"{name}: its weights are quantised with {scheme.method[:40]}, which is not supported; {UNQUANTISED}"
        )
    missing = [module for module in LIBRARIES[scheme.method] if not _installed(module)]
    if missing:
        packages = " ".join(PACKAGES.get(module, module) for module in missing)
        raise BadInput(
            f"{name}: its weights are quantised ({scheme.label}), which needs {packages}: pip install {packages}; "
            f"or {UNQUANTISED}"
        )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that the module lies in
        return False
