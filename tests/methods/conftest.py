"""What tests of methods share: a model that nothing was planted in. Whoever uses it leaves it as it was."""

import pytest

from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf


@pytest.fixture(scope="session")
def base() -> Subject:
    return shelf.take("base")
