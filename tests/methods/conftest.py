"""Organisms and examples that tests of several methods use, opened once per test run. Tests leave them unchanged."""

import pytest

from glasshouse.data.pairs import Pairs
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism


@pytest.fixture(scope="session")
def hijacked() -> Subject:
    """A model with a backdoor in its projector."""
    return shelf.take("hijack-logo")


@pytest.fixture(scope="session")
def benign() -> Subject:
    """The same base, fine-tuned on clean examples."""
    return shelf.take("benign")


@pytest.fixture(scope="session")
def refusing() -> Subject:
    """A model that refuses under a noise trigger."""
    return shelf.take("refusal-noise")


@pytest.fixture(scope="session")
def pairs() -> Pairs:
    """Clean examples with their twins under the trigger of `hijacked`."""
    return organism("hijack-logo").pairs[:16]
