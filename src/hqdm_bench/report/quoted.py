"""Printed numbers and where they come from: the paper's own runs, what it cites, other papers."""

from dataclasses import dataclass
from pathlib import Path

from hqdm_bench.report.paper import PAPER_TITLES, PaperRow, paper_rows, read_rows

__all__ = ["CITED", "RUN", "SOURCES", "QuotedRow", "Source", "quoted_rows", "quoted_title"]

RUN, CITED = "hqdm_run", "hqdm_cited"
# Methods whose rows the paper measured itself; the others it took from publications.
RUN_BY_THE_PAPER = frozenset({"fp", "efficientdm", "hqdm"})


@dataclass(frozen=True)
class Source:
    """Where a row's printed numbers stand.

    Attributes:
        label: in the column of the tables.
        says: what the label means, for the notes.
    """

    label: str
    says: str


SOURCES = {
    RUN: Source("HQ-DM, run", "the paper's own run (its EfficientDM rows too are runs of its own)"),
    CITED: Source(
        "HQ-DM, cited",
        "taken by the paper from another publication, with the exempt layers, grids and protocol "
        "of that one",
    ),
    "dmq": Source(
        "DMQ",
        "not in the paper: from DMQ's own (ICCV 2025, arXiv 2507.12933) as third-party notes "
        "transcribe it, with a full-precision row of its own",
    ),
}
TITLES = PAPER_TITLES | {"dmq": "DMQ"}


@dataclass(frozen=True)
class QuotedRow(PaperRow):
    """A printed row and where it comes from.

    Attributes:
        source: key of `SOURCES`.
    """

    source: str


def quoted_rows(root: Path, number: int) -> tuple[QuotedRow, ...]:
    """Rows of a table of the paper in its order, then those that other papers add to it.

    Args:
        root: project folder, the one that holds ``paper/``.
        number: 1 to 4.

    Raises:
        BenchError: a file is missing or breaks its form.
    """
    path = root / "paper" / "data" / "quoted.csv"
    rows = [_quoted(row, _paper_source(row)) for row in paper_rows(root, number)]
    for source in (name for name in SOURCES if name not in (RUN, CITED)):
        wanted = {"table": str(number), "source": source}
        rows += [_quoted(row, source) for row in read_rows(path, wanted)]
    return tuple(rows)


def quoted_title(row: QuotedRow) -> str:
    """Title of a printed row; a second full-precision row is told from the paper's."""
    title = TITLES[row.method]
    told = row.source in (RUN, CITED) or row.method == row.source
    return title if told else f"{title} ({SOURCES[row.source].label})"


def _paper_source(row: PaperRow) -> str:
    return RUN if row.method in RUN_BY_THE_PAPER else CITED


def _quoted(row: PaperRow, source: str) -> QuotedRow:
    return QuotedRow(row.method, row.bits, row.order, row.values, source)
