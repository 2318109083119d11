"""Claims of a suite as a page shows them."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json
from hqdm_bench.report.table_text import number

__all__ = ["VERDICTS", "PageClaim", "PageClaims", "Size", "Verdict", "read_claims"]


@dataclass(frozen=True)
class Verdict:
    """How a verdict looks: a sign beside its words, so that colour is not all that tells."""

    words: str
    name: str
    sign: str


VERDICTS = {
    entry.words: entry
    for entry in (
        Verdict("reproduced", "reproduced", "✓"),
        Verdict("not reproduced", "refuted", "✗"),
        Verdict("inconclusive", "open", "?"),
        Verdict("not implied by the paper's own tables", "unfounded", "≠"),
        Verdict("not run", "absent", "\N{EN DASH}"),
    )
}


@dataclass(frozen=True)
class Size:
    """How large an effect is: the value, its interval, and what they are, all as text."""

    effect: str
    interval: str
    unit: str


@dataclass(frozen=True)
class PageClaim:
    """One sentence of the paper with its verdict, numbers as text.

    Attributes:
        size: None where the result is not one number.
        result: in words, or empty.
        facts: what else is known of it, as (name, text).
        parts: the comparisons it is made of: (name, size, what it says).
    """

    id: str
    statement: str
    verdict: Verdict
    size: Size | None
    result: str
    facts: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, Size | None, str], ...]
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class PageClaims:
    """All claims and how many have each verdict, both in the order of `VERDICTS`."""

    claims: tuple[PageClaim, ...]
    counts: tuple[tuple[Verdict, int], ...]


def read_claims(path: Path) -> PageClaims | None:
    """Claims of a ``claims.json``; None if there is no such file.

    Raises:
        BenchError: the file holds something else, or a verdict that is not known.
    """
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        claims = [_claim(entry, path) for entry in content["claims"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path} holds no claims ({error}); delete it and run again") from None
    found = Counter(claim.verdict.words for claim in claims)
    counts = tuple((entry, found[words]) for words, entry in VERDICTS.items() if found[words])
    order = list(VERDICTS)
    claims.sort(key=lambda claim: order.index(claim.verdict.words))
    return PageClaims(tuple(claims), counts)


def _claim(entry: Mapping[str, Any], path: Path) -> PageClaim:
    if entry["verdict"] not in VERDICTS:
        raise BenchError(
            f"{path}: claim '{entry['id']}' has verdict '{entry['verdict']}'; known: "
            f"{', '.join(VERDICTS)}"
        )
    parts = tuple((part["label"], _size(part), part["word"]) for part in entry.get("parts", ()))
    several = len(parts) > 1
    return PageClaim(
        id=str(entry["id"]),
        statement=entry["statement"],
        verdict=VERDICTS[entry["verdict"]],
        size=None if several and entry.get("result") else _size(entry),
        result=entry.get("result", ""),
        facts=tuple((name, text) for name, text in _facts(entry) if text),
        parts=parts if several else (),
        evidence=tuple(entry["evidence"]),
    )


def _facts(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "place", ", ".join([entry["place"], *entry.get("also", ())])
    yield "reading", entry.get("note", "")
    yield (
        "in the paper",
        "; ".join(f"{key} {_text(value)}" for key, value in entry["paper"].items()),
    )
    own = " ".join(filter(None, (entry.get("arithmetic_text", ""), *entry.get("exceptions", ()))))
    yield "its own tables", f"{entry['arithmetic']}. {own}" if own else entry["arithmetic"]
    measured = entry.get("measured", entry["verdict"])
    yield "measured here", "" if measured == entry["verdict"] else measured
    yield "rule", entry["rule"]
    yield "scope", entry["scope"]


def _size(entry: Mapping[str, Any]) -> Size | None:
    effect, interval = entry["effect"], entry["interval"]
    if effect is None:
        return None
    digits = _digits([effect, *(interval or ())])
    ends = f"[{', '.join(number(end, digits) for end in interval)}]" if interval else ""
    kind = entry.get("interval_kind", "").removeprefix("95 % ")
    unit = f"{entry['unit']} ({kind})" if kind else entry["unit"]
    return Size(number(effect, digits), ends, unit)


def _digits(values: Sequence[float]) -> int:
    """Decimals that show three significant digits of the largest value."""
    largest = max(map(abs, values))
    return max(0, 2 - math.floor(math.log10(largest))) if largest > 0 else 2


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
