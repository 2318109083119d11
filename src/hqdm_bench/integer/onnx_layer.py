"""An integer layer in ONNX operators.

Float operators up to the codes, the same ones in the same order as `codes`: subtract the centre,
multiply by the signs, MatMul with the Hadamard block, Div by the step size, Round (half to even),
Add the byte that stands for zero, Clip, Cast to uint8. Then ConvInteger or MatMulInteger into
int32, and one multiplication by the scales.

Weights are bytes too, w + 128 with zero-point 128. ONNX Runtime's kernel for signed weights adds
pairs of products in 16 bits on processors without VNNI, which saturate; the one for two unsigned
operands does not. Where some output channels need a second weight digit, its rows follow the c_out
rows of the first in the same product.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.hadamard.matrix import rotation_matrix
from hqdm_bench.integer.border import tap_products
from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.integer.weights import DIGIT, INT32_LIMIT, digits, fold_codes, rotate_codes

__all__ = ["OnnxLayer", "Trace"]

OPERATOR_VERSION = 10  # of ConvInteger and MatMulInteger
WEIGHT_ZERO = 128
MOST_BYTE = 255


@dataclass
class Trace:
    """What the layers of one network share while it is traced.

    Attributes:
        row: (1,) int64, row of the step tables.
        probe: whether layers leave their input, bytes and sums in ``probes``.
        probes: of the layers called so far, by name.
    """

    row: Tensor | None = None
    probe: bool = False
    probes: dict[str, Tensor] = field(default_factory=dict)

    def leave(self, name: str, value: Tensor) -> None:
        """Keep a value as a further output."""
        if self.probe:
            if name in self.probes:
                raise BenchError(f"'{name}' is computed twice; a probe needs one call a layer")
            self.probes[name] = value.clone()  # an output of its own


class OnnxLayer(nn.Module):
    """Computes what an integer layer computes, when torch.onnx exports it; cannot be run itself.

    Args:
        layer: the integer layer; its step table has rows, none between them.
        name: in the network.
        shape: of its input; all but the first axis are fixed.
        steps: rows of the student's step table.
        trace: shared with the network.

    Raises:
        BenchError: a zero-point is no byte.
    """

    hadamard: Tensor
    signs: Tensor | None
    centre: Tensor | None
    weight: Tensor
    weight_zero: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    taps: Tensor | None
    second_place: Tensor | None
    second_factor: Tensor

    def __init__(
        self, layer: IntegerLayer, name: str, shape: torch.Size, steps: int, trace: Trace
    ) -> None:
        super().__init__()
        self.spec = layer.spec
        self.name = name
        self.trace = trace
        rotation = layer.rotation_of(torch.empty(shape, device="meta"))
        self.order = 0 if rotation is None else rotation.order
        self.dim = 1 if rotation is None else rotation.dim % len(shape)
        self.along_width = rotation is not None and not self.spec.linear and self.dim > 1
        rows = range(steps)
        places = [row if len(layer.scale) > 1 else 0 for row in rows]
        grids = [layer.grid(place) for place in places]
        self._check_zeros([grid.zero for grid in grids])
        scales = torch.tensor([grid.scale for grid in grids])
        norm = 2.0 ** (-self.order / 2) if self.order and not self.spec.weight_is_rotated else 1.0
        self.levels = self.spec.high - self.spec.low
        # Tables have a row a step even where all are alike: a constant step size would invite
        # the runtime to fold it into the product before it, and that rounds elsewhere.
        self._keep("scale", scales)
        self._keep("out_scale", (scales.double() * norm).float())
        self._keep("zero", torch.tensor([float(grid.zero) for grid in grids]))
        self._keep("signs", layer.signs if self.order else None)
        self._keep("centre", layer.centre)
        if self.order:
            self._keep("hadamard", rotation_matrix(self.order, torch.float32, scales.device))
        self._width_bound = max(max(-grid.low, grid.high) for grid in grids) * 2**self.order
        self._make_weight(layer, rotation is None or self.along_width)
        self._make_constants(layer, rows)

    def _check_zeros(self, zeros: list[int]) -> None:
        wrong = [zero for zero in zeros if not 0 <= zero <= MOST_BYTE]
        if wrong:
            raise BenchError(
                f"layer '{self.name}': zero-point {wrong[0]} of its input is no byte, as ONNX "
                "wants; save this student as safetensors, or calibrate a symmetric grid"
            )

    def _keep(self, name: str, value: Tensor | None) -> None:
        self.register_buffer(name, None if value is None else value.detach().clone())

    def _make_weight(self, layer: IntegerLayer, plain: bool) -> None:
        """Bytes of the weight, for every step if the steps differ, its first axis the outputs."""
        order = 0 if plain or self.spec.weight_is_rotated else self.order
        steps = self.spec.weight_steps
        rows = range(steps or 1)
        folded = [
            fold_codes(layer.weight_codes(row), order, layer.signs if order else None)
            for row in rows
        ]
        stacked = torch.stack(folded, 1)  # outputs first: a step has the digits of every step
        parts = digits(stacked)
        whole = torch.cat([part.weight for part in parts]).to(torch.int16) + WEIGHT_ZERO
        weight = whole.to(torch.uint8)
        if self.spec.linear:
            weight = weight.transpose(0, 2)  # (c_in, steps, rows) to multiply from the right
        weight = weight.movedim(1, 0).contiguous()
        self._keep("weight", weight if steps else weight[0])
        self._keep("weight_zero", torch.tensor(WEIGHT_ZERO, dtype=torch.uint8))
        self._keep("weight_scale", layer.weight_scale)
        self._sums = torch.int32 if self._bound(stacked, layer) < INT32_LIMIT else torch.int64
        place = factor = None
        if len(parts) > 1 and parts[1].rows is not None:
            place = torch.zeros(len(stacked), dtype=torch.int64)
            place[parts[1].rows] = torch.arange(len(parts[1].rows)) + len(stacked)
            factor = torch.where(place > 0, DIGIT, 0).to(self._sums)
        self._keep("second_place", place)
        self._keep("second_factor", factor)

    def _bound(self, weight: Tensor, layer: IntegerLayer) -> int:
        """Largest magnitude of a sum of all digits."""
        largest = max(layer.grid(row).largest for row in layer.rows)
        if self.along_width:
            largest = max(MOST_BYTE, self._width_bound)
        return largest * int(weight.transpose(0, 1).flatten(2).long().abs().sum(2).max())

    def _make_constants(self, layer: IntegerLayer, rows: range) -> None:
        """The bias, and what the centre contributes: constants a channel, or kernels of taps."""
        self._keep("bias", layer.bias)
        self._keep("taps", None)
        if layer.centre is None:
            return
        found = []
        for row in rows:
            centre = layer.centre[row]
            if self.spec.weight_is_rotated and self.order:
                centre = BlockRotation(self.order, 0, layer.signs)(centre)
            sizes = layer.weight_scale
            sizes = sizes if self.spec.weight_steps is None else sizes[row]
            found.append(tap_products(layer.weight_codes(row), sizes, centre))
        self._keep("taps", torch.stack(found).float())

    def probe_names(self) -> list[str]:
        """Names of the values that a call leaves in the trace, in order."""
        ends = [""]
        if self.along_width:
            ends = ["1", "128"] if 2 * self._width_bound > MOST_BYTE else ["1"]
        values = [f"{kind}{end}" for end in ends for kind in ("codes", "sums")]
        return [f"{self.name}:{value}" for value in ("input", *values)]

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, float32."""
        self.trace.leave(f"{self.name}:input", x)
        total: Tensor | None = None
        for factor, codes, zero in self._bytes(x):
            end = f"{factor}" if self.along_width else ""
            self.trace.leave(f"{self.name}:codes{end}", codes)
            sums = self._product(codes, zero)
            self.trace.leave(f"{self.name}:sums{end}", sums)
            part = self._joined(sums)
            part = part if factor == 1 else part * factor
            total = part if total is None else total + part
        assert total is not None
        sizes = self._at_row("weight_scale") if self.spec.weight_steps else self.weight_scale
        out = total.float() * self._over(self._at_row("out_scale") * sizes, x)
        if self.taps is not None:
            out = out + self._constant(x)
        return out if self.bias is None else out + self._over(self.bias, x)

    def _at_row(self, table: str) -> Tensor:
        """A table at the current step; its first axis has length 1."""
        assert self.trace.row is not None
        return torch.index_select(getattr(self, table), 0, self.trace.row)

    def _over(self, vector: Tensor, x: Tensor) -> Tensor:
        """A value a channel, shaped to broadcast over an image or rows."""
        return (
            vector.reshape(-1) if self.spec.linear else vector.reshape(1, -1, *[1] * (x.dim() - 2))
        )

    def _bytes(self, x: Tensor) -> list[tuple[int, Tensor, Tensor]]:
        """What a byte counts, the bytes, and the one that stands for zero, (1,)."""
        if self.centre is not None:
            x = x - self._over(self._at_row("centre"), x)
        if self.signs is not None:
            x = x * self._over(self.signs, x)
        if self.order:
            x = self._rotated(x)
        zero = self._at_row("zero")
        values = torch.round(x / self._at_row("scale")) + zero
        values = torch.clamp(values, 0.0, float(self.levels))
        if not self.along_width:
            return [(1, values.to(torch.uint8), zero.to(torch.uint8))]
        values = rotate_codes(values - zero, self.order, -1)
        if 2 * (bound := self._width_bound) <= MOST_BYTE:
            return [_byte(1, values, bound)]
        high = torch.floor((values + DIGIT // 2) / DIGIT)
        low = values - DIGIT * high
        top = (bound + DIGIT // 2) // DIGIT
        return [_byte(1, low, DIGIT // 2), _byte(DIGIT, high, top)]

    def _rotated(self, x: Tensor) -> Tensor:
        size = 2**self.order
        if self.dim == x.dim() - 1:
            blocks = x.unflatten(-1, (-1, size))
            return (blocks @ self.hadamard).flatten(-2)
        blocks = x.unflatten(1, (-1, size)).flatten(3)  # (B, C / 2^k, 2^k, pixels)
        return (self.hadamard @ blocks).reshape(x.shape)

    def _product(self, codes: Tensor, zero: Tensor) -> Tensor:
        """Sums of (q - z) w, int32, with rows of the second digit below those of the first."""
        weight = self.weight
        if self.spec.weight_steps is not None:
            weight = self._at_row("weight").squeeze(0)
        if self.spec.linear:
            return torch.onnx.ops.symbolic(
                "MatMulInteger",
                (codes, weight, zero, self.weight_zero),
                dtype=torch.int32,
                shape=(*codes.shape[:-1], weight.shape[-1]),
                version=OPERATOR_VERSION,
            )
        place = self.spec.geometry
        kernel = list(weight.shape[2:])
        first = 2 - len(kernel)  # axis 0 is the height, which a convolution over one axis lacks
        padding = list(place.padding)[first:]
        sizes = zip(range(first, 2), codes.shape[2:], kernel, strict=True)
        out = [place.output_length(axis, length, size) for axis, length, size in sizes]
        return torch.onnx.ops.symbolic(
            "ConvInteger",
            (codes, weight, zero, self.weight_zero),
            {
                "kernel_shape": kernel,
                "strides": list(place.stride)[first:],
                "dilations": list(place.dilation)[first:],
                "pads": padding + padding,
            },
            dtype=torch.int32,
            shape=(codes.shape[0], weight.shape[0], *out),
            version=OPERATOR_VERSION,
        )

    def _joined(self, sums: Tensor) -> Tensor:
        """Both digits of the weight together."""
        sums = sums.to(self._sums)
        if self.second_place is None:
            return sums
        axis = sums.dim() - 1 if self.spec.linear else 1
        first = sums.narrow(axis, 0, len(self.second_place))
        second = torch.index_select(sums, axis, self.second_place)
        return first + second * self._over(self.second_factor, sums)

    def _constant(self, x: Tensor) -> Tensor:
        """The centre through the weight: a convolution of ones, less where it meets padding."""
        taps = self._at_row("taps")
        if self.spec.linear:
            return taps
        kernel = taps.squeeze(0).unsqueeze(1)
        ones = torch.ones(1, 1, *x.shape[2:])
        place = self.spec.geometry
        if place.kind == "conv1d":
            return functional.conv1d(
                ones, kernel, None, place.stride[1], place.padding[1], place.dilation[1]
            )
        return functional.conv2d(ones, kernel, None, place.stride, place.padding, place.dilation)


def _byte(factor: int, values: Tensor, zero: int) -> tuple[int, Tensor, Tensor]:
    return factor, (values + zero).to(torch.uint8), torch.tensor([zero], dtype=torch.uint8)
