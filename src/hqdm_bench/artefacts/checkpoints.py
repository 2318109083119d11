"""Reading published PyTorch checkpoints without executing anything that is in them.

A checkpoint is a pickle, and a pickle may name any function to be called. torch's weights-only
reader builds tensors and plain containers and refuses every other name; the few further names that
real files hold are given to it as inert classes.
"""

import contextlib
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.artefacts.formats import is_content
from hqdm_bench.common.errors import BenchError

__all__ = ["HARMLESS_NAMES", "Checkpoint", "read_checkpoint"]

# What PyTorch Lightning 1.x writes beside tensors when CompVis' training script saves.
# The files of the same authors hold the first one and the three of numpy
# (github.com/lopho/pickle_inspector lists them for Stable Diffusion 1; the allow-list of
# AUTOMATIC1111/stable-diffusion-webui is the same). The others are what that script could add:
# Lightning before 1.5 keys the state of every callback by its class. CompVis' modules do not call
# save_hyperparameters, so no configuration objects (omegaconf) are expected.
HARMLESS_NAMES = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
    *(
        f"{module}.{name}"
        for module in ("main", "__main__")
        for name in ("SetupCallback", "ImageLogger", "CUDACallback")
    ),
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",  # a learning rate
    "numpy._core.multiarray.scalar",  # the same, saved under numpy 2
    "numpy.dtype",
)

ZIP_MAGIC, PICKLE_MAGIC = b"PK\x03\x04", b"\x80"
COPY_BYTES = 16 * 2**20
SHOWN = 5
FOREIGN_NAME = re.compile(r"GLOBAL ([\w.]+)")  # in what torch's reader says of a refused file


