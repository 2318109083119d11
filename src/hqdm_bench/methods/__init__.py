"""Methods of the benchmark, one file each: how a student is made from a module."""

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.entry import quantize
from hqdm_bench.methods.options import MethodOptions, QatOptions, text_option
from hqdm_bench.methods.qat import InputTransform, build_qat_student
from hqdm_bench.methods.registry import (
    Method,
    available_methods,
    build_student,
    get_method,
    register,
    sampler_of,
)
from hqdm_bench.methods.request import Rates, Request
from hqdm_bench.methods.stage_finetune import FineTune
from hqdm_bench.methods.stage_temporal import RoundTemporal
from hqdm_bench.methods.stages import (
    Calibrate,
    Commit,
    CorrectNoise,
    Distill,
    Fit,
    LearnSteps,
    RoundingFit,
    RoundWeights,
    Stage,
    StepFit,
)
from hqdm_bench.methods.storage import (
    load_state,
    load_student,
    read_request,
    save_student,
    student_header,
    student_state,
)

__all__ = [
    "Calibrate",
    "Commit",
    "CorrectNoise",
    "Distill",
    "FineTune",
    "Fit",
    "InputTransform",
    "LearnSteps",
    "Method",
    "MethodOptions",
    "QatOptions",
    "Rates",
    "Request",
    "RoundTemporal",
    "RoundWeights",
    "RoundingFit",
    "Stage",
    "StepFit",
    "Student",
    "available_methods",
    "build_qat_student",
    "build_student",
    "get_method",
    "load_state",
    "load_student",
    "quantize",
    "read_request",
    "register",
    "sampler_of",
    "save_student",
    "student_header",
    "student_state",
    "text_option",
]
