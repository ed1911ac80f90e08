"""How are numbers told in words? Cells of a table, and what a reader who cannot see a picture is told."""

from typing import Any

from glasshouse.report.inert import inert
from glasshouse.values.blocks import Block, Chart, Heatmap


def cell(value: Any) -> str:
    """One cell of a table as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else inert(value)


def alternative(block: Block) -> str:
    """What a reader who cannot see the picture is told: its numbers."""
    match block:
        case Chart():
            lines = (f"{s.name}{' (null)' if s.role == 'null' else ''}: {_numbers(s.y)}" for s in block.series)
            return inert(f"{block.title}. {block.y} over {block.x or ', '.join(block.labels)}. " + "; ".join(lines))
        case Heatmap():
            low, high = float(block.values.min()), float(block.values.max())
            row, column = divmod(int(block.values.argmax()), block.values.shape[1])
            most = f"{high:.3g} at {block.rows[row]}, {block.columns[column]}"
            return inert(
                f"{block.title}. {len(block.rows)} rows by {len(block.columns)} columns, from {low:.3g} to {most}."
            )
        case _:
            return ""


def _numbers(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.3g}" for value in values[:24])
    return shown + (" …" if len(values) > 24 else "")
