"""Tables as LaTeX with booktabs."""

import itertools
from collections.abc import Sequence

from hqdm_bench.report.table_model import Table
from hqdm_bench.report.table_text import Strong, TextTable, comparison_text, table_text

__all__ = ["PACKAGES", "escape", "float_table", "latex"]

PACKAGES = "% needs \\usepackage{booktabs,graphicx}"

# A backslash is replaced in the same pass as the braces it introduces, so one table serves.
SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "%": r"\%",
        "_": r"\_",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "\N{MINUS SIGN}": r"$-$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "—": "---",
        "→": r"$\rightarrow$",
        "†": r"{\dag}",
        "‡": r"{\ddag}",
        "§": r"{\S}",
        "¶": r"{\P}",
        "é": r"\'e",
        "“": "``",
        "”": "''",
    }
)


def escape(text: str) -> str:
    """Plain text as ASCII LaTeX source; a percent sign stays with its number."""
    return text.translate(SPECIAL).replace(r" \%", r"~\%")


def latex(table: Table) -> str:
    """A ``table`` float, and a second one with the paired comparison; needs booktabs, graphicx."""
    notes = [
        f"Measured: {table.protocol}. Coverage (share of MACs): {table.coverage}.",
        *table.notes,
    ]
    label = f"tab:{table.suite}-{table.model.name}-{table.number}"
    parts = [PACKAGES, float_table(table_text(table), label, notes)]
    comparison = comparison_text(table)
    if comparison:
        parts.append(float_table(comparison, f"{label}-paired", table.comparison_notes))
    return "\n".join(parts)


def float_table(text: TextTable, label: str, notes: Sequence[str]) -> str:
    """A ``table`` float with notes below the rows."""
    alignment = "".join("r" if column.numeric else "l" for column in text.columns)
    body = "\\midrule\n".join(
        "".join(f"{' & '.join(map(_cell, row))} \\\\\n" for row in block) for block in text.blocks
    )
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            r"\setlength{\tabcolsep}{3.5pt}",
            f"\\caption{{{escape(text.caption)}}}",
            f"\\label{{{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            f"{_heads(text)}\\midrule",
            f"{body}\\bottomrule",
            r"\end{tabular}}",
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            *(f"{escape(note)}\\par" for note in notes),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _cell(text: str) -> str:
    return f"\\textbf{{{escape(text)}}}" if isinstance(text, Strong) else escape(text)


def _heads(text: TextTable) -> str:
    """One row of heads, or two with the groups above."""
    single = f"{' & '.join(_stack(column.lines) for column in text.columns)} \\\\\n"
    if not any(column.group for column in text.columns):
        return single
    upper, rules, position = [], [], 1
    for group, members in itertools.groupby(text.columns, key=lambda column: column.group):
        width = len(list(members))
        if group:
            upper.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(f"\\cmidrule(lr){{{position}-{position + width - 1}}}")
        else:
            upper += [""] * width
        position += width
    return f"{' & '.join(upper)} \\\\\n{''.join(rules)}\n{single}"


def _stack(lines: tuple[str, ...]) -> str:
    """A narrow head of several lines, flush with the numbers below it."""
    text = r" \\ ".join(map(escape, lines))
    return f"\\shortstack[r]{{{text}}}" if len(lines) > 1 else text
