"""An integer student as an ONNX file.

The layers become ONNX's integer operators (`onnx_layer`); everything between them goes through
torch.onnx. Which row of the step tables applies is worked out from the timestep in the file, so one
file serves every step.
"""

import copy
import importlib.util
import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import atomic_path
from hqdm_bench.integer.attention import plain_attention
from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.integer.onnx_layer import OnnxLayer, Trace
from hqdm_bench.integer.pointwise import PointwiseConvolution
from hqdm_bench.integer.student import IntegerStudent
from hqdm_bench.quantization import StepIndex, replace

__all__ = ["export_onnx"]

OPSET = 18
NEEDED = ("onnx", "onnxscript")
LARGEST_FILE = 2**31 - 1  # a protocol buffer holds no more


def export_onnx(
    student: IntegerStudent, path: Path | str, *example: Tensor, probe: bool = False
) -> int:
    """Write an integer student as an ONNX file, and return its bytes.

    Inputs have the names of the network's arguments, the output is ``output``. The batch may have
    any size; height, width and tokens are those of the example. Timesteps are one number a row of
    the batch, all equal. A batch that mixes them, or one without a row in the table, makes the file
    read beyond the table, which ONNX Runtime refuses with "indices element out of data bounds". A
    student with steps ``interpolate`` takes the timesteps of its table only. NaN and infinity are
    not looked for.

    Args:
        student: from `convert` or `load`, integer throughout.
        path: a .onnx file.
        example: what the student is called with; of any batch, at any timestep of its table.
        probe: further outputs for checks: input, bytes and int32 sums of every layer, named
            ``{layer}:input``, ``:codes`` and ``:sums`` (rotated along the width ``:codes1``,
            ``:sums1``, ``:codes128`` and ``:sums128``).

    Raises:
        BenchError: a package is missing, a layer or the products of an attention are fake-quantized
            still, a layer is called with inputs of different shapes, a zero-point is no byte, the
            timestep is no argument, or the file would pass 2 GiB.
    """
    names = list(inspect.signature(type(student.network).forward).parameters)[1:][: len(example)]
    _check(student, names)
    assert student.step is not None
    assert student.request.timestep_argument is not None
    # A batch of one would be taken for a constant.
    example = tuple(x if len(x) > 1 else x.expand(2, *x.shape[1:]) for x in example)
    shapes = _shapes(student, example)
    trace = Trace(probe=probe)
    network = _replaced(student, shapes, trace)
    place = names.index(student.request.timestep_argument)
    layers = {each.name: each for each in network.modules() if isinstance(each, OnnxLayer)}
    probes = [end for name in shapes for end in layers[name].probe_names()] if probe else []
    model = _export(_Form(network, student.step, place, trace), example, names, probes)
    size = model.ByteSize()
    if size > LARGEST_FILE:
        raise BenchError(
            f"the ONNX file would hold {size:,} bytes, more than a protocol buffer can; save the "
            "student as safetensors"
        )
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return int(size)


def _check(student: IntegerStudent, names: list[str]) -> None:
    if student.report.fake_attention:
        raise BenchError(
            "an ONNX file holds integer layers; the products of these attentions are "
            f"fake-quantized: {', '.join(student.report.fake_attention)}"
        )
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise BenchError(
            f"an ONNX file needs {' and '.join(missing)}; pip install 'hqdm-bench[onnx]'"
        )
    if student.report.kept:
        raise BenchError(
            "an ONNX file holds integer layers; these are not: "
            + ", ".join(layer.name for layer in student.report.kept)
        )
    if student.request.timestep_argument not in names:
        raise BenchError(
            "an ONNX file finds the row of its step tables by the timestep; the network must take "
            "it, and the example must hold it"
        )


def _shapes(student: IntegerStudent, example: tuple[Tensor, ...]) -> dict[str, torch.Size]:
    """Shape of every layer's input, in the order of the calls."""
    found: dict[str, torch.Size] = {}

    def see(name: str, args: tuple[Any, ...]) -> None:
        if found.setdefault(name, args[0].shape) != args[0].shape:
            raise BenchError(
                f"layer '{name}' is called with inputs of shapes {tuple(found[name])} and "
                f"{tuple(args[0].shape)}; an ONNX file holds its weight once"
            )

    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: see(name, args))
        for name, layer in student.integer_layers().items()
    ]
    try:
        student(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _replaced(student: IntegerStudent, shapes: dict[str, torch.Size], trace: Trace) -> nn.Module:
    """A copy of the network with layers that can be exported, in the default memory layout."""
    assert student.step is not None
    layers = student.integer_layers()
    instead: dict[int, object] = {
        id(layers[name]): OnnxLayer(layers[name], name, shape, len(student.step), trace)
        for name, shape in shapes.items()
    }
    network = copy.deepcopy(student.network, instead)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, IntegerLayer):
            replace(network, name, nn.Identity())  # never called
        elif isinstance(layer, PointwiseConvolution):
            replace(network, name, layer.plain())
        elif (attention := plain_attention(layer)) is not None:
            replace(network, name, attention)
    return network.to(memory_format=torch.contiguous_format)


class _Form(nn.Module):
    """The network behind the search for the row of the step tables."""

    step_table: Tensor

    def __init__(self, network: nn.Module, step: StepIndex, place: int, trace: Trace) -> None:
        super().__init__()
        self.network = network
        self.nearest = step.between == "pick"
        self.place = place
        self.trace = trace
        self.register_buffer("step_table", torch.tensor(step.timesteps))

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """The network's output, and the probes."""
        self.trace.probes.clear()
        self.trace.row = self._row(args[self.place])
        out = self.network(*args)
        return (out, *self.trace.probes.values())

    def _row(self, given: Tensor) -> Tensor:
        """(1,) int64; the number of rows where there is none."""
        table = self.step_table
        if self.nearest:
            distance = (table - given[:1]).abs()
            mixed = (given != given[:1]).to(torch.int64).amax(0, keepdim=True)
            row = distance.argmin(0, keepdim=True)  # the first, so the lower, of two as near
            return row + mixed * len(table)
        hits = (given.reshape(-1, 1) == table).to(torch.int64).amin(0)
        # A one behind the table wins where no row has a two.
        return torch.cat([2 * hits, hits.new_ones(1)]).argmax(0, keepdim=True)


def _export(form: _Form, example: tuple[Tensor, ...], names: list[str], probes: list[str]) -> Any:
    """The model as a protocol buffer."""
    batch = torch.export.Dim("batch")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tensors that the layers share while traced
        program = torch.onnx.export(
            form.eval(),
            example,
            input_names=names,
            output_names=["output", *probes],
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            dynamic_shapes={"args": tuple({0: batch} for _ in example)},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # Twice the size of the weights otherwise: which line of which file an operator comes from.
    graph = model.graph
    for entry in (*graph.node, *graph.value_info, *graph.input, *graph.output, graph, model):
        entry.ClearField("metadata_props")
    return model
