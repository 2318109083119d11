"""What every method must do, whoever adds it: building, training, levels.

The cases come from the registry (conftest.py): each method, its presets, each value of its options.
"""

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.distill import AdamW
from hqdm_bench.methods import Method, MethodOptions, Student, available_methods
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import ChannelStep, ExactInput, QuantizedLayer

STEP = 1  # the row in use
ONE_TOKEN = ("attn2.to_q", "attn2.to_k")  # softmax is 1 whatever they say
Make = Callable[..., Student]
Calls = list[tuple[Tensor, Tensor, Tensor]]


def test_the_cases_take_every_value_of_every_option(
    all_cases: list[MethodSpec], option_values: Callable[[Method], dict[str, tuple[Any, ...]]]
) -> None:
    for name, method in available_methods().items():
        own = [case for case in all_cases if case.implementation == name]
        resolved = [method.options.read(case.options, name).resolved() for case in own]
        for option, others in option_values(method).items():
            default = method.options.read({}, name).resolved()[option]
            assert {default, *others} <= {options[option] for options in resolved}, option
        presets = {case.options.get("preset", "as_code") for case in own}
        assert presets == set(method.options.presets())


def test_builds_and_leaves_the_module_alone(
    case: MethodSpec, calibrated: Make, move: Callable, teacher: LatentDiffusion, calls: Calls
) -> None:
    module = teacher.unet
    before, parameters = copy.deepcopy(module), list(module.parameters())
    entry = available_methods()[case.implementation]
    student = move(calibrated(case))
    assert student.method == case.implementation
    assert student.options == entry.options.read(case.options, case.name)
    assert student.options.resolved().keys() == {field.name for field in fields(entry.options)}
    assert student(*calls[STEP]).shape == calls[STEP][0].shape
    assert student.calibrated
    # The toy is the session's: what building, calibrating and moving did to it would show here.
    assert str(module) == str(before)
    for old, new in zip(before.parameters(), parameters, strict=True):
        assert torch.equal(old, new)
        assert new.requires_grad


def test_sixteen_bits_are_full_precision(
    case: MethodSpec, calibrated: Make, shared_toy: LatentDiffusion, calls: Calls
) -> None:
    """A step is 1/65535 of the range, an error at most half of it.

    With a range of at most 20 standard deviations that is 9e-5 (rms) an operand, and 7e-4 when the
    errors of some thirty layers' two operands add up. A transform that is not undone, a centre that
    is not put back or a forgotten scale are of the order of one.
    """
    options: dict[str, Any] = {"policy": "full"} if "policy" in available_fields(case) else {}
    method = available_methods()[case.implementation]
    own = method.options.read(case.options, case.name).resolved()
    if str(own.get("activation_range")).startswith("ema"):
        options["activation_range"] = "minmax"  # an average of two calls clips the wider one
    if own.get("attention") == "quantized":
        options["softmax_bits"] = 16
    if case.implementation == "fp":
        student, most = calibrated(case), 0.0
    else:
        student, most = calibrated(case, bits=Bits(16, 16), **options), 1e-3
    with torch.no_grad():
        for call in calls:
            expected = shared_toy.unet(*call)
            assert (student(*call) - expected).norm() <= most * expected.norm()


def available_fields(case: MethodSpec) -> set[str]:
    return {field.name for field in fields(available_methods()[case.implementation].options)}


def test_gradients_reach_every_trainable_tensor_and_nothing_else(
    trained: MethodSpec,
    calibrated: Make,
    move: Callable,
    shared_toy: LatentDiffusion,
    recipe: Recipe,
    calls: Calls,
) -> None:
    student = move(calibrated(trained))
    student(*calls[STEP]).square().sum().mul(100).backward()
    groups = student.parameter_groups(recipe)
    updated = {id(parameter) for group in groups for parameter in group["params"]}
    assert updated == {id(p) for layer in student.low_bit_layers().values() for p in
                       layer.parameters()}  # fmt: skip
    others = [row for row in range(recipe.steps) if row != STEP]
    for name, layer in student.low_bit_layers().items():
        for key, parameter in layer.named_parameters():
            gradient = parameter.grad
            assert gradient is not None, f"{name} {key}"
            assert gradient.isfinite().all()
            # On the grid already: one token is the value, which has the same range.
            exact = "attn2.to_out" in name and bool(student.quantized_attention())
            if not has_no_say(name, key, layer) and not (exact and "activation" in key):
                assert gradient.abs().max() > 1e-6, f"{name} {key}"
            if key.startswith("activation") or ("scale" in key and layer.weight.steps):
                shared = key.startswith("activation") and len(gradient) == 1
                assert shared or not gradient[others].any()
    for name, parameter in student.named_parameters():
        if id(parameter) not in updated:
            assert parameter.grad is None, name
            assert not parameter.requires_grad, name
    assert not any(buffer.requires_grad for buffer in student.buffers())
    assert all(parameter.grad is None for parameter in shared_toy.parameters())


def has_no_say(name: str, key: str, layer: QuantizedLayer) -> bool:
    """Whether a parameter cannot have a gradient in this network."""
    # A zero-point's gradient comes from clipped values only, and there may be none.
    # Of an input that is all centre nothing is left to quantize, and what feeds such a layer alone,
    # as the layers of the time embedding do, cannot change what it sees.
    constant = only_centre(name, layer) and (key.startswith("activation") or "_embed." in name)
    alone = any(token in name for token in ONE_TOKEN)
    return alone or key == "activation.zero" or constant


