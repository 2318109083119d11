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
from hqdm_bench.quantization.channel_step import ChannelStep
from hqdm_bench.quantization.composite import (
    CompositeLayer,
    RepeatedChannels,
    SplitLayer,
    composites,
    float_weight,
    make_composite,
    part_input,
    source_name,
)
from hqdm_bench.quantization.concatenation import boundaries
from hqdm_bench.quantization.coverage import coverage
from hqdm_bench.quantization.equivalent_scaling import (
    channel_axis,
    channel_maxima,
    divide_input,
    multiply_weight,
    smoothing_scale,
)
from hqdm_bench.quantization.exact_input import ExactInput
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
from hqdm_bench.quantization.lora_weight import LoRAWeight
from hqdm_bench.quantization.mixed import MIXED_BITS, MixedWeight, channel_bits, kurtosis
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
from hqdm_bench.quantization.outlier_split import outlier_channels, split_channels
from hqdm_bench.quantization.policies import POLICIES, Role, full, official
from hqdm_bench.quantization.policy import POLICY_SAYS, check_policy, roles
from hqdm_bench.quantization.power_of_two import best_exponents, vote
from hqdm_bench.quantization.rotation import Rotation
from hqdm_bench.quantization.shifted_table import ShiftedTable
from hqdm_bench.quantization.step import Blend, Row, StepIndex, row_of
from hqdm_bench.quantization.surgery import replace
from hqdm_bench.quantization.symmetric_grid import symmetric_weight_grid
from hqdm_bench.quantization.temporal_block import TEMPORAL, TemporalBlock, find_temporal_block
from hqdm_bench.quantization.threshold_scaling import search_threshold, threshold_scale
from hqdm_bench.quantization.trained_weight import TrainedWeight
from hqdm_bench.quantization.weight import GridRule, StaticWeight, weight_grid

__all__ = [
    "MIXED_BITS",
    "POLICIES",
    "POLICY_SAYS",
    "TEMPORAL",
    "ActivationQuantizer",
    "AdaRoundWeight",
    "AffineStatic",
    "AffineTable",
    "BetaSchedule",
    "Blend",
    "ChannelScaling",
    "ChannelStep",
    "CompositeLayer",
    "EmaObserver",
    "ExactInput",
    "Grid",
    "GridRule",
    "LearnedStep",
    "LoRAWeight",
    "MakeObserver",
    "MinMaxObserver",
    "MixedWeight",
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
    "RepeatedChannels",
    "Role",
    "Rotation",
    "Row",
    "ScalingSettings",
    "ShiftedTable",
    "SplitLayer",
    "StaticWeight",
    "StepIndex",
    "SymmetricTable",
    "TemporalBlock",
    "TimestepWeights",
    "TrainedWeight",
    "UnsignedStep",
    "best_exponents",
    "boundaries",
    "channel_axis",
    "channel_bits",
    "channel_maxima",
    "check_policy",
    "composites",
    "coverage",
    "divide_input",
    "dynamic_fake_quantize",
    "error_noise_gain",
    "fake_quantize",
    "find_temporal_block",
    "float_weight",
    "full",
    "kurtosis",
    "learn_scaling",
    "lora_fake_quantize",
    "make_composite",
    "minmax_grid",
    "mse_grid",
    "multiply_weight",
    "official",
    "outlier_channels",
    "part_input",
    "quantize_attention",
    "reduced_sigmas",
    "replace",
    "roles",
    "row_of",
    "sample_losses",
    "scaled_output",
    "search_threshold",
    "smoothing_scale",
    "source_name",
    "split_channels",
    "symmetric_limit",
    "symmetric_max_scale",
    "symmetric_mse_scale",
    "symmetric_weight_grid",
    "threshold_scale",
    "unsigned_mse_scale",
    "vote",
    "weight_grid",
]
