"""Exact integer execution of a trained student, and its packed form on disk."""

from hqdm_bench.integer.agreement import Agreement, compare_codes
from hqdm_bench.integer.backends import BACKENDS, Backend, choose_kernel, find_fault
from hqdm_bench.integer.convert import convert
from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.integer.onnx_export import export_onnx
from hqdm_bench.integer.packing import pack, unpack
from hqdm_bench.integer.report import ConversionReport, LayerReport
from hqdm_bench.integer.storage import byte_report, load, save
from hqdm_bench.integer.student import IntegerStudent

__all__ = [
    "BACKENDS",
    "Agreement",
    "Backend",
    "ConversionReport",
    "IntegerLayer",
    "IntegerStudent",
    "LayerReport",
    "byte_report",
    "choose_kernel",
    "compare_codes",
    "convert",
    "export_onnx",
    "find_fault",
    "load",
    "pack",
    "save",
    "unpack",
]