def only_centre(name: str, layer: QuantizedLayer) -> bool:
    """Whether the centre is all there is to a layer's input.

    All rows of a step share the time embedding, so nothing is left beside its mean.
    """
    return layer.centre is not None and name.endswith(("emb_layers.1", "time_embed.0", "_embed.2"))


def test_a_few_updates_lower_the_loss_on_one_batch(
    trained: MethodSpec,
    calibrated: Make,
    move: Callable,
    shared_toy: LatentDiffusion,
    recipe: Recipe,
    calls: Calls,
) -> None:
    # Eight bits and a disturbed start: at four bits the flips of codes drown five updates.
    student = move(calibrated(trained, bits=Bits(8, 8)))
    with torch.no_grad():
        target = shared_toy.unet(*calls[STEP])
    # Weights trained in full are to move alike, whatever their share of the rate.
    divisor = 0.5 * max(1.0, student.options.full_weight_share / MethodOptions().full_weight_share)
    optimiser = AdamW(student.parameter_groups(replace(recipe, lora_lr_divisor=divisor)))
    losses = []
    for _ in range(5):
        loss = (student(*calls[STEP]) - target).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(1.0, student.step.index)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_weights_are_codes_of_the_bits(
    quantized: MethodSpec, calibrated: Make, move: Callable, recipe: Recipe
) -> None:
    student = move(calibrated(quantized)).double()
    low_bit = student.low_bit_layers()
    for name, layer in student.quantized_layers().items():
        bits = 4 if name in low_bit else 8
        for row in range(recipe.steps):
            codes = layer.weight.effective_codes(row)
            assert not codes.is_floating_point()
            assert codes.min() >= 0
            highest: Any = 2**bits - 1
            widths = getattr(layer.weight, "channel_bits", None)
            if widths is not None:
                assert widths.sum() == bits * len(codes)
                highest = 2 ** widths.long() - 1
            assert (codes.flatten(1).amax(1) <= highest).all()
            scale = layer.weight.scale if layer.weight.steps is None else layer.weight.scale[row]
            expected = (codes.double() - layer.weight.zero) * scale
            torch.testing.assert_close(layer.weight(row), expected, rtol=1e-12, atol=0)
        if name in low_bit:
            assert max(len(channel.unique()) for channel in codes.flatten(1)) > 8


def test_inputs_are_codes_of_the_bits_as_the_quantizer_sees_them(
    quantized: MethodSpec, calibrated: Make, calls: Calls
) -> None:
    """Integers from the lowest to the highest code, in centred and rotated coordinates."""
    student = calibrated(quantized).double()
    for name, (codes, bits, layer) in seen_codes(student, calls).items():
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-6)
        assert len(codes.round().unique()) <= 2**bits
        # Two values of a channel are the two ends of its range.
        few = isinstance(layer.activation, ChannelStep) and len(codes) <= 2
        assert len(codes.round().unique()) > 2 or only_centre(name, layer) or few
        assert codes.max() - codes.min() < 2**bits - 0.5


def test_levels_with_trained_zero_points(
    trained: MethodSpec, calibrated: Make, calls: Calls
) -> None:
    """A zero-point that training made a real number adds one level, clipped values are not integer.

    EfficientDM's grid from 0 to 2^b - 1 holds 2^b - 1 integers then, and its two limits; a method
    that rounds zero-points where it uses them keeps 2^b integers.
    """
    student = calibrated(trained).double()
    with torch.no_grad():
        for layer in student.low_bit_layers().values():
            if layer.activation.zero is not None:
                layer.activation.zero.add_(0.3)
    for codes, bits, layer in seen_codes(student, calls).values():
        inside = (codes > codes.min() + 1e-6) & (codes < codes.max() - 1e-6)
        torch.testing.assert_close(codes[inside], codes[inside].round(), rtol=0, atol=1e-6)
        real = layer.activation.zero is not None and not is_integer(layer)
        assert len((codes * 1e6).round().unique()) <= 2**bits + real


def is_integer(layer: QuantizedLayer) -> bool:
    _, zero, step = layer.activation._tables(STEP)
    return bool((zero[step] - zero[step].round()).abs() < 1e-9)


def seen_codes(student: Student, calls: Calls) -> dict[str, tuple[Tensor, int, QuantizedLayer]]:
    """x_hat / scale of every layer in the coordinates of its quantizer, with the bits.

    Where channels have grids of their own the zero-points are added, so that all share one range.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: Any, given: tuple[Any, ...], out: Tensor) -> None:
            rotation = given[2] if len(given) > 2 else None
            seen[name] = out if rotation is None else rotation(out)

        return hook

    every = student.quantized_layers().items()
    layers = {name: one for name, one in every if not isinstance(one.activation, ExactInput)}
    for name, layer in layers.items():
        layer.activation.register_forward_hook(keep(name))
    x, t, context = calls[STEP]
    with torch.no_grad():
        student(x.double(), t, context.double())
    assert seen.keys() == layers.keys()
    found = {}
    for name, layer in layers.items():
        scale = layer.activation.scale[STEP % len(layer.activation.scale)].detach()
        codes = by_channel(seen[name], layer) / scale
        zero = layer.activation.zero
        if zero is not None and zero.dim() > 1:  # channels have zero-points of their own
            codes = codes + zero[STEP % len(zero)]
        bits = layer.activation.bits  # policies may give an input 8 instead of the low bits
        assert bits in ((student.bits.activation, 8) if layer.low_bit else (8,))
        found[name] = (codes, bits, layer)
    return found


def by_channel(x: Tensor, layer: QuantizedLayer) -> Tensor:
    """An input with its channels last where they have step sizes of their own."""
    quantizer = layer.activation
    return quantizer.by_channel(x) if isinstance(quantizer, ChannelStep) else x
