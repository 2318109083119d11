"""The verdicts of several tables on one grid, to be seen at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hqdm_bench.report.page.matrix import Matrix, MatrixRow

__all__ = ["VerdictMap", "verdict_map"]

Head = tuple[str, str]  # symbol, arrow and unit


@dataclass(frozen=True)
class VerdictMap:
    """Several matrices under one head; a row's cell is None where its model lacks the quantity."""

    heads: tuple[Head, ...]
    models: tuple[tuple[str, tuple[MatrixRow, ...]], ...]


def verdict_map(matrices: Sequence[Matrix]) -> VerdictMap | None:
    """Rows of all models with the quantities in a common order; None without a matrix."""
    heads: list[Head] = []
    for matrix in matrices:
        place = 0
        for head in matrix.heads:  # a new one goes behind the one it follows in its own matrix
            place = heads.index(head) if head in heads else place
            if head not in heads:
                heads.insert(place, head)
            place += 1
    models = tuple(
        (matrix.model, tuple(_spread(row, matrix.heads, heads) for row in matrix.rows))
        for matrix in matrices
    )
    return VerdictMap(tuple(heads), models) if models else None


def _spread(row: MatrixRow, own: Sequence[Head], heads: Sequence[Head]) -> MatrixRow:
    cells = dict(zip(own, row.cells, strict=True))
    return replace(row, cells=tuple(cells.get(head) for head in heads))
