"""The paper's sentences as data: what each says, of which cells, with which number."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from hqdm_bench.catalogue import Bits
from hqdm_bench.catalogue.schema import read_yaml
from hqdm_bench.common.errors import BenchError

__all__ = ["ALL", "CLAIMS_FILE", "Cells", "Claim", "Spot", "Stated", "read_claims"]

CLAIMS_FILE = Path("paper") / "claims.yaml"
ALL = "all"  # of `against`: every other method that the paper's table prints at these bits
ROUNDING = 1e-9  # of binary fractions, far below the half unit it is added to


@dataclass(frozen=True)
class Stated:
    """A number as the paper prints it.

    Attributes:
        text: with its digits.
        value: the same as a float.
        tolerance: half a unit of the last printed digit.
    """

    text: str
    value: float
    tolerance: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``12.8``, whose last digit stands for tenths."""
        exponent = Decimal(text).as_tuple().exponent
        return cls(text, float(text), 0.5 * 10.0 ** int(exponent) + ROUNDING)

    def agrees(self, value: float) -> bool:
        """Whether a value, rounded to the printed digits, is the number."""
        return abs(value - self.value) <= self.tolerance

    def covers(self, finer: "Stated") -> bool:
        """Whether another printed number can be the same at as many digits or more."""
        return abs(self.value - finer.value) <= max(self.tolerance, finer.tolerance)


@dataclass(frozen=True)
class Spot:
    """One place of a table: where a number of every method stands."""

    table: int
    bits: Bits
    metric: str


@dataclass(frozen=True)
class Cells:
    """Places of a table a sentence speaks of; the order of ``bits`` matters where it walks."""

    table: int
    bits: tuple[Bits, ...]
    metrics: tuple[str, ...]

    def spots(self) -> Iterator[Spot]:
        """Bit-width by bit-width, metric by metric."""
        return (Spot(self.table, bits, metric) for bits in self.bits for metric in self.metrics)

    def steps(self) -> Iterator[tuple[Spot, Spot]]:
        """Neighbours along ``bits``, metric by metric: (earlier, later)."""
        for metric in self.metrics:
            for earlier, later in zip(self.bits[:-1], self.bits[1:], strict=True):
                yield Spot(self.table, earlier, metric), Spot(self.table, later, metric)


@dataclass(frozen=True)
class Claim:
    """One sentence; `docs/claims.md` says which keys go with which kind.

    Attributes:
        id: name of the claim.
        place: where the sentence stands.
        also: where the paper says the same again.
        quote: a few of its words.
        note: how it is read, where it leaves a choice.
        kind: which rule decides it.
        stated: the number it states.
        cells: places of tables it speaks of.
        methods: whose results.
        against: those they are set beside, or `ALL`.
        order: Hadamard order it names.
        figures: figures it rests on, such as ``fig02``.
        statistic: which measure of the data behind a figure.
        needs: what a decision would need.
    """

    id: str
    place: str
    quote: str
    kind: str
    also: tuple[str, ...] = ()
    note: str = ""
    stated: Stated | None = None
    cells: tuple[Cells, ...] = ()
    methods: tuple[str, ...] = ("hqdm",)
    against: tuple[str, ...] = ("efficientdm",)
    order: int | None = None
    figures: tuple[str, ...] = ()
    statistic: str = ""
    needs: str = ""

    @property
    def spots(self) -> tuple[Spot, ...]:
        """Every place of a table it speaks of."""
        return tuple(spot for cells in self.cells for spot in cells.spots())

    @property
    def places(self) -> str:
        """Where it stands, repetitions included."""
        return ", ".join((self.place, *self.also))


def read_claims(root: Path) -> tuple[Claim, ...]:
    """The claims of ``paper/claims.yaml``, in its order.

    Args:
        root: project folder, the one that holds ``paper/``.

    Raises:
        BenchError: the file is missing or breaks its schema, or a claim contradicts itself.
    """
    path = root / CLAIMS_FILE
    claims = tuple(_claim(entry, path) for entry in read_yaml(path, "claims"))
    seen: set[str] = set()
    for claim in claims:
        if claim.id in seen:
            raise BenchError(f"{path}: claim '{claim.id}' is there twice; rename one")
        seen.add(claim.id)
    return claims


def _claim(entry: Mapping[str, Any], path: Path) -> Claim:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    values["cells"] = tuple(
        Cells(one["table"], tuple(map(Bits.parse, one["bits"])), tuple(one["metrics"]))
        for one in entry.get("cells", [])
    )
    if "stated" in values:
        values["stated"] = Stated.parse(entry["stated"])
    claim = Claim(**values)
    if claim.kind in ("relative_gain", "difference") and len(claim.spots) != 1:
        raise BenchError(
            f"{path}: claim '{claim.id}' states one number of {len(claim.spots)} cells; name one "
            "bit-width and one metric"
        )
    return claim
