"""How a student's engine is chosen on the command line."""

from pathlib import Path

import pytest

from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.cli.main import build_parser

CELL = ["--suite", "mini", "--model", "mini-imagenet", "--method", "hqdm", "--bits", "w4a4"]
ROOT = Path(__file__).resolve().parents[2]


def test_the_default_is_the_suites() -> None:
    assert build_parser().parse_args(["sample", *CELL]).engine is None
    assert build_parser().parse_args(["sample", *CELL, "--engine", "float"]).engine == "float"
    with pytest.raises(SystemExit):
        build_parser().parse_args(["sample", *CELL, "--engine", "int4"])


def test_mini_draws_in_integers_where_that_is_exact() -> None:
    catalogue = load_catalogue(ROOT)
    engines = {name: suite.engine for name, suite in catalogue.suites.items()}
    assert engines["mini"] == engines["smoke"] == "auto"
    assert engines["paper"] == "fake"
