"""Tables as markdown."""

from hqdm_bench.report.table_model import Table
from hqdm_bench.report.table_text import Strong, TextTable, comparison_text, table_text

__all__ = ["grid", "markdown"]


def markdown(table: Table) -> str:
    """Caption, protocol, table, notes, and below them the paired comparison."""
    text = table_text(table)
    lines = [f"## Table {table.number}: {table.model.name}", "", f"**{text.caption}**", ""]
    lines += [f"Measured: {table.protocol}.  ", f"Coverage (share of MACs): {table.coverage}.", ""]
    lines += grid(text)
    lines += ["", *(f"- {note}" for note in table.notes)]
    comparison = comparison_text(table)
    if comparison:
        lines += ["", "### Paired comparison", "", f"**{comparison.caption}**", ""]
        lines += [*grid(comparison), ""]
        lines += [f"- {note}" for note in table.comparison_notes]
    return "\n".join(lines) + "\n"


def grid(text: TextTable) -> list[str]:
    """Lines of a table; its caption is left to the caller."""
    heads = [_escape(column.head) for column in text.columns]
    rules = ["---:" if column.numeric else ":---" for column in text.columns]
    rows = [row for block in text.blocks for row in block]
    return [_line(heads), _line(rules), *(_line([_escape(cell) for cell in row]) for row in rows)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    escaped = text.replace("|", "\\|")
    return f"**{escaped}**" if isinstance(text, Strong) else escaped
