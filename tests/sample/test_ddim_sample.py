import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import DDIM
from hqdm_bench.sample import ImageNoise, ddim_sample, image_labels


class Recorder(torch.nn.Module):
    """A linear noise predictor that remembers what it was asked."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))
        self.calls: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def forward(self, x, timesteps, context=None):
        self.calls.append((timesteps, context))
        return self.factor * x


def test_equals_the_closed_form_for_a_linear_predictor(unconditional, make_protocol):
    """With eps = c x every step multiplies x by one number."""
    protocol = make_protocol(steps=10, labels="none")
    unet = Recorder(0.3)
    latents = ddim_sample(unconditional.with_unet(unet), protocol, range(4))
    ddim = DDIM.from_schedule(unconditional.schedule, 10, 0.0)
    signal, noise = ddim.alphas, 1 - ddim.alphas
    gain = torch.tensor(1.0, dtype=torch.float64)
    for i in range(10):
        clean = (1 - noise[i].sqrt() * 0.3) / signal[i].sqrt()
        gain *= ddim.alphas_prev[i].sqrt() * clean + (1 - ddim.alphas_prev[i]).sqrt() * 0.3
    start = ImageNoise(0, range(4), unconditional.latent_shape).draw()
    torch.testing.assert_close(latents, (gain * start).float(), rtol=1e-5, atol=1e-6)
    assert [int(t[0]) for t, _ in unet.calls] == list(range(901, 0, -100))


def test_each_image_gets_its_own_label(conditional, make_protocol):
    protocol = make_protocol(guidance=1.0)
    unet = Recorder(0.3)
    ddim_sample(conditional.with_unet(unet), protocol, [7, 2, 5])
    labels = image_labels(protocol, 3)[[7, 2, 5]]
    assert all(torch.equal(context, conditional.context(labels)) for _, context in unet.calls)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_image_does_not_depend_on_its_batch(conditional, make_protocol, eta):
    protocol = make_protocol(eta=eta)
    together = ddim_sample(conditional, protocol, range(5))
    alone = torch.cat([ddim_sample(conditional, protocol, [i]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_eta_changes_the_image_but_not_where_it_starts(unconditional, make_protocol):
    quiet, noisy = (
        ddim_sample(unconditional, make_protocol(labels="none", eta=eta), range(2))
        for eta in (0.0, 1.0)
    )
    assert not torch.allclose(quiet, noisy, atol=1e-2)


def test_the_policy_must_fit_the_model(conditional, unconditional, make_protocol):
    with pytest.raises(BenchError, match="class-conditional"):
        ddim_sample(conditional, make_protocol(labels="none"), [0])
    with pytest.raises(BenchError, match="unconditional"):
        ddim_sample(unconditional, make_protocol(), [0])
