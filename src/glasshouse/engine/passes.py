"""How often does a method show an example to the model? What its time on a larger model can be told from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Passes:
    """Passes of one example through the language model, both models' together, under the method's default options."""

    forward: float = 0.0
    """For each example, without gradients."""
    gradient: float = 0.0
    """For each example, with gradients: about three times the operations."""
    tokens: float = 0.0
    """Tokens that are generated, for each example."""
    training: float = 0.0
    """With gradients, however many examples there are."""
    most: int | None = None
    """The largest number of examples that the method uses."""

    def of(self, examples: int) -> "Passes":
        """Those of so many examples together."""
        count = examples if self.most is None else min(self.most, examples)
        return Passes(self.forward * count, self.gradient * count + self.training, self.tokens * count)

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(self.forward + other.forward, self.gradient + other.gradient, self.tokens + other.tokens)


USUAL = {"weights": Passes(), "activations": Passes(forward=8), "gradients": Passes(forward=32, gradient=32),
         "endpoint": Passes()}  # fmt: skip
"""By what a method needs, where it does not say."""