class Inert:
    """Stands for a class or function of another package; whatever it is given is dropped."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# One class per name: a dictionary keyed by classes keeps its entries apart.
STAND_INS = {name: type(name.rpartition(".")[2], (Inert,), {}) for name in HARMLESS_NAMES}


@dataclass(frozen=True)
class Checkpoint:
    """What is used of a checkpoint.

    Attributes:
        state_dict: tensors on the CPU, mapped from the file where the format allows it.
        global_step: updates it was trained for, if it says so.
        epoch: the same in epochs.
        lightning: version of PyTorch Lightning that wrote it.
    """

    state_dict: dict[str, Tensor]
    global_step: int | None
    epoch: int | None
    lightning: str | None


def read_checkpoint(path: Path, scratch: Path | None = None) -> Checkpoint:
    """Read a checkpoint, bare or as the one ``.ckpt`` file of a zip archive.

    Args:
        path: written by ``torch.save`` in either of its formats, or a zip archive.
        scratch: folder that an archive's member is extracted to for as long as it is read;
            that of ``path`` by default.

    Raises:
        BenchError: the file is missing, damaged or no checkpoint; it names a class or function
            outside torch's own and :data:`HARMLESS_NAMES`; the archive does not hold exactly one
            ``.ckpt``; the disk has no room for it.
    """
    if not path.is_file():
        raise BenchError(f"checkpoint {path} does not exist")
    member = _member(path)
    if member is None:
        return _read(path, str(path))
    with _extracted(path, member, scratch or path.parent) as file:
        # On POSIX systems the mapping outlives the name that is removed here.
        return _read(file, f"{path} (its member {member.filename})")


def _member(path: Path) -> zipfile.ZipInfo | None:
    """The ``.ckpt`` file in an archive; None if ``path`` is not a wrapping archive."""
    if not _starts_with(path, ZIP_MAGIC):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            members = [entry for entry in archive.infolist() if is_content(entry.filename)]
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _damaged(str(path), f"its list of members cannot be read: {error}") from error
    names = [PurePosixPath(entry.filename) for entry in members]
    if any(name.name == "data.pkl" for name in names):
        return None
    found = [entry for entry, name in zip(members, names, strict=True) if name.suffix == ".ckpt"]
    if len(found) > 1:
        listed = ", ".join(entry.filename for entry in found)
        raise BenchError(
            f"{path} holds {len(found)} .ckpt files ({listed}); extract the one that is meant and "
            "give its path"
        )
    if not found:
        raise BenchError(f"{path} holds no .ckpt file; its members: {_listed(map(str, names))}")
    return found[0]


@contextlib.contextmanager
def _extracted(archive: Path, member: zipfile.ZipInfo, folder: Path) -> Iterator[Path]:
    """A member as a file of its own, removed afterwards."""
    # Without a process id: what a killed run left behind is replaced by the next one.
    temporary = folder / f".{archive.stem}.extracted.ckpt"
    try:
        _extract(archive, member, temporary)
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _extract(archive: Path, member: zipfile.ZipInfo, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # not overwritten: another run may have it mapped
        _check_room(archive, member, target.parent)
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(member) as source,
            target.open("xb") as sink,
        ):
            shutil.copyfileobj(source, sink, COPY_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise _damaged(str(archive), f"{member.filename} cannot be extracted: {error}") from error
    except OSError as error:
        raise BenchError(
            f"{member.filename} of {archive} cannot be extracted to {target}: {error.strerror}"
        ) from error


def _check_room(archive: Path, member: zipfile.ZipInfo, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if member.file_size > free:
        raise BenchError(
            f"extracting {member.filename} of {archive} takes {member.file_size / 1e9:.1f} GB, "
            f"{folder} has {free / 1e9:.1f} GB left; free some and run again"
        )


def _read(path: Path, shown: str) -> Checkpoint:
    content = _load(path, shown)
    if not isinstance(content, Mapping):
        raise BenchError(f"{shown} is not a training checkpoint: it holds a {_kind(content)}")
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        raise BenchError(
            f"{shown} is not a training checkpoint: it has no state_dict; its entries: "
            f"{_listed(map(str, content))}"
        )
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise BenchError(f"{shown}: {key} in its state_dict is a {_kind(value)}, not a tensor")
    step, epoch = content.get("global_step"), content.get("epoch")
    version = content.get("pytorch-lightning_version")
    return Checkpoint(
        {str(key): value.detach() for key, value in state.items()},
        step if isinstance(step, int) else None,
        epoch if isinstance(epoch, int) else None,
        version if isinstance(version, str) else None,
    )


def _load(path: Path, shown: str) -> Any:
    zipped = _starts_with(path, ZIP_MAGIC)
    if zipped:
        _check_sums(path, shown)
    elif not _starts_with(path, PICKLE_MAGIC):
        with path.open("rb") as handle:
            head = handle.read(16)
        raise BenchError(
            f"{shown} is not a PyTorch checkpoint; it starts with {head!r}. "
            "Get the published file again"
        )
    allowed: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError:
        raise
    except Exception as error:  # bytes that are no pickle fail in every way a reader can
        raise _refusal(shown, str(error)) from error


def _check_sums(path: Path, shown: str) -> None:
    """Compare the members of torch's own archive with their checksums, as torch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise _damaged(shown, str(error)) from error
    if bad:
        raise _damaged(shown, f"{bad} does not have its checksum")


def _refusal(shown: str, message: str) -> BenchError:
    foreign = FOREIGN_NAME.search(message)
    if foreign:
        return BenchError(
            f"{shown} is refused: it names '{foreign[1]}', which is no part of a checkpoint, and "
            "loading it could run that; nothing of it was executed. Get the published file again"
        )
    reason = message.rpartition("WeightsUnpickler error: ")[2].strip() or "it ends too early"
    return _damaged(shown, reason.splitlines()[0])


def _damaged(shown: str, reason: str) -> BenchError:
    return BenchError(
        f"{shown} is truncated, damaged or not a checkpoint ({reason.rstrip('.')}); delete it and "
        "get it again"
    )


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as handle:
        return handle.read(len(magic)) == magic


def _kind(value: object) -> str:
    return type(value).__name__


def _listed(names: Iterator[str]) -> str:
    every = list(names)
    return ", ".join(every[:SHOWN]) + (", ..." if len(every) > SHOWN else "") or "none"
