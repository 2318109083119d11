"""The verb that writes a student with its weights at their true width."""

import argparse
import sys
from pathlib import Path

from hqdm_bench.cli.options import Context, add_cell

__all__ = ["add_verbs"]

MEGABYTE = 1e6


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    pack = verbs.add_parser("pack", help="a student's integers in one file, without gaps")
    add_cell(pack)
    pack.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where to write (default: model.safetensors beside the student)",
    )
    pack.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="write the student as an ONNX file, too (needs hqdm-bench[onnx])",
    )
    pack.set_defaults(run=_pack)


def _pack(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    cell = context.cell(arguments)

    import torch

    from hqdm_bench.integer import convert, export_onnx, save
    from hqdm_bench.methods import load_student
    from hqdm_bench.models import load_latent_diffusion

    layout = context.layout
    teacher = load_latent_diffusion(
        context.model(arguments), layout.teacher(cell.suite, cell.model)
    )
    method = context.method(cell)
    student = convert(load_student(layout.student(cell), teacher.unet, method))
    target = arguments.output or layout.student(cell).with_name("model.safetensors")
    found = save(student, target, cell=cell.asdict())
    sizes = ", ".join(f"{name} {size / MEGABYTE:.3f} MB" for name, size in found.items())
    sys.stderr.write(f"{student.report.summary()}\n{target}: {sizes}\n")
    if arguments.onnx is None:
        return
    assert student.step is not None
    labels = None if teacher.embedder is None else torch.arange(2)
    call = torch.zeros(2, *teacher.latent_shape), torch.full((2,), student.step.timesteps[0])
    tokens = teacher.context(labels)
    example = call if tokens is None else (*call, tokens.detach())
    size = export_onnx(student, arguments.onnx, *example)
    sys.stderr.write(f"{arguments.onnx}: {size / MEGABYTE:.3f} MB\n")
