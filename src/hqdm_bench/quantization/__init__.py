"""Quantization grids, quantizers with straight-through gradients, layers, and layer policies."""

from hqdm_bench.quantization.activation import (
    ActivationQuantizer,
    AffineStatic,
    AffineTable,
    SymmetricTable,
)
from hqdm_bench.quantization.adaround import AdaRoundWeight, BetaSchedule
from hqdm_bench.quantization.attention import (
    QuantizedAttention,
    QuantizedInput,
    QuantizedOperand,
    QuantizedQKVAttention,
    QuantizedTokenAttention,
)
from hqdm_bench.quantization.attention_surgery import quantize_attention
from hqdm_bench.quantization.channel_scaling import ChannelScaling
from hqdm_bench.quantization.coverage import coverage
from hqdm_bench.quantization.equivalent_scaling import (
    channel_axis,
    channel_maxima,
    divide_input,
    multiply_weight,
    smoothing_scale,
)
from hqdm_bench.quantization.functional import fake_quantize, lora_fake_quantize
from hqdm_bench.quantization.grid import (
    Grid,
    minmax_grid,
    mse_grid,
    symmetric_limit,
    symmetric_max_scale,
    symmetric_mse_scale,
    unsigned_mse_scale,
)
from hqdm_bench.quantization.layers import QuantizedLayer
from hqdm_bench.quantization.learned import LearnedStep, UnsignedStep
from hqdm_bench.quantization.learned_scaling import (
    ScalingSettings,
    TimestepWeights,
    dynamic_fake_quantize,
    learn_scaling,
    sample_losses,
    scaled_output,
)
from hqdm_bench.quantization.noise_correction import (
    NoiseCorrection,
    error_noise_gain,
    reduced_sigmas,
)
from hqdm_bench.quantization.noise_error import NoiseError
from hqdm_bench.quantization.observers import (
    EmaObserver,
    MakeObserver,
    MinMaxObserver,
    MseObserver,
    Observer,
)
from hqdm_bench.quantization.policy import POLICIES, Role, check_policy, full, official, roles
from hqdm_bench.quantization.power_of_two import best_exponents, power_of_two_factors, vote
from hqdm_bench.quantization.rotation import Rotation
from hqdm_bench.quantization.shifted_table import ShiftedTable
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
    "ChannelScaling",
    "EmaObserver",
    "Grid",
    "LearnedStep",
    "LoRAWeight",
    "MakeObserver",
    "MinMaxObserver",
    "MseObserver",
    "NoiseCorrection",
    "NoiseError",
    "Observer",
    "QuantizedAttention",
    "QuantizedInput",
    "QuantizedLayer",
    "QuantizedOperand",
    "QuantizedQKVAttention",
    "QuantizedTokenAttention",
    "Role",
    "Rotation",
    "Row",
    "ScalingSettings",
    "ShiftedTable",
    "StaticWeight",
    "StepIndex",
    "SymmetricTable",
    "TimestepWeights",
    "UnsignedStep",
    "best_exponents",
    "channel_axis",
    "channel_maxima",
    "check_policy",
    "coverage",
    "divide_input",
    "dynamic_fake_quantize",
    "error_noise_gain",
    "fake_quantize",
    "full",
    "learn_scaling",
    "lora_fake_quantize",
    "minmax_grid",
    "mse_grid",
    "multiply_weight",
    "official",
    "power_of_two_factors",
    "quantize_attention",
    "reduced_sigmas",
    "replace",
    "roles",
    "row_of",
    "sample_losses",
    "scaled_output",
    "smoothing_scale",
    "symmetric_limit",
    "symmetric_max_scale",
    "symmetric_mse_scale",
    "unsigned_mse_scale",
    "vote",
    "weight_grid",
]
