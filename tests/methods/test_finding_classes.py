"""Finding classes of all methods: short, explained, and with data per unit."""

import ast
import importlib
import inspect

import pytest

from glasshouse.engine.catalogue import catalogue
from glasshouse.engine.method import load
from glasshouse.values.declared import declared
from glasshouse.values.findings import Finding
from glasshouse.values.rows import rows_field

MOST_LINES = 50
"""Lines of a finding class, on average."""
KINDS = {entry.name: load(entry.name).finding for entry in catalogue() if entry.module.startswith("glasshouse.")}


def lines(kind: type[Finding]) -> int:
    tree = ast.parse(inspect.getsource(importlib.import_module(kind.__module__)))
    (node,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_finding_classes_are_short():
    counts = {name: lines(kind) for name, kind in KINDS.items()}
    average = sum(counts.values()) / len(counts)
    print(f"finding classes: {average:.1f} lines on average, at most {max(counts.values())}: {counts}")
    assert average <= MOST_LINES, counts


@pytest.mark.parametrize("name", KINDS)
def test_each_declares_its_unit(name: str):
    field = rows_field(KINDS[name])
    assert field is not None, "mark the field that holds the data per unit: Annotated[..., Rows(...)]"
    assert field.keys


@pytest.mark.parametrize("name", KINDS)
def test_what_is_drawn_by_default_is_explained(name: str):
    """Its title is a docstring, and not a field's name."""
    kind = KINDS[name]
    nulls = {null for field in declared(kind) for null in field.nulls}
    spoken = {"warnings", "notes"} | nulls
    bare = [
        field.name for field in declared(kind) if field.drawn and not field.explanation and field.name not in spoken
    ]
    assert set(bare) <= {"story", "grid", "settings"}, "these are blocks, which have titles of their own"
