"""How a student's engine is chosen and recorded."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from hqdm_bench.catalogue import Bits, Cell
from hqdm_bench.cli.images import _check_engine, _write_engine
from hqdm_bench.cli.main import build_parser
from hqdm_bench.common.errors import BenchError

STUDENT = Cell("mini", "mini-imagenet", "hqdm", Bits(4, 4), 0, "p")
TEACHER = Cell("mini", "mini-imagenet", "fp", Bits(32, 32), 0, "p")
CELL = ["--suite", "mini", "--model", "mini-imagenet", "--method", "hqdm", "--bits", "w4a4"]


def test_the_default_is_fake() -> None:
    assert build_parser().parse_args(["sample", *CELL]).engine == "fake"
    with pytest.raises(SystemExit):
        build_parser().parse_args(["sample", *CELL, "--engine", "int4"])


def test_integers_are_for_students_on_the_cpu() -> None:
    integer = argparse.Namespace(engine="integer")
    _check_engine(integer, STUDENT, torch.device("cpu"))
    with pytest.raises(BenchError, match="--device cpu"):
        _check_engine(integer, STUDENT, torch.device("cuda"))
    with pytest.raises(BenchError, match="full precision has none"):
        _check_engine(integer, TEACHER, torch.device("cpu"))
    _check_engine(argparse.Namespace(engine="fake"), TEACHER, torch.device("cuda"))


def test_the_record_goes_with_the_shard(tmp_path: Path) -> None:
    path = tmp_path / "shard0.engine.json"
    _write_engine(path, {"engine": "integer"})
    assert json.loads(path.read_text()) == {"engine": "integer"}
    _write_engine(path, None)
    assert not path.exists()
