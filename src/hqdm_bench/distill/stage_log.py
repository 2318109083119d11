"""What of a student's stages is done and what it took, kept in a file so that a run resumes."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.methods import Stage, Student, load_state, student_state

__all__ = ["StageLog"]

FORMAT = 1  # raise it when a file, or what a stage leaves in it, means something else

SECONDS_KEPT = 60  # of work on parts that a kill may cost; a file of every part is many gigabytes

NOTHING_DONE: dict[str, Any] = {"stage": 0, "parts": [], "samples": 0, "fitted": None}


class StageLog:
    """Position within the stages of a student, and the seconds spent on each.

    Args:
        student: as it was built; takes the state of the file if there is one.
        path: file to continue from if it exists, and to write; None keeps nothing.
        identity: of the run; a file of another one is refused.

    Attributes:
        stage: number of finished stages.
        parts: finished parts of the stage after them.
        seconds: wall-clock time by stage, that of earlier runs included.
        cpu_seconds: of all stages, on the processor.
        samples: inputs of the network that the finished stages drew or read for themselves.
        fitted: fewest samples that a part was fitted on, which memory bounds; None for no part.

    Raises:
        BenchError: the file is another run's.
    """

    def __init__(self, student: Student, path: Path | None = None, identity: str = "") -> None:
        self.student = student
        self.path = path
        self.identity = identity
        self.stage = 0
        self.parts: list[str] = []
        self.seconds: dict[str, float] = {}
        self.cpu_seconds = 0.0
        self.samples = 0
        self.fitted: int | None = None
        self._name = ""
        self._since = self._cpu_since = 0.0
        self._saved = time.monotonic()
        if path is not None and path.exists():
            self._restore(path)

    @contextlib.contextmanager
    def running(self, index: int, stage: Stage) -> Iterator[bool]:
        """Take the time of a stage; says whether there is anything left to do.

        Args:
            index: place among the stages.
            stage: what runs.
        """
        if index < self.stage:
            yield False
            return
        with self.timed(f"{index + 1} {stage.name}"):
            yield True
        self.stage, self.parts = index + 1, []
        if stage.costly:
            self._save()

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Take the time of something that is no stage, or of a stage.

        Args:
            name: key of ``seconds``.
        """
        self._name = name
        self._since, self._cpu_since = time.monotonic(), time.process_time()
        yield
        self._add_time()

    def note(self) -> None:
        """Write down the time so far, for a stage with a checkpoint of its own.

        All else in the file stays as it is: what came after it is done again.
        """
        self._add_time()
        if self.path is None:
            return
        if self.path.exists():
            tensors, header = read_tensors(self.path)
        else:
            tensors, header = {}, self._header() | NOTHING_DONE
        times = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        write_tensors(self.path, tensors, header | times)

    def done(self, part: str) -> bool:
        """Whether a part of the stage at hand was finished by an earlier run."""
        return part in self.parts

    def mark(self, part: str, fitted: int | None = None) -> None:
        """A part of the stage at hand is finished; the file is written if it is a minute old.

        Args:
            part: name.
            fitted: samples that it was fitted on.
        """
        if fitted is not None:
            self.fitted = fitted if self.fitted is None else min(self.fitted, fitted)
        self.parts.append(part)
        self._add_time()
        if self._since - self._saved >= SECONDS_KEPT:
            self._save()

    def _add_time(self) -> None:
        now, cpu_now = time.monotonic(), time.process_time()
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self.cpu_seconds += cpu_now - self._cpu_since
        self._since, self._cpu_since = now, cpu_now

    def _save(self) -> None:
        if self.path is not None:
            write_tensors(self.path, student_state(self.student), self._header())
            self._saved = time.monotonic()

    def _header(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "identity": self.identity,
            "stage": self.stage,
            "parts": self.parts,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "samples": self.samples,
            "fitted": self.fitted,
        }

    def _restore(self, path: Path) -> None:
        tensors, header = read_tensors(path)
        if (header.get("format"), header.get("identity")) != (FORMAT, self.identity):
            raise BenchError(f"{path} is the checkpoint of another run; delete it to start again")
        if tensors:
            load_state(self.student, tensors)
        self.stage, self.parts = header["stage"], list(header["parts"])
        self.seconds = dict(header["seconds"])
        self.cpu_seconds, self.samples = header["cpu_seconds"], header["samples"]
        self.fitted = header["fitted"]
