"""A layer that multiplies integers."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.integer.border import add_constant, tap_products
from hqdm_bench.integer.codes import CodeGrid, signed_codes
from hqdm_bench.integer.kernels import Kernel
from hqdm_bench.integer.packing import unpack
from hqdm_bench.integer.product import ByteCodes, Product, split_values
from hqdm_bench.integer.spec import LayerSpec
from hqdm_bench.integer.weights import fold_codes, rotate_codes
from hqdm_bench.quantization import Row, StepIndex, row_of

__all__ = ["TENSORS", "IntegerLayer"]

# Buffers of a layer, and what a packed file holds of it.
TENSORS = (
    "packed",
    "weight_scale",
    "weight_zero",
    "bias",
    "scale",
    "zero",
    "signs",
    "centre",
)


class IntegerLayer(nn.Module):
    """out = s delta[o] 2^(-k/2) sum q (H_raw n)[o] + bias, with integer codes q and n.

    Built by `convert` or from a packed file, called like the layer it replaces.

    Args:
        spec: its constants.
        tensors: `packed` (weight codes without gaps; one row a step if every step has its own),
            `weight_scale` (c_out,) or (S, c_out), `weight_zero` (c_out,), `bias` (c_out,), `scale`
            and `zero` (S,) of the input, `signs` (c_in,), `centre` (S, c_in). All but the first
            three and `scale` may be missing.
        step: the student's step holder.
        kernel: what multiplies.
        name: of the layer, for messages.
    """

    packed: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    bias: Tensor | None
    scale: Tensor
    zero: Tensor | None
    signs: Tensor | None
    centre: Tensor | None

    def __init__(
        self,
        spec: LayerSpec,
        tensors: Mapping[str, Tensor],
        step: StepIndex,
        kernel: type[Kernel],
        name: str,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.step = step
        self.kernel = kernel
        self.layer_name = name
        for key in TENSORS:
            self.register_buffer(key, tensors.get(key))
        self._products: dict[int, Product] = {}
        self._products_row: Row | None = None
        # What depends on the step or the shape of the input, and would take longer to find again
        # than some of the products.
        self._taps: dict[Row, Tensor] = {}
        self._grids: dict[Row, CodeGrid] = {}
        self._rotations: dict[tuple[int, int], BlockRotation | None] = {}
        self._grids_key: tuple[int, ...] = ()

    def rotation_of(self, x: Tensor) -> BlockRotation | None:
        """The rotation of this input, or None; as `QuantizedLayer.rotation_of`."""
        if self.spec.rotation is None:
            return None
        dim = self.spec.rotation.dim(self.spec.linear)
        key = (x.shape[dim], x.dim())
        if key not in self._rotations:
            order = self.spec.rotation.block_order(*key)
            self._rotations[key] = (
                BlockRotation(order, dim, self.signs, self.spec.rotation.transform)
                if order
                else None
            )
        return self._rotations[key]

    def grid(self, row: Row) -> CodeGrid:
        """The integer grid of the input at a step.

        Raises:
            BenchError: the zero-point is not an integer there.
        """
        tables = [self.scale] if self.zero is None else [self.scale, self.zero]
        key = tuple(part for x in tables for part in (x.data_ptr(), x._version))
        if key != self._grids_key:
            self._grids, self._grids_key = {}, key
        if row not in self._grids:  # read once: reading from a GPU waits for it
            self._grids[row] = self._read_grid(row)
        return self._grids[row]

    def _read_grid(self, row: Row) -> CodeGrid:
        place = 0 if len(self.scale) == 1 else row
        scale, zero = float(row_of(self.scale, place)), 0.0
        low, high = self.spec.low, self.spec.high
        if self.zero is not None:
            found = row_of(self.zero, place)
            zero = float(found.round() if self.spec.integer_zero else found)
        if not zero.is_integer():
            raise BenchError(
                f"layer '{self.layer_name}': zero-point {zero} between two steps of the table is "
                "not an integer; sample at steps of the table, or train with integer zero-points"
            )
        low, high = low - int(zero), high - int(zero)
        return CodeGrid(scale, low, high, self.kernel.zero_code(low, high))

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes minus the zero-point at the current step, whole numbers in x's type.

        In rotated coordinates where the input is rotated.
        """
        row = self.step.row
        grid, rotation = self.grid(row), self.rotation_of(x)
        if self._along_width:
            return signed_codes(x, grid, rotation, self._centre_like(x, row))
        return self._encode(x, grid, rotation, row).to(x.dtype) - grid.zero

    def weight_codes(self, row: Row = 0) -> Tensor:
        """Integer weights n - z at a step, (c_out, c_in, ...) int16."""
        packed = self.packed
        if self.spec.weight_steps is not None:
            if not isinstance(row, int):
                raise BenchError(
                    f"layer '{self.layer_name}' has weights for every step of its table and none "
                    "between them; build the student with steps 'pick' or 'by_timestep'"
                )
            packed = packed[row]
        codes = unpack(packed, self.spec.weight_bits, self.spec.shape).to(torch.int16)
        return codes - self.weight_zero.to(torch.int16).view(-1, *[1] * (codes.dim() - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Layer output at the current step; images are channels-last.

        Float32; on a GPU in the type of the input, or that of an autocast around it. The integers
        and their scales are computed in float32 whatever that is.
        """
        dtype = self._result_type(x)
        with torch.autocast(x.device.type, enabled=False):
            return self._compute(x, dtype)

    def _result_type(self, x: Tensor) -> torch.dtype:
        dtype = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        return dtype if dtype in self.kernel.dtypes else torch.float32

    def _compute(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        row = self.step.row
        grid, rotation = self.grid(row), self.rotation_of(x)
        scale = grid.scale
        if rotation is not None and not self.spec.weight_is_rotated:
            scale *= 2.0 ** (-rotation.order / 2)  # H = H_raw 2^(-k/2)
        if rotation is not None and self._along_width:
            values = signed_codes(x.float(), grid, rotation, self._centre_like(x, row))
            values = rotate_codes(values, rotation.order, -1)
            bound = 2**rotation.order * max(-grid.low, grid.high)
            parts = split_values(values, bound, self.kernel.codes_dtype)
        else:
            parts = [ByteCodes(1, self._encode(x, grid, rotation, row), grid.zero)]
        product = self.product(self.fold_order(rotation), row)
        out = product(parts, scale, self.bias, x.shape, dtype)
        return self._add_centre(out, x, rotation, row)

    def _encode(
        self, x: Tensor, grid: CodeGrid, rotation: BlockRotation | None, row: Row
    ) -> Tensor:
        centre = None if self.centre is None else row_of(self.centre, row)
        return self.kernel.encode(x, grid, rotation, centre, self.spec.linear)

    @property
    def _along_width(self) -> bool:
        """Whether a rotation is one that no weight can take up."""
        rotation = self.spec.rotation
        return rotation is not None and not rotation.foldable and not self.spec.linear

    def fold_order(self, rotation: BlockRotation | None) -> int:
        """K of the blocks that the weight takes up for an input rotated like this."""
        if rotation is None or self.spec.weight_is_rotated or self._along_width:
            return 0
        return rotation.order

    def product(self, order: int, row: Row) -> Product:
        """The weight made ready for inputs rotated in blocks of 2^k, kept for further calls.

        Weights that differ from step to step are kept for one step at a time.
        """
        place = row if self.spec.weight_steps is not None else None
        if place != self._products_row:
            self._products, self._products_row = {}, place
        if order not in self._products:
            self._products[order] = self.make_product(order, row)
        return self._products[order]

    def make_product(self, order: int, row: Row) -> Product:
        """See `product`; not kept.

        Raises:
            BenchError: an accumulator could leave 32 bits.
        """
        weight = fold_codes(self.weight_codes(row), order, self.signs if order else None)
        scale = self._step_sizes(row)
        return Product.make(
            weight, scale, self.spec.geometry, self._largest(), self.kernel, self.layer_name
        )

    @property
    def rows(self) -> range:
        """Rows of the input's table."""
        return range(len(self.scale))

    def possible_orders(self) -> set[int]:
        """K of the blocks that inputs of any number of axes may be rotated in."""
        rotation, channels = self.spec.rotation, self.spec.shape[1]
        if rotation is None or self.spec.weight_is_rotated:
            return {0}
        if not self.spec.linear:
            rank = len(self.spec.shape)
            return {0 if self._along_width else rotation.block_order(channels, rank)}
        return {rotation.block_order(channels, rank) for rank in (2, 3)}

    def _step_sizes(self, row: Row) -> Tensor:
        if self.spec.weight_steps is None:
            return self.weight_scale
        return row_of(self.weight_scale, row)

    def _largest(self) -> int:
        """Largest magnitude of a code, or byte, at any step."""
        if self._along_width:
            return 255  # what a byte of codes rotated back can hold
        return max(self.grid(row).largest for row in self.rows)

    def _centre_like(self, x: Tensor, row: Row) -> Tensor | None:
        if self.centre is None:
            return None
        centre = row_of(self.centre, row)
        return centre if self.spec.linear else centre.view(1, -1, *[1] * (x.dim() - 2))

    def _add_centre(
        self, out: Tensor, x: Tensor, rotation: BlockRotation | None, row: Row
    ) -> Tensor:
        """Add what the centre contributes, a constant but where a kernel meets the padding."""
        if self.centre is None:
            return out
        if row not in self._taps:
            centre = row_of(self.centre, row)
            if self.spec.weight_is_rotated and rotation is not None:
                centre = BlockRotation(rotation.order, 0, self.signs)(centre)
            self._taps[row] = tap_products(self.weight_codes(row), self._step_sizes(row), centre)
        taps, size = self._taps[row], x.shape[2:]
        if self.spec.linear:
            return out.add_(taps.to(out))
        if self.spec.geometry.kind == "conv1d":
            whole = add_constant(
                out.unsqueeze(2), taps.unsqueeze(1), self.spec.geometry, (1, *size)
            )
            return whole.squeeze(2)
        return add_constant(out, taps, self.spec.geometry, (size[0], size[1]))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Refuse what would part the buffers from the weights that are ready to multiply."""
        probe = fn(self.weight_scale)
        if probe.device != self.weight_scale.device or probe.dtype != torch.float32:
            raise BenchError(
                f"integer layer '{self.layer_name}' computes in float32 on "
                f"{self.weight_scale.device} and cannot move to {probe.dtype} on {probe.device}; "
                "use the student it was converted from there"
            )
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"{self.spec.geometry.kind} {self.spec.shape}, kernel={self.kernel.name}"
