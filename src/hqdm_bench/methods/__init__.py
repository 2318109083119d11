"""Methods of the benchmark, one file each: how a student is made from a teacher."""

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import MethodOptions, QatOptions
from hqdm_bench.methods.registry import (
    Method,
    available_methods,
    build_student,
    get_method,
    register,
)
from hqdm_bench.methods.storage import load_student, save_student

__all__ = [
    "Method",
    "MethodOptions",
    "QatOptions",
    "Student",
    "available_methods",
    "build_student",
    "get_method",
    "load_student",
    "register",
    "save_student",
]
