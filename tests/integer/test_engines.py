"""Engines by name, and what `auto` makes of a student."""

from typing import Any

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.integer import IntegerStudent
from hqdm_bench.integer import engines as module
from hqdm_bench.integer.engines import student_engine
from hqdm_bench.integer.kernels import ExactFloatKernel

CPU = torch.device("cpu")
CASES = {"hqdm": ("hqdm", "w4a4", {}), "wide": ("hqdm", "w4a16", {})}


@pytest.mark.parametrize("engine", ["fake", "integer", "float", "auto"])
def test_engines_agree(engine: str, make: Any, calls: Any) -> None:
    student = make(*CASES["hqdm"])
    with torch.no_grad():
        expected = student(*calls[0])
    ready, record = student_engine(student, engine, CPU)
    assert isinstance(ready, IntegerStudent) == (engine != "fake")
    assert record["engine"] == ("integer" if engine == "auto" else engine)
    assert record["why"]
    with torch.no_grad():
        found = ready(*calls[0])
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_auto_says_why_it_is_not_integer(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("cuda", "mps"):
        _, record = student_engine(make(*CASES["hqdm"]), "auto", torch.device(device))
        assert record == {"engine": "fake", "why": f"images are drawn on {device}"}
    _, record = student_engine(make(*CASES["wide"]), "auto", CPU)
    assert record["engine"] == "fake"
    assert "does not fit bytes" in record["why"]
    assert record["why"].startswith("layer '")  # by which claims tell a student's fault
    student = make("efficientdm", "w4a4", {})
    with torch.no_grad():
        next(iter(student.low_bit_layers().values())).activation.zero[1] += 0.25
    _, record = student_engine(student, "auto", CPU)
    assert record["engine"] == "fake"
    assert "zero_points 'integer'" in record["why"]
    assert record["why"].startswith("layer '")
    monkeypatch.setattr(module, "choose_kernel", lambda _: (ExactFloatKernel, "no VNNI"))
    _, record = student_engine(make(*CASES["hqdm"]), "auto", CPU)
    assert record == {"engine": "fake", "why": "no VNNI"}


def test_float_stays_on_the_cpu(make: Any) -> None:
    with pytest.raises(BenchError, match="--device cpu"):
        student_engine(make(*CASES["hqdm"]), "float", torch.device("cuda"))


def test_negative_step_sizes_turn_signs_only(make: Any, calls: Any) -> None:
    """Training at 8 bits drives some through zero; the quantizer is odd in its step size."""
    student = make("hqdm", "w8a8", {})
    with torch.no_grad():
        before = student(*calls[0])
        for layer in student.low_bit_layers().values():
            layer.activation.scale[0] *= -1
        after = student(*calls[0])
        assert (after - before).norm() < 0.02 * before.norm()
        for backend in ("auto", "reference"):
            found = module.convert(student, backend)
            assert (found(*calls[0]) - after).norm() < 0.02 * after.norm()
    with torch.no_grad():
        next(iter(student.low_bit_layers().values())).activation.scale[0] = 0
    with pytest.raises(BenchError, match="zero or not finite"):
        module.convert(student)
