"""Quantization grids, quantizers with straight-through gradients, layers, and layer policies."""

from hqdm_bench.quantization.activation import (
    ActivationQuantizer,
    AffineStatic,
    AffineTable,
    SymmetricTable,
)
from hqdm_bench.quantization.adaround import AdaRoundWeight, BetaSchedule
from hqdm_bench.quantization.coverage import coverage
from hqdm_bench.quantization.functional import fake_quantize, lora_fake_quantize
from hqdm_bench.quantization.grid import (
    Grid,
    minmax_grid,
    mse_grid,
    symmetric_limit,
    symmetric_max_scale,
    symmetric_mse_scale,
)
from hqdm_bench.quantization.layers import QuantizedLayer
from hqdm_bench.quantization.learned import LearnedStep
from hqdm_bench.quantization.observers import (
    EmaObserver,
    MakeObserver,
    MinMaxObserver,
    MseObserver,
    Observer,
)
from hqdm_bench.quantization.policy import POLICIES, Role, check_policy, full, official, roles
from hqdm_bench.quantization.rotation import Rotation
from hqdm_bench.quantization.step import Blend, Row, StepIndex, row_of
from hqdm_bench.quantization.surgery import replace
from hqdm_bench.quantization.weight import LoRAWeight, StaticWeight, weight_grid

__all__ = [
    "POLICIES",
    "ActivationQuantizer",
    "AdaRoundWeight",
    "AffineStatic",
    "AffineTable",
    "BetaSchedule",
    "Blend",
    "EmaObserver",
    "Grid",
    "LearnedStep",
    "LoRAWeight",
    "MakeObserver",
    "MinMaxObserver",
    "MseObserver",
    "Observer",
    "QuantizedLayer",
    "Role",
    "Rotation",
    "Row",
    "StaticWeight",
    "StepIndex",
    "SymmetricTable",
    "check_policy",
    "coverage",
    "fake_quantize",
    "full",
    "lora_fake_quantize",
    "minmax_grid",
    "mse_grid",
    "official",
    "replace",
    "roles",
    "row_of",
    "symmetric_limit",
    "symmetric_max_scale",
    "symmetric_mse_scale",
    "weight_grid",
]
