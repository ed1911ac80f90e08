"""What is a Subject made of whose weights hold an adapter? The adapter, and the base that it was merged into."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel

from glasshouse.model.adapters.reading import Adapter
from glasshouse.model.identity import weight_hash


@dataclass(frozen=True, eq=False)
class Adaptation:
    """An adapter and its base."""

    adapter: Adapter
    base: str
    """Name of the base."""
    model: PreTrainedModel
    """The base. It shares the memory of every weight that the adapter leaves alone."""
    processor: Any
    """The base's own, which the adapter's folder may replace."""

    @cached_property
    def ingredients(self) -> dict[str, str]:
        """Who the two are: the fields of an Identity that an adapter adds."""
        return {
            "adapter": str(self.adapter.folder),
            "adapter_weights": self.adapter.weights,
            "base": self.base,
            "base_weights": weight_hash(self.model),
        }
