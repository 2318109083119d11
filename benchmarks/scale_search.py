"""CPU time of the scale search, against a loop over channels and candidates.

    OMP_NUM_THREADS=1 python benchmarks/scale_search.py

The loop scores candidate after candidate, channel after channel, as the released code does. Both
must choose the same candidates; the script stops if they do not.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from hqdm_bench.quantization import mse_grid

CASES = (
    ("conv 64x64x3x3, per channel", (64, 64, 3, 3), True),
    ("conv 192x192x3x3, per channel", (192, 192, 3, 3), True),
    ("linear 512x64, per channel", (512, 64), True),
    ("input 16x64x8x8", (16, 64, 8, 8), False),
    ("input 32x192x8x8", (32, 192, 8, 8), False),
)
BITS = 4


def loop(x: Tensor, per_channel: bool) -> Tensor:
    """Winning candidates by the textbook loop."""
    best = []
    for row in x.flatten(1) if per_channel else x.reshape(1, -1):
        lowest, highest = row.min(), row.max()
        scores = []
        for index in range(80):
            low, high = lowest * (1 - 0.01 * index), highest * (1 - 0.01 * index)
            scale = (high - low) / (2**BITS - 1)
            zero = (-low / scale).round()
            codes = ((row / scale).round() + zero).clamp(0, 2**BITS - 1)
            scores.append(((codes - zero) * scale - row).abs().pow(2.4).mean())
        best.append(torch.stack(scores).argmin())
    return torch.stack(best)


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """Best CPU time of a call."""
    best = float("inf")
    for _ in range(rounds):
        start = time.thread_time()
        call()
        best = min(best, time.thread_time() - start)
    return best * 1e3


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    print(f"milliseconds, {BITS} bits, 80 candidates\n")
    print(f"{'data':32}{'search':>10}{'loop':>10}{'ratio':>8}")
    for name, shape, per_channel in CASES:
        x = torch.randn(shape, generator=generator)
        found = mse_grid(x, BITS, per_channel).best_index
        if not torch.equal(found.view(-1), loop(x, per_channel)):
            raise SystemExit(f"{name}: search and loop disagree")
        ours = milliseconds(lambda x=x, by=per_channel: mse_grid(x, BITS, by), 5)
        theirs = milliseconds(lambda x=x, by=per_channel: loop(x, by), 2)
        print(f"{name:32}{ours:10.1f}{theirs:10.1f}{theirs / ours:8.1f}")


if __name__ == "__main__":
    main()
