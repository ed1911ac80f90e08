"""How can a value be shown without knowing who shows it?

Surfaces (an HTML fragment, a matplotlib figure) live on the top floor and register under the entry-point group
`glasshouse.surfaces`; a value looks a surface up by its name. So imports run downwards only, and another package may
add a surface.
"""

from importlib.metadata import entry_points
from typing import Any


def rendered(surface: str, value: object) -> Any:
    """`value` on the surface of that name."""
    for point in entry_points(group="glasshouse.surfaces", name=surface):
        return point.load()(value)
    raise RuntimeError(f"no surface called {surface!r} is installed; reinstall glasshouse")
