"""Write the table of the paper's sentences and its own tables into paper/README.md.

python tools/paper_claims.py            # write it
python tools/paper_claims.py --check    # only say whether it is up to date
"""

import argparse
import re
import sys
from pathlib import Path

from hqdm_bench.report.claims import Claim, Finding, check, read_claims
from hqdm_bench.report.claims.arithmetic import FOLLOWS, NOT_CHECKABLE
from hqdm_bench.report.claims.printed import PaperTables
from hqdm_bench.report.table_markdown import grid
from hqdm_bench.report.table_text import Column, TextTable

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- from tools/paper_claims.py -->", "<!-- end -->"
MOST_EXCEPTIONS = 4
HEADS = ("Claim", "Sentence", "Place", "Verdict", "From the tables")


def section(root: Path) -> str:
    """Every sentence that the tables say something of, and how many there are of each sort."""
    claims, tables = read_claims(root), PaperTables.read(root)
    found = [(claim, check(claim, claims, tables)) for claim in claims]
    decided = [(claim, one) for claim, one in found if one.verdict != NOT_CHECKABLE]
    columns = [Column.plain(head, numeric=False) for head in HEADS]
    rows = tuple(_row(claim, one) for claim, one in decided)
    kept = sum(one.verdict == FOLLOWS for _, one in decided)
    first = (
        f"{len(claims)} sentences, of which the tables say something of {len(decided)}: {kept} "
        f"follow, {len(decided) - kept} do not. The others speak of figures, training or hardware."
    )
    return "\n".join([first, "", *grid(TextTable("", tuple(columns), (rows,)))])


def _row(claim: Claim, found: Finding) -> tuple[str, ...]:
    shown = [f"not of {text}" for text in found.exceptions[:MOST_EXCEPTIONS]]
    if len(found.exceptions) > len(shown):
        shown.append(f"nor of {len(found.exceptions) - len(shown)} more")
    text = "; ".join((found.text.removesuffix("."), *shown))
    stated = f" ({claim.stated.text})" if claim.stated else ""
    return f"`{claim.id}`", f"“{claim.quote}”{stated}", claim.places, found.verdict, text


def updated(text: str, root: Path) -> str:
    """A page with the section between its marks renewed."""
    pattern = re.compile(f"({re.escape(BEGIN)}\n).*?(\n{re.escape(END)})", re.S)
    if not pattern.search(text):
        raise SystemExit(f"paper/README.md needs the lines '{BEGIN}' and '{END}'")
    return pattern.sub(lambda marks: f"{marks[1]}{section(root)}{marks[2]}", text)


def main() -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if out of date")
    arguments = parser.parse_args()
    path = ROOT / "paper" / "README.md"
    old = path.read_text(encoding="utf-8")
    new = updated(old, ROOT)
    if arguments.check and new != old:
        raise SystemExit("paper/README.md is out of date; run `python tools/paper_claims.py`")
    if not arguments.check:
        path.write_text(new, encoding="utf-8")
    sys.stderr.write("paper/README.md is up to date\n")


if __name__ == "__main__":
    main()
