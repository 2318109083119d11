"""Time and peak memory of the metrics on random features, against plain versions of them.

    OMP_NUM_THREADS=2 python benchmarks/metrics.py --output metrics.json
    OMP_NUM_THREADS=1 python benchmarks/metrics.py --images 5000 --reference 2000 --plain

The default sizes are those of the paper's suite: 50 000 generated images, 10 000 reference images,
Inception's widths. The plain versions hold every pair in one float64 matrix and take scipy's matrix
root, so they are for small sets; both must give the same values, or the script stops. Each runs in
a process of its own, whose peak memory includes the features and PyTorch.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from hqdm_bench.evaluate import frechet_distance, inception_score
from hqdm_bench.evaluate.bootstrap import draw_images, frechet_replicates
from hqdm_bench.evaluate.frechet import FrechetTarget
from hqdm_bench.evaluate.moments import Moments, streaming_moments
from hqdm_bench.evaluate.overlap import measure_overlap

POOL, SPATIAL, CLASSES = 2048, 2023, 1008
K = 3
TOLERANCE = {"precision": 0.0, "recall": 0.0, "kid": 1e-7}  # others relative, 1e-6


def features(count: int, width: int, stretch: float, seed: int) -> Tensor:
    """(count, width) float32 as a ReLU leaves them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator).mul_(stretch).relu_()


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure one of the two versions in this process."""
    n, m = arguments.images, arguments.reference
    generated, reference = features(n, POOL, 1.0, 0), features(m, POOL, 1.02, 1)
    spatial, spatial_reference = features(n, SPATIAL, 1.0, 2), features(m, SPATIAL, 1.05, 3)
    logits = 4 * features(n, CLASSES, 1.0, 4)
    seconds: dict[str, float] = {}
    values: dict[str, float] = {}

    def timed(name: str, call: Callable[[], dict[str, float]]) -> None:
        start = time.perf_counter()
        values.update(call())
        seconds[name] = time.perf_counter() - start

    if arguments.part == "plain":
        timed("fid", lambda: {"fid": plain_frechet(generated, reference)})
        timed("sfid", lambda: {"sfid": plain_frechet(spatial, spatial_reference)})
        timed("is", lambda: {"is": plain_score(logits)})
        timed("pairs", lambda: plain_pairs(generated, reference))
    else:
        of_reference = streaming_moments([reference]), streaming_moments([spatial_reference])
        timed("fid", lambda: {"fid": frechet_distance(generated, of_reference[0])})
        timed("sfid", lambda: {"sfid": frechet_distance(spatial, of_reference[1])})
        timed("is", lambda: {"is": inception_score(logits)})
        timed("is_shuffled", lambda: {"is_shuffled": inception_score(logits, order="shuffled")})
        timed("pairs", lambda: pairs(generated, reference))
        if arguments.bootstrap:
            sets = generated, of_reference[0], arguments.bootstrap
            timed("fid_replicates", lambda: replicates(*sets))
    seconds["total"] = sum(seconds.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"seconds": seconds, "peak_memory_gib": peak, "values": values}


def pairs(generated: Tensor, reference: Tensor) -> dict[str, float]:
    """Precision, recall and kernel distance in blocks, from one pass."""
    found = measure_overlap(generated, reference, K)
    assert found.kernel is not None
    return {
        "precision": float(found.in_reference.double().mean()),
        "recall": float(found.in_generated.double().mean()),
        "kid": float(found.kernel[0]),
    }


def replicates(generated: Tensor, reference: Moments, count: int) -> dict[str, float]:
    """Bootstrap of one Frechet distance."""
    target, draws = FrechetTarget(reference.gaussian), draw_images(len(generated), count)
    return {"fid_error": float(frechet_replicates(generated, draws, target).std())}


def plain_frechet(generated: Tensor, reference: Tensor) -> float:
    """By numpy's covariance and scipy's matrix root."""
    a, b = (points.double().numpy() for points in (generated, reference))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second)
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return float(shift + np.trace(first + second) - 2 * np.trace(root).real)


def plain_score(logits: Tensor) -> float:
    """With the class probabilities of all images at once."""
    scores = []
    p = logits.double().softmax(1).numpy()
    for start in range(0, len(p), 5000):
        part = p[start : start + 5000]
        divergence = part * (np.log(part) - np.log(part.mean(0)))
        scores.append(np.exp(divergence.sum(1).mean()))
    return float(np.mean(scores))


def plain_pairs(generated: Tensor, reference: Tensor) -> dict[str, float]:
    """With every distance and every value of the kernel in memory, in double precision."""
    x, y = generated.double(), reference.double()

    def squared(a: Tensor, b: Tensor) -> Tensor:
        return a.square().sum(1)[:, None] - 2 * a @ b.T + b.square().sum(1)

    def radii(points: Tensor) -> Tensor:
        return squared(points, points).fill_diagonal_(torch.inf).kthvalue(K, 1).values

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(points: Tensor) -> Tensor:
        values = kernel(points, points)
        return (values.sum() - values.trace()) / (len(points) * (len(points) - 1))

    of_x, of_y, mixed = radii(x), radii(y), squared(x, y)
    return {
        "precision": float((mixed <= of_y).any(1).double().mean()),
        "recall": float((of_x >= mixed.T).any(1).double().mean()),
        "kid": float(within(x) + within(y) - 2 * kernel(x, y).mean()),
    }


def measured(arguments: list[str], part: str) -> dict[str, object]:
    """What a process of its own reports of one version."""
    command = [sys.executable, __file__, *arguments, "--part", part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def compare(ours: dict[str, float], plain: dict[str, float]) -> None:
    """Stop where the two versions disagree."""
    for key, value in plain.items():
        allowed = TOLERANCE.get(key, 1e-6 * abs(value))
        if abs(ours[key] - value) > allowed:
            raise SystemExit(f"{key}: {ours[key]} here, {value} plainly")


def cpu() -> str:
    """Name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--reference", type=int, default=10_000)
    parser.add_argument("--bootstrap", type=int, default=0, help="also this many replicates of FID")
    parser.add_argument("--plain", action="store_true", help="also the plain versions")
    parser.add_argument("--output", type=Path, help="JSON file (default: standard output)")
    parser.add_argument("--part", choices=("ours", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(run(arguments)))
        return
    found: dict[str, object] = {
        "cpu": cpu(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "images": arguments.images,
        "reference_images": arguments.reference,
    }
    sizes = [f"--{key}={getattr(arguments, key)}" for key in ("images", "reference", "bootstrap")]
    found["ours"] = ours = measured(sizes, "ours")
    if arguments.plain:
        found["plain"] = plain = measured(sizes, "plain")
        compare(ours["values"], plain["values"])  # type: ignore[arg-type]
    text = json.dumps(found, indent=2) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
