"""Noise errors along cached trajectories are those of the predictions in them."""

import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Bits
from hqdm_bench.distill import Trajectories, cached_noise_errors
from hqdm_bench.methods import Request, Student
from hqdm_bench.methods.fp import FullPrecisionOptions
from hqdm_bench.models import LatentDiffusion


class Shifted(nn.Module):
    """A UNet that says a little more, the same in every element."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        exact: Tensor = self.unet(x, timesteps, context)
        return exact + 1e-3 * timesteps[0]


def test_cached_errors_need_no_teacher(
    teacher: LatentDiffusion, trajectories: Trajectories
) -> None:
    network = Shifted(teacher.unet)
    student = Student(network, None, FullPrecisionOptions(), Request(Bits(32, 32), (0,)))
    errors = cached_noise_errors(student, teacher, trajectories.training)
    assert tuple(errors) == trajectories.timesteps
    for t, error in errors.items():
        assert error.images == trajectories.training.x_t.shape[0] * trajectories.x_t.shape[2]
        expected = torch.full((3,), 1e-3 * t, dtype=torch.float64)
        torch.testing.assert_close(error.channel_error, expected, rtol=1e-3, atol=1e-5)
        assert abs(error.slope) < 1e-5
        assert error.residual_std(0.0) < 1e-5
