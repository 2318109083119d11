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
)
from hqdm_bench.methods.request import Rates, Request
from hqdm_bench.methods.storage import load_student, read_request, save_student, student_header

__all__ = [
    "InputTransform",
    "Method",
    "MethodOptions",
    "QatOptions",
    "Rates",
    "Request",
    "Student",
    "available_methods",
    "build_qat_student",
    "build_student",
    "get_method",
    "load_student",
    "quantize",
    "read_request",
    "register",
    "save_student",
    "student_header",
    "text_option",
]
