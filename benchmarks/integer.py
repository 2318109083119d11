"""Integer execution against float32, bfloat16 and fake quantization: layers and whole UNets.

    OMP_NUM_THREADS=1 python benchmarks/integer.py --output integer.json
    python benchmarks/integer_plot.py integer.json integer

Full-size UNets with random weights, W4A4 HQ-DM, one row of step tables. The forms of a UNet take
turns, round after round, and the best of each counts. With one thread times are CPU seconds of
the process, which other work on the machine disturbs less; with more they are wall-clock seconds.
The peaks of the same run say what share of them a layer reaches.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from integer_common import calibrated_student, call_of, full_size
from integer_forms import end_to_end
from integer_layers import layer_times
from timing import seconds

from hqdm_bench.integer import byte_report, choose_kernel, compare_codes, convert
from hqdm_bench.integer.geometry import Geometry

GIGA = 1e9


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "clock": "cpu" if torch.get_num_threads() == 1 else "wall",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def peaks() -> dict[str, float]:
    """Multiply-accumulates a second, in 10^9, of products that fit the caches."""
    a, b = torch.randn(512, 1024), torch.randn(1024, 512)
    count = 512 * 1024 * 512 / GIGA
    found = {"float32": count / seconds(lambda: a @ b, 20)}
    rows = b.t().contiguous()
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        found["float32, oneDNN"] = count / seconds(
            lambda: torch.ops.mkldnn._linear_pointwise(a, rows, None, "none", [], ""), 20
        )
    half, other = a.bfloat16(), b.bfloat16()
    found["bfloat16"] = count / seconds(lambda: half @ other, 20)
    weight = torch.randint(-127, 128, (512, 1024), dtype=torch.int8)
    kernel = choose_kernel("auto")[0](weight, torch.ones(512), Geometry("linear"), 2**30)
    codes = torch.randint(0, 15, (512, 1024), dtype=torch.uint8)
    found["int8"] = count / seconds(lambda: kernel(codes, 7, 1.0, None), 20)
    return found


def bandwidth() -> float:
    """10^9 bytes a second that a copy reads and writes, beyond the caches."""
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / GIGA / seconds(lambda: target.copy_(source), 5)


def one_model(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one UNet."""
    unet, shape, context = full_size(name)
    call = call_of(shape, context, 1)
    student = calibrated_student(unet, [call])
    integer = convert(student)
    print(f"{name}: {integer.report.summary()}", flush=True)
    agreement = compare_codes(student, integer, [call])
    result: dict[str, Any] = {
        "bytes": byte_report(integer),
        "codes": {"compared": agreement.total, "different": sum(agreement.different.values())},
        "end_to_end": {
            batch: end_to_end(
                unet, student, integer, call_of(shape, context, batch), arguments.rounds
            )
            for batch in arguments.batches
        },
    }
    if not arguments.skip_layers:
        result["layers"] = layer_times(unet, student, integer, call, arguments.rounds)
    return result


def summary(name: str, result: dict[str, Any], peak: float) -> None:
    codes = result["codes"]
    print(f"{name}: {codes['different']} of {codes['compared']:,} codes differ")
    for batch, forms in result["end_to_end"].items():
        base = forms["integer"]["seconds"]
        for form, entry in forms.items():
            ratio = entry["seconds"] / base
            text = f"  batch {batch} {form}: {entry['seconds']:.3f} s, {ratio:.2f} times integer"
            print(f"{text}, {entry['working_bytes'] / 1e6:.0f} MB of working memory")
    convs = [entry for entry in result.get("layers", []) if entry["kind"] == "conv2d"]
    if convs:
        macs = sum(entry["macs"] * entry["count"] for entry in convs)
        for part in ("multiply", "integer", "float32"):
            rate = macs / GIGA / sum(entry[part] * entry["count"] for entry in convs)
            print(f"  convolutions, {part}: {rate:.0f}, {rate / peak:.2f} of the int8 peak")
    print("  bytes:", result["bytes"], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["imagenet", "bedrooms", "churches"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-layers", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "peaks": peaks(), "models": {}}
    result["bandwidth"] = bandwidth()
    print(json.dumps(result["machine"]))
    print("10^9 multiply-accumulates a second:", {k: round(v) for k, v in result["peaks"].items()})
    for name in arguments.models:
        result["models"][name] = one_model(name, arguments)
        summary(name, result["models"][name], result["peaks"]["int8"])
        if arguments.output:
            arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
