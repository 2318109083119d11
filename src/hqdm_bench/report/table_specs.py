"""The paper's four tables: data set, columns, and what is compared in them."""

from dataclasses import dataclass

from hqdm_bench.catalogue import Catalogue, ModelSpec, Suite
from hqdm_bench.catalogue.jobs import TABLE_DATASETS
from hqdm_bench.common.errors import BenchError

__all__ = ["ORDER_METHODS", "TABLES", "TableSpec", "order_variants", "table_models"]

RELEASED_ORDER = 5  # of the authors' code, and the method `hqdm`

# Hadamard order k of Table 4 -> the method that runs it.
ORDER_METHODS = {3: "hqdm-k3", 4: "hqdm-k4", 5: "hqdm", 6: "hqdm-k6"}


@dataclass(frozen=True)
class TableSpec:
    """What a table of the paper shows.

    Attributes:
        dataset: the paper's data set; the suite's models of it fill the table.
        subject: for the caption.
        metrics: columns in the paper's order.
        pairs: (left, right) methods compared seed by seed.
    """

    dataset: str
    subject: str
    metrics: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


HEADLINE = (("hqdm", "efficientdm"),)
TABLES = {
    1: TableSpec(
        TABLE_DATASETS[1], "LDM-4 on ImageNet 256x256", ("is", "fid", "sfid", "precision"), HEADLINE
    ),
    2: TableSpec(
        TABLE_DATASETS[2],
        "LDM-4 on LSUN-Bedrooms 256x256",
        ("fid", "sfid", "precision", "recall"),
        HEADLINE,
    ),
    3: TableSpec(
        TABLE_DATASETS[3],
        "LDM-8 on LSUN-Churches 256x256",
        ("fid", "sfid", "precision", "recall"),
        HEADLINE,
    ),
    4: TableSpec(
        TABLE_DATASETS[4],
        "Hadamard order k of HQ-DM, LDM-4 on ImageNet 256x256",
        ("is", "fid", "sfid", "precision"),
        tuple((method, "hqdm") for k, method in ORDER_METHODS.items() if k != RELEASED_ORDER),
    ),
}


def order_variants() -> frozenset[str]:
    """Methods that exist for Table 4 only."""
    return frozenset(method for k, method in ORDER_METHODS.items() if k != RELEASED_ORDER)


def table_models(number: int, suite: Suite, catalogue: Catalogue) -> tuple[ModelSpec, ...]:
    """The suite's models that fill a table.

    Raises:
        BenchError: no such table, or the suite has no model of its data set.
    """
    if number not in TABLES:
        raise BenchError(f"the paper has no table {number}; choose from 1 to {len(TABLES)}")
    dataset = TABLES[number].dataset
    specs = [catalogue.model(entry.model) for entry in suite.models]
    found = tuple(spec for spec in specs if spec.paper_dataset == dataset)
    if not found:
        raise BenchError(
            f"suite '{suite.name}' has no model of {dataset}, which table {number} shows; "
            f"drop {number} from 'tables' in config/suites/{suite.name}.yaml or add a model"
        )
    return found
