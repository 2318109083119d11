"""Rounding and step sizes, update by update, against Q-Diffusion's released code.

The data are what its AdaRoundQuantizer, UniformAffineQuantizer and LossFunction made of one 3x3
convolution in float64 under torch's Adam: 40 updates of the rounding (rate 0.05, warm-up 0.2, beta
20 to 2, weight 0.01), 10 of the step size (rate 0.01, cosine, exponent 2.4). BRECQ, PTQD, TFMQ-DM
and DMQ have the same classes.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from hqdm_bench.distill import AdamW
from hqdm_bench.distill.fitting import reconstruction_loss
from hqdm_bench.methods import RoundingFit, StepFit
from hqdm_bench.quantization import AdaRoundWeight, Grid, LearnedStep, weight_grid

DATA = Path(__file__).resolve().parents[1] / "data" / "reconstruction" / "qdiffusion.safetensors"
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(scope="module")
def data() -> dict[str, Tensor]:
    return load_file(DATA)


def grid(data: dict[str, Tensor]) -> Grid:
    return Grid(data["scale"].view(-1, 1, 1, 1), data["zero"].view(-1, 1, 1, 1))


def test_the_search_finds_the_same_grid(data: dict[str, Tensor]) -> None:
    found = weight_grid(data["weight"], 4, "mse")
    torch.testing.assert_close(found.scale, grid(data).scale, **EXACT)
    torch.testing.assert_close(found.zero, grid(data).zero, **EXACT)


def test_the_rounding_is_learned_update_by_update(data: dict[str, Tensor]) -> None:
    fit = RoundingFit(updates=40, rate=0.05)
    weight = AdaRoundWeight(data["weight"], grid(data), 4)
    torch.testing.assert_close(weight(), data["soft_start"], **EXACT)
    optimiser = AdamW([{"params": [weight.rounding], "lr": fit.rate, "weight_decay": 0.0}])
    for update, expected in enumerate(data["losses"], start=1):
        output = functional.conv2d(data["input"], weight(), data["bias"], padding=1)
        loss = reconstruction_loss(output, data["target"], fit.exponent)
        beta = fit.beta.at(update)
        if beta is not None:
            loss = loss + fit.penalty * weight.penalty(beta)
        torch.testing.assert_close(loss, expected, **EXACT)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(fit.factor(update), 0)
    torch.testing.assert_close(weight.rounding.detach(), data["alpha"], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(weight().detach(), data["soft_end"], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(weight.commit()(), data["hard_end"], **EXACT)
    nearest = (data["weight"] / grid(data).scale).round() * grid(data).scale
    assert (data["hard_end"] != nearest).any()  # something was learned


def test_the_step_size_is_learned_update_by_update(data: dict[str, Tensor]) -> None:
    fit = StepFit(updates=10, rate=0.01)
    step = LearnedStep(4).double()
    step.calibrate(data["input"])
    assert step.zero is not None
    torch.testing.assert_close(step.scale.detach(), data["searched_scale"], **EXACT)
    torch.testing.assert_close(step.zero, data["searched_zero"], **EXACT)
    # Inputs far outside the grid, and none that rounds to its ends: there the released code, which
    # adds x - round(x) and takes it off again, clips or not as the last digit falls.
    step.initialise(data["step_scale"], data["step_zero"])
    optimiser = AdamW([{"params": [step.scale], "lr": fit.rate, "weight_decay": 0.0}])
    for update, expected in enumerate(data["step_losses"], start=1):
        output = functional.conv2d(
            step(data["outlying"], 0), data["weight"], data["bias"], padding=1
        )
        loss = reconstruction_loss(output, data["target"], fit.exponent)
        torch.testing.assert_close(loss, expected, **EXACT)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(fit.factor(update), 0)
    torch.testing.assert_close(step.scale.detach(), data["step_end"], rtol=1e-5, atol=0)
