"""Write environment.yml, the conda form of requirements.lock: same pins, same markers."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

HEADER = """\
# Generated from requirements.lock by tools/environment_from_lock.py (`make lock`); do not edit.
# conda env create -f environment.yml && conda activate hqdm-bench
# pip install --no-deps --no-build-isolation --editable .
"""
PYTHON = "3.11"


def pins(lock: str) -> list[str]:
    """Pinned requirements of a lock, in file order: `name==version` and the marker, if any."""
    pattern = re.compile(
        r"^([A-Za-z0-9][\w.-]*==[^\s;\\]+)(?:\s*;\s*([^\\\n]+?))?\s*\\?$", re.MULTILINE
    )
    return [pin + (f" ; {marker}" if marker else "") for pin, marker in pattern.findall(lock)]


def environment(lock: str) -> str:
    """Text of environment.yml for the text of a lock."""
    lines = [
        HEADER + "name: hqdm-bench",
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
        "  - pip:",
    ]
    lines += [f'      - "{pin}"' if ";" in pin else f"      - {pin}" for pin in pins(lock)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `environment_from_lock.py [--lock FILE] [--output FILE]`."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description="Write environment.yml from requirements.lock.")
    parser.add_argument("--lock", type=Path, default=root / "requirements.lock")
    parser.add_argument("--output", type=Path, default=root / "environment.yml")
    options = parser.parse_args(arguments)
    text = environment(options.lock.read_text(encoding="utf-8"))
    options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
