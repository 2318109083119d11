"""From the state dict of a CompVis checkpoint to the weights a model is sampled with."""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = [
    "FIRST_STAGE_LOSS",
    "SCALE_FACTOR",
    "SCHEDULE",
    "averaged_name",
    "check_keys",
    "sampling_weights",
]

NETWORK, AVERAGES = "model.", "model_ema."
SCALE_FACTOR = "scale_factor"
# The schedule follows from two betas, which are compared; the sampler derives its own tables.
SCHEDULE = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "lvlb_weights",
    }
)
# Tables of a DDIM sampler that some published checkpoints of the same authors carry
# (github.com/nickyisadog/latent-diffusion-inpainting/issues/1).
SAMPLER = frozenset(
    {"ddim_sigmas", "ddim_alphas", "ddim_alphas_prev", "ddim_sqrt_one_minus_alphas"}
)
AVERAGE_COUNTERS = frozenset({AVERAGES + "decay", AVERAGES + "num_updates"})
FIRST_STAGE_LOSS = "first_stage_model.loss."  # left over from training the first stage
KEYS_SHOWN = 5


def averaged_name(parameter: str) -> str:
    """Name of a UNet parameter's exponential moving average.

    >>> averaged_name("model.diffusion_model.out.2.weight")
    'model_ema.diffusion_modelout2weight'
    """
    return AVERAGES + parameter.removeprefix(NETWORK).replace(".", "")


def sampling_weights(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], ema: bool, where: str
) -> dict[str, Tensor]:
    """Select the weights that images are drawn with; nothing is copied.

    Args:
        state: the whole state dict of a checkpoint.
        expected: names and shapes of the model's weights, without the schedule.
        ema: take the moving averages of the UNet's parameters instead of the parameters.
        where: the file, for messages.

    Returns:
        One tensor per name of ``expected``, and the scale factor if there is one.

    Raises:
        BenchError: a key is missing or is neither a weight nor known to be of no use; a shape
            differs; a weight is not a finite floating-point number.
    """
    averages = {name: averaged_name(name) for name in expected if name.startswith(NETWORK)}
    if ema and not any(name.startswith(AVERAGES) for name in state):
        raise BenchError(
            f"{where} holds no averaged weights ({AVERAGES}*), which the catalogue's entry asks "
            "for (ema: true)"
        )
    shapes = dict(expected)
    optional = SCHEDULE | SAMPLER | AVERAGE_COUNTERS | {SCALE_FACTOR}
    if ema:
        shapes |= {average: expected[name] for name, average in averages.items()}
    else:
        optional |= set(averages.values())
    check_keys(shapes, state, optional, where)
    weights = {key: state[averages[key] if ema and key in averages else key] for key in expected}
    for key, value in weights.items():
        _check_values(key, value, where)
    return weights | {key: state[key] for key in (SCALE_FACTOR,) if key in state}


def check_keys(
    expected: Mapping[str, torch.Size],
    found: Mapping[str, Tensor],
    optional: Collection[str],
    where: str,
) -> None:
    """Compare the names and shapes of tensors with those of a model.

    Args:
        expected: must all be there.
        found: the tensors.
        optional: names that may be there; those of a first stage's loss always may.
        where: the file, for messages.

    Raises:
        BenchError: a name is missing or unexpected, or a shape differs.
    """
    missing = expected.keys() - found.keys()
    unexpected = {
        key
        for key in found.keys() - expected.keys() - set(optional)
        if not key.startswith(FIRST_STAGE_LOSS)
    }
    if missing or unexpected:
        raise BenchError(
            f"{where} is not this model: {_listed('missing', missing)}; "
            f"{_listed('unexpected', unexpected)}"
        )
    for key, shape in expected.items():
        if found[key].shape != shape:
            raise BenchError(
                f"{where} is not this model: {key} is {tuple(found[key].shape)}, "
                f"the catalogue's is {tuple(shape)}"
            )


def _check_values(key: str, value: Tensor, where: str) -> None:
    if not value.is_floating_point():
        raise BenchError(f"{where}: {key} holds {value.dtype}, not floating-point numbers")
    if not value.isfinite().all():
        raise BenchError(f"{where}: {key} holds infinite or undefined values; get the file again")


def _listed(what: str, keys: Iterable[str]) -> str:
    names = sorted(keys)
    rest = f", and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else ""
    shown = f" ({', '.join(names[:KEYS_SHOWN])}{rest})" if names else ""
    return f"{len(names)} {what} key(s){shown}"
