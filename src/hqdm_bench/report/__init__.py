"""Tables and figures, read from result files only; importing it never loads torch."""

from hqdm_bench.report.comparison import write_comparison
from hqdm_bench.report.differences import write_differences
from hqdm_bench.report.figures import write_figure
from hqdm_bench.report.methods import write_methods
from hqdm_bench.report.results import CellResult, LossHistory, ResultSet
from hqdm_bench.report.table_specs import table_models
from hqdm_bench.report.tables import write_table

__all__ = [
    "CellResult",
    "LossHistory",
    "ResultSet",
    "table_models",
    "write_comparison",
    "write_differences",
    "write_figure",
    "write_methods",
    "write_table",
]
