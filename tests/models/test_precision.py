"""The teacher in bfloat16: recorded, close, and never the student."""

from dataclasses import replace

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import generate
from hqdm_bench.models import at_precision


def test_float32_is_the_model_itself(teacher):
    assert at_precision(teacher, "float32") is teacher


def test_bfloat16_predicts_nearly_the_same_in_float32(teacher):
    x = torch.randn(2, *teacher.latent_shape, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    with torch.no_grad():
        exact = teacher.predict(x, 501, labels, 1.5)
        reduced = at_precision(teacher, "bfloat16").predict(x, 501, labels, 1.5)
    assert reduced.dtype == torch.float32
    assert not torch.equal(reduced, exact)
    assert (reduced - exact).norm() / exact.norm() < 0.02


def test_other_precisions_are_refused(teacher):
    with pytest.raises(BenchError, match="allowed: float32, bfloat16"):
        at_precision(teacher, "float16")


def test_trajectories_say_at_which_precision_they_were_drawn(teacher, recipe):
    reduced = replace(recipe, teacher_precision="bfloat16")
    drawn = generate(teacher, reduced)
    assert drawn.recipe["teacher_precision"] == "bfloat16"
    assert not torch.equal(drawn.eps, generate(teacher, recipe).eps)
    with pytest.raises(BenchError, match="teacher_precision bfloat16, recipe 'toy' says float32"):
        drawn.require(recipe)
