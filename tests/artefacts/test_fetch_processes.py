"""Real processes: killed halfway, and several at once."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from hqdm_bench.artefacts import Transfer

ROOT = Path(__file__).parents[2]
# The verb in its own process; a download that imports torch would exit with 99.
CODE = (
    "import sys; from hqdm_bench.cli import main; sys.exit(main() or 99 * ('torch' in sys.modules))"
)
MEGABYTE = Transfer().chunk


def catalogue_at(root, **urls):
    """A project folder whose catalogue holds reference batches at the given URLs."""
    shutil.copytree(ROOT / "config", root / "config")
    (root / "config" / "artefacts.lock.json").unlink(missing_ok=True)
    path = root / "config" / "artefacts.yaml"
    entries = yaml.safe_load(path.read_text())
    for name, url in urls.items():
        entries[name] = entries["adm-bedroom256"] | {"file": f"{name}.npz", "urls": [url]}
        entries[name] |= {"about_bytes": 10**6, "sha256": None, "bytes": None}
    path.write_text(yaml.safe_dump(entries))


def start(root, *argv):
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "fetch", *argv, "--root", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def large():
    """3.1 MB: three chunks and a rest."""
    import io
    import random
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("arr_0.npy", random.Random(0).randbytes(3 * MEGABYTE + 100_000))
    return buffer.getvalue()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_halfway_and_continued(tmp_path, server, answer, large, number):
    half = answer(large, cut=2 * MEGABYTE + 5000, gate=threading.Event())
    catalogue_at(tmp_path, one=server.put("/f", half, answer(large)))
    part = tmp_path / "artefacts" / ".one.npz.part"
    process = start(tmp_path, "one")
    wait_for(lambda: part.is_file() and part.stat().st_size >= 2 * MEGABYTE)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == (-number if number == signal.SIGKILL else 130), errors
    left = sorted(path.name for path in part.parent.iterdir())
    assert left == [".one.npz.part", ".one.npz.part.json"]
    assert part.read_bytes() == large[: 2 * MEGABYTE]
    assert not (tmp_path / "config" / "artefacts.lock.json").exists()

    process = start(tmp_path, "one")
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert (part.parent / "one.npz").read_bytes() == large
    assert [path.name for path in part.parent.iterdir()] == ["one.npz"]
    assert server.ranges() == [None, f"bytes={2 * MEGABYTE}-"]
    assert "recorded in" in output
    assert "fetch one (MB): done, 3 in" in errors


def test_two_processes_record_both(tmp_path, server, answer, batch, other_batch):
    gate = threading.Event()
    first = server.put("/a", answer(batch, cut=100, gate=gate))
    second = server.put("/b", answer(other_batch, cut=100, gate=gate))
    catalogue_at(tmp_path, one=first, two=second)
    running = [start(tmp_path, "one"), start(tmp_path, "two")]
    wait_for(lambda: len(server.asked) == 2)
    gate.set()
    for process in running:
        assert process.wait(timeout=20) == 0, process.communicate()
        process.communicate()
    lock = json.loads((tmp_path / "config" / "artefacts.lock.json").read_text())
    assert {name: entry["url"] for name, entry in lock.items()} == {"one": first, "two": second}
    assert not list((tmp_path / "config").glob(".*"))


def test_two_fetches_of_one_file_download_it_once(project, server, answer, batch, caplog):
    gate = threading.Event()
    project.set(server.put("/f", answer(batch, cut=100, gate=gate)))
    patient = Transfer(read_timeout=20)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(project.fetch, transfer=patient)
        wait_for(lambda: server.asked)
        second = pool.submit(project.fetch, transfer=patient)
        wait_for(
            lambda: f"waiting for another process that is fetching {project.path}" in said(caplog)
        )
        gate.set()
        assert first.result(20).how == "downloaded"
        assert second.result(20).how == "present"
    assert len(server.asked) == 1
    assert project.path.read_bytes() == batch
    assert project.files() == ["artefacts.lock.json", "stand-in.npz"]


def said(caplog):
    return "\n".join(record.getMessage() for record in caplog.records)
