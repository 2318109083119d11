"""Products on a GPU: int8 tensor cores through Triton and through PyTorch's `_int_mm`.

Imported only where it runs; importing it imports Triton. With the environment variable
``TRITON_INTERPRET=1`` set before that, the same code runs on tensors of the CPU, in Triton's
interpreter, slowly: that is how it is tested where there is no GPU.
"""

import torch
from torch import Tensor

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.integer.codes import CodeGrid
from hqdm_bench.integer.kernels import Kernel, signed_zero
from hqdm_bench.integer.triton_encode import encode_on_device
from hqdm_bench.integer.triton_product import Epilogue, finish, multiply

__all__ = ["InterpretedKernel", "TritonKernel"]

INT_MM_ROWS, INT_MM_MULTIPLE = 17, 8  # least rows, and what the other two sizes must divide by


class TritonKernel(Kernel):
    """Signed codes, int32 sums; matrix products by `_int_mm` where their sizes allow it."""

    name = "triton"
    device = "cuda"
    codes_dtype = torch.int8
    dtypes = (torch.float32, torch.float16, torch.bfloat16)

    @staticmethod
    def zero_code(low: int, high: int) -> int:
        """See `Kernel`."""
        return signed_zero(low, high)

    @staticmethod
    def encode(
        x: Tensor,
        grid: CodeGrid,
        rotation: BlockRotation | None,
        centre: Tensor | None,
        linear: bool,
    ) -> Tensor:
        """See `Kernel`."""
        return encode_on_device(x, grid, rotation, centre, linear)

    def _prepare(self, weight: Tensor) -> None:
        taps = weight.view(*weight.shape, 1, 1) if weight.dim() == 2 else weight
        self._weight = taps.permute(0, 2, 3, 1).contiguous()
        self._sums = weight.flatten(1).sum(1, dtype=torch.int32)

    def __call__(
        self,
        codes: Tensor,
        zero: int,
        scale: float,
        bias: Tensor | None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """See `Kernel`."""
        after = Epilogue(self._sums, self.channel_scale, bias, scale, zero)
        if self.geometry.kind != "linear":
            pixels = codes.permute(0, 2, 3, 1).contiguous()
            out = multiply(pixels, self._weight, self.geometry, after, dtype)
            return out.permute(0, 3, 1, 2)
        if self.fits_int_mm(codes):
            weight = self._weight.view(len(self._weight), -1)
            return finish(torch._int_mm(codes, weight.t()), after, dtype)
        rows = codes.contiguous()[:, None, None]
        return multiply(rows, self._weight, self.geometry, after, dtype)[:, 0, 0]

    def fits_int_mm(self, codes: Tensor) -> bool:
        """Whether PyTorch's int8 product takes a matrix of codes with this weight."""
        columns, channels = len(self._weight), codes.shape[1]
        whole = columns % INT_MM_MULTIPLE == 0 and channels % INT_MM_MULTIPLE == 0
        return whole and len(codes) >= INT_MM_ROWS and codes.is_contiguous()


class InterpretedKernel(TritonKernel):
    """The same in Triton's interpreter, for tests; no backend has this name."""

    name = "triton, interpreted"
    device = "cpu"
