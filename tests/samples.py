"""A small value for every input of a method, from the kinds of its inputs."""

from collections import Counter
from typing import Any

from glasshouse.engine.inputs import Input
from glasshouse.engine.method import Method
from glasshouse.values.findings import Finding


def samples(method: Method[Finding]) -> dict[str, Any]:
    """By flag. No two inputs of one kind get the same value; an input of several values gets two."""
    used = Counter[str]()

    def sample(each: Input) -> Any:
        number = used[each.kind.name]
        used[each.kind.name] += 1
        value = each.kind.sample(number, method.least)
        return (value, each.kind.sample(number + 1, method.least)) if each.several else value

    return {each.flag: sample(each) for each in method.inputs}
