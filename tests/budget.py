"""How many CPU-seconds does each test file cost? Printed at the end of every run, the slowest first.

The tests of one method (a file in tests/methods) have a budget; shared organisms and imports count for whoever needs
them first.
"""

import os
from collections import Counter
from typing import Any

import pytest

METHOD = 15.0
"""CPU-seconds for the tests of one method."""
SHOWN = 12
PROPERTY = "cpu seconds"
_BEGAN = pytest.StashKey[float]()


def cpu_seconds() -> float:
    """Of this process and of the subprocesses that have ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    item.stash[_BEGAN] = cpu_seconds()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.user_properties.append((PROPERTY, cpu_seconds() - item.stash[_BEGAN]))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    spent = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":  # whose report carries the number
                properties = dict(report.user_properties)
                spent[report.nodeid.partition("::")[0]] += properties.get(PROPERTY, 0.0)
    if not spent:
        return
    terminalreporter.section(f"CPU-seconds: {sum(spent.values()):.0f} in all; budget of a method's tests {METHOD:.0f}")
    for file, seconds in spent.most_common(SHOWN):
        over = "  over budget" if file.startswith("tests/methods/") and seconds > METHOD else ""
        terminalreporter.write_line(f"{seconds:7.1f}  {file}{over}")
