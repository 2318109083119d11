"""The GPU backend without a GPU: its kernels interpreted, compiled, and its refusals."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.integer import backends, choose_kernel
from hqdm_bench.integer.graphs import StepGraphs
from hqdm_bench.quantization import StepIndex

HERE = Path(__file__).parent
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")


@needs_triton
def test_kernels_in_the_interpreter() -> None:
    """`test_triton_kernels.py`, in a process that has the interpreter instead of the compiler."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [*command, str(HERE / "test_triton_kernels.py")],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled anew, and nothing left in the user's cache."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any]) -> str:
    """PTX for an H200; no GPU is needed for that."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    names = kernel.arg_names
    aligned = [
        (place,)
        for place, name in enumerate(names)
        if name != "zero" and name not in constants and types.get(name, "*").startswith("*")
    ]
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in constants else types.get(name, "i32") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={place: [["tt.divisibility", 16]] for place in aligned},
    )
    options = {"num_warps": 4, "enable_fp_fusion": False}
    return str(compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"])


@needs_triton
@pytest.mark.parametrize("order", [0, 5, 7])
def test_the_code_kernel_compiles_to_the_stated_arithmetic(order: int, no_cache: None) -> None:
    from hqdm_bench.integer.triton_encode import encode_kernel

    types = {"source": "*fp32", "out": "*i8", "centre": "*fp32", "signs": "*fp32"}
    types |= {"scale": "fp32", "low": "fp32", "high": "fp32"}
    constants = {"ORDER": order, "FACTOR": 2.0 ** (-order / 2), "SIZE": 2048}
    constants |= {"HAS_CENTRE": True, "HAS_SIGNS": True}
    text = compiled(encode_kernel, types, constants)
    assert "div.rn.f32" in text
    for wrong in ("div.full", "div.approx", "fma.rn.f32", "ftz", "ex2", "rcp"):
        assert wrong not in text


@needs_triton
@pytest.mark.parametrize("has_zero", [False, True])
def test_the_convolution_compiles_to_int8_tensor_cores(has_zero: bool, no_cache: None) -> None:
    from hqdm_bench.integer.triton_product import product_kernel

    types = {"codes": "*i8", "weight": "*i8", "sums": "*i32", "channel_scale": "*fp32"}
    types |= {"bias": "*fp32", "out": "*bf16", "scale": "fp32"}
    constants: dict[str, Any] = {"KERNEL_H": 3, "KERNEL_W": 3, "PAD_H": 1, "PAD_W": 1}
    constants |= {"STRIDE_H": 1, "STRIDE_W": 1, "DILATION_H": 1, "DILATION_W": 1}
    constants |= {"ROWS": 128, "COLUMNS": 64, "CHUNK": 64, "HAS_BIAS": True}
    constants |= {"HAS_ZERO": has_zero, "WHOLE_CHUNKS": True}
    text = compiled(product_kernel, types, constants)
    assert "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8" in text
    assert "cp.async.cg.shared.global" in text  # 16 bytes at a time, without registers


def test_the_backend_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match=r"convert student.cuda\(\)"):
        choose_kernel("cuda")
    with pytest.raises(BenchError, match="multiplies on the CPU and the student is on cuda"):
        choose_kernel("reference", "cuda")
    if HAS_TRITON and not torch.cuda.is_available():
        with pytest.raises(BenchError, match="no CUDA device"):
            choose_kernel("auto", "cuda")
    monkeypatch.setitem(sys.modules, "hqdm_bench.integer.triton_kernel", None)
    with pytest.raises(BenchError, match="install the package 'triton'"):
        backends.import_triton_kernel()


class Scaled(nn.Module):
    """Returns x + row + shift; counts its calls."""

    def __init__(self, step: StepIndex) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.step, self.calls = step, 0

    def forward(self, x: Any, shift: Any = None) -> Any:
        self.calls += 1
        return (x + self.step.row + (0 if shift is None else shift)).detach()


def recorder(step: StepIndex) -> Any:
    """Stands in for CUDA graphs: what was recorded keeps the step that it was recorded at."""

    def record(call: Any) -> Any:
        output, recorded = call(), step.timesteps[step.index]

        def replay() -> None:
            now = step.timesteps[step.index]
            step.set(recorded)
            output.copy_(call())
            step.set(now)

        return output, replay

    return record


def test_one_recording_a_step_and_shape() -> None:
    step = StepIndex((1, 501))
    graphs = StepGraphs(Scaled(step), step, recorder(step))
    results = []
    for t, size in ((1, 3), (501, 3), (1, 3), (501, 4), (501, 3)):
        step.set(t)
        x = torch.full((size,), float(len(results)))
        results.append(graphs(x))
        assert torch.equal(results[-1], x + step.index)
    assert len(graphs) == 3
    assert results[0].tolist() == [0, 0, 0]  # not written over by a later replay
    step.set(1)
    assert graphs(torch.zeros(3), shift=torch.ones(3)).tolist() == [1, 1, 1]
    assert len(graphs) == 4


def test_graphs_are_refused_off_the_gpu_and_for_other_results() -> None:
    step = StepIndex((1, 501))
    with pytest.raises(BenchError, match="need a network on a GPU"):
        StepGraphs(Scaled(step), step)
    step.set(1)
    graphs = StepGraphs(Scaled(step), step, lambda call: ((call(), 1), lambda: None))  # type: ignore[arg-type,return-value]
    with pytest.raises(BenchError, match="returns one tensor"):
        graphs(torch.zeros(2))
