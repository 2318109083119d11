"""CPU time of fused fake quantization, against the plain formulas and the layer it feeds.

    OMP_NUM_THREADS=1 python benchmarks/fake_quant.py

Shapes are those of the embedded models at a training batch of 8 (16 rows with guidance). Times are
CPU time of the calling thread, the best of several rounds, so a busy machine hardly changes them.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization.functional import fake_quantize, lora_fake_quantize
from hqdm_bench.quantization.reference import plain_fake_quantize, plain_lora_fake_quantize

ACTIVATIONS = ((16, 64, 8, 8), (16, 128, 4, 4), (16, 192, 8, 8), (16, 64, 64), (16, 256))
WEIGHTS = ((64, 64, 3, 3), (128, 128, 3, 3), (512, 64))
ROUNDS, CALLS = 15, 20
AFFINE, SYMMETRIC = (0, 15), (-7, 7)


def microseconds(call: Callable[[], object]) -> float:
    """Best mean CPU time of a call."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.thread_time()
        for _ in range(CALLS):
            call()
        best = min(best, (time.thread_time() - start) / CALLS)
    return best * 1e6


def plain(
    x: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    step: int,
    limits: tuple[int, int],
    rotation: BlockRotation | None,
) -> Tensor:
    """The plain formula with the signature of the fused one."""
    zero = None if zeros is None else zeros[step]
    y = x if rotation is None else rotation(x)
    y = plain_fake_quantize(y, scales[step], zero, *limits)
    return y if rotation is None else rotation(y)


def activation(shape: tuple[int, ...]) -> None:
    """One input: forward and backward through the quantizer, and through the layer behind it."""
    x, cotangent = torch.randn(shape, requires_grad=True), torch.randn(shape)
    scales = torch.full((20,), 0.4, requires_grad=True)
    zeros = torch.full((20,), 7.3, requires_grad=True)
    image = len(shape) == 4
    weight = torch.randn(64, shape[1 if image else -1], *([3, 3] if image else []))
    weight.requires_grad_()

    def layer() -> Tensor:
        return functional.conv2d(x, weight, None, 1, 1) if image else functional.linear(x, weight)

    def backward(out: Tensor, *inputs: Tensor) -> None:
        torch.autograd.grad(
            out, inputs, cotangent if out.shape == x.shape else torch.ones_like(out)
        )

    times = [microseconds(lambda: backward(layer(), x, weight))]
    for table, limits, rotation in (
        (zeros, AFFINE, None),
        (None, SYMMETRIC, BlockRotation(5, 1 if image else -1)),
    ):
        for quantize in (fake_quantize, plain):
            leaves = [scales] if table is None else [scales, table]
            arguments = (x, scales, table, 7, limits, rotation)

            def train(quantize=quantize, leaves=leaves, arguments=arguments) -> None:
                backward(quantize(*arguments), x, *leaves)

            times.append(microseconds(train))
        with torch.no_grad():
            times.append(microseconds(lambda a=arguments: fake_quantize(*a)))
    layer_time, *rest = times
    print(f"{shape!s:18}{layer_time:8.0f}", end="")
    for fused, reference, frozen in (rest[:3], rest[3:]):
        print(f"  | {fused:6.0f}{reference:7.0f}{reference / fused:6.2f}{frozen:7.0f}", end="")
    print()


def weight(shape: tuple[int, ...]) -> None:
    """One effective weight: forward and backward to the update and both step sizes."""
    column = (shape[0], *[1] * (len(shape) - 1))
    codes = torch.randint(0, 16, shape, dtype=torch.uint8)
    zero, scale = torch.full(column, 7.0), torch.full(column, 0.01, requires_grad=True)
    base_scale = scale.detach().requires_grad_()
    lora_A = (torch.randn(8, *shape[1:]) / 100).requires_grad_()
    lora_B = (torch.randn(shape[0], 8, *column[2:]) / 10).requires_grad_()
    cotangent = torch.randn(shape)
    leaves = (lora_A, lora_B, scale, base_scale)

    def train(function: Callable[..., Tensor]) -> None:
        out = function(lora_A, lora_B, scale, zero, codes, base_scale, 15)
        torch.autograd.grad(out, leaves, cotangent)

    fused = microseconds(lambda: train(lora_fake_quantize))
    reference = microseconds(lambda: train(plain_lora_fake_quantize))
    print(f"{shape!s:18}{fused:8.0f}{reference:8.0f}{reference / fused:6.2f}")


def main() -> None:
    torch.set_num_threads(1)
    print("microseconds, forward and backward; 'no grad' is the forward pass alone\n")
    print(f"{'':26}  | {'affine, learned zero-point':26}  | symmetric in two rotations")
    titles = "  |  fused  plain ratio no grad"
    print(f"{'input':18}{'layer':>8}{titles}{titles}")
    for shape in ACTIVATIONS:
        activation(shape)
    print(f"\n{'weight, rank 8':18}{'fused':>8}{'plain':>8}{'ratio':>6}")
    for shape in WEIGHTS:
        weight(shape)


if __name__ == "__main__":
    main()
