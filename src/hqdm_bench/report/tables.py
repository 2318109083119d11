"""Tables 1 to 4: built from results, written as csv, md and tex."""

from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.common.files import write_text
from hqdm_bench.report.results import ResultSet
from hqdm_bench.report.table_build import build_tables
from hqdm_bench.report.table_csv import csv_text
from hqdm_bench.report.table_latex import latex
from hqdm_bench.report.table_markdown import markdown
from hqdm_bench.report.table_specs import table_models

__all__ = ["write_table"]


def write_table(number: int, root: Path, suite: Suite, catalogue: Catalogue) -> tuple[Path, ...]:
    """Write ``results/{suite}/tables/table{number}`` as csv, md and tex.

    Only results of the models that fill the table are read.

    Args:
        number: 1 to 4.
        root: project folder with ``paper/data`` and ``results``.
        suite: whose results.
        catalogue: for titles and model sources.

    Returns:
        The three files.

    Raises:
        BenchError: a result is missing or damaged, or the suite cannot fill the table.
    """
    models = [spec.name for spec in table_models(number, suite, catalogue)]
    tables = build_tables(number, root, ResultSet.load(root, suite, models), catalogue)
    layout = Layout(root)
    texts = {
        "csv": csv_text(tables),
        "md": "\n".join(map(markdown, tables)),
        "tex": "\n".join(map(latex, tables)),
    }
    for suffix, text in texts.items():
        write_text(layout.table(suite.name, number, suffix), text)
    return tuple(layout.table(suite.name, number, suffix) for suffix in texts)
