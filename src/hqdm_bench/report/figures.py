"""Figures of a suite: an entry of its catalogue in, a pdf and a png out."""

from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.plots.own_kinds import OWN_KINDS
from hqdm_bench.report.plots.paper_kinds import PAPER_KINDS
from hqdm_bench.report.plots.source import Entry, Kind, Source
from hqdm_bench.report.results import need

__all__ = ["KINDS", "figure_inputs", "write_figure"]

KINDS = PAPER_KINDS | OWN_KINDS


def figure_inputs(name: str, root: Path, suite: Suite, catalogue: Catalogue) -> tuple[Path, ...]:
    """Every file a figure reads, for the workflow.

    Raises:
        BenchError: no such figure, unknown kind, or cells the suite does not have.
    """
    entry = _entry(name, suite)
    return _kind(name, entry).inputs(entry, Source(Layout(root), suite, catalogue))


def write_figure(name: str, root: Path, suite: Suite, catalogue: Catalogue) -> tuple[Path, Path]:
    """Write ``figures/{suite}/{name}.pdf`` and ``.png``.

    Args:
        name: key of the suite's figures, for example ``fig04_loss``.
        root: project folder with ``results``.
        suite: whose results.
        catalogue: for titles and protocols.

    Returns:
        The pdf and the png.

    Raises:
        BenchError: no such figure, unknown kind, or a result that is missing or damaged.
    """
    for path in figure_inputs(name, root, suite, catalogue):
        need(root, path)
    entry, layout = _entry(name, suite), Layout(root)
    stem = layout.figure(suite.name, name, "pdf").with_suffix("")
    return _kind(name, entry).draw(entry, Source(layout, suite, catalogue), stem)


def _entry(name: str, suite: Suite) -> Entry:
    if name not in suite.figures:
        known = ", ".join(suite.figures)
        raise BenchError(f"suite '{suite.name}' has no figure '{name}'; it has {known}")
    return suite.figures[name]


def _kind(name: str, entry: Entry) -> Kind:
    kind = KINDS.get(entry["kind"])
    if kind is None:
        known = ", ".join(KINDS)
        raise BenchError(f"figure {name}: unknown kind '{entry['kind']}'; known: {known}")
    lacking = sorted(kind.keys - entry.keys())
    if lacking:
        raise BenchError(f"figure {name}: a {entry['kind']} needs '{lacking[0]}'")
    return kind
