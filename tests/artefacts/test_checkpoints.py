"""Reading checkpoints: what real files hold is read, and nothing of any file is executed."""

import argparse
import collections
import io
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hqdm_bench.artefacts import checkpoints
from hqdm_bench.artefacts.checkpoints import HARMLESS_NAMES, read_checkpoint
from hqdm_bench.artefacts.formats import check_format
from hqdm_bench.common.errors import BenchError

WEIGHTS = {"model.a": torch.arange(6.0).reshape(2, 3), "model.b": torch.tensor([1, 2])}
FORMATS = ["zip format", "legacy format", "archived", "archived legacy"]


def save(content, path, form="zip format"):
    """Write in one of the forms a checkpoint comes in; returns the file to read."""
    torch.save(content, path, _use_new_zipfile_serialization="legacy" not in form)
    if "archived" not in form:
        return path
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.write(path, "models/model.ckpt")
        opened.writestr("models/config.yaml", "model: {}")
    path.unlink()
    return archive


class Payload:
    """Runs a call when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.fixture(params=["posix.system", "eval", "exec", "getattr"])
def attack(request, tmp_path):
    """A payload, the name it is refused under, and the file that exists if it has run."""
    marker = tmp_path / "executed"
    calls = {
        "posix.system": (os.system, f"touch '{marker}'"),
        "eval": (eval, f"open({str(marker)!r}, 'w')"),
        "exec": (exec, f"open({str(marker)!r}, 'w')"),
        "getattr": (getattr, Payload(eval, f"open({str(marker)!r}, 'w')"), "name"),
    }
    return Payload(*calls[request.param]), request.param, marker


def lightning_class(monkeypatch, name):
    """A class that is saved under a name of a package that is not installed."""
    module, _, last = name.rpartition(".")
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        each = ".".join(parts[:end])
        if each not in ("argparse", "numpy"):
            monkeypatch.setitem(sys.modules, each, types.ModuleType(each))
    made = type(last, (), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], last, made, raising=False)
    return made


@pytest.mark.parametrize("form", FORMATS)
def test_weights_and_counters_come_back_and_nothing_is_left(tmp_path, form):
    content = {
        "state_dict": collections.OrderedDict(WEIGHTS),
        "global_step": 7,
        "epoch": 3,
        "pytorch-lightning_version": "1.4.2",
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
    }
    path = save(content, tmp_path / "model.ckpt", form)
    scratch = tmp_path / "scratch"
    read = read_checkpoint(path, scratch)
    assert (read.global_step, read.epoch, read.lightning) == (7, 3, "1.4.2")
    assert read.state_dict.keys() == WEIGHTS.keys()
    for key, value in WEIGHTS.items():
        assert torch.equal(read.state_dict[key], value)
    assert not scratch.exists() or list(scratch.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux' list of mappings")
def test_tensors_are_mapped_not_copied(tmp_path):
    path = save({"state_dict": {"model.a": torch.zeros(2**20)}}, tmp_path / "model.ckpt")
    read = read_checkpoint(path)
    address = read.state_dict["model.a"].data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            assert line.endswith(str(path))
            return
    pytest.fail("the tensor is not in any mapping")


@pytest.mark.parametrize("form", FORMATS[:2])
@pytest.mark.parametrize("name", [name for name in HARMLESS_NAMES if "numpy" not in name])
def test_classes_of_lightning_are_read_without_it(tmp_path, monkeypatch, name, form):
    made = lightning_class(monkeypatch, name)
    instance = made()
    instance.state = {"best_model_path": "x.ckpt"}
    content = {"state_dict": WEIGHTS, "callbacks": {made: {"score": 1.0}}, "extra": [instance]}
    path = save(content, tmp_path / "model.ckpt", form)
    monkeypatch.undo()
    assert read_checkpoint(path).state_dict.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_numpy_scalars_of_old_and_new_numpy(tmp_path, module):
    content = {"state_dict": WEIGHTS, "lr_schedulers": [{"_last_lr": [np.float64(1e-4)]}]}
    path = save(content, tmp_path / "model.ckpt", "legacy format")
    data = path.read_bytes()
    assert data.count(b"numpy._core.multiarray") == 1
    path.write_bytes(data.replace(b"numpy._core.multiarray", module))
    assert read_checkpoint(path).state_dict.keys() == WEIGHTS.keys()


def test_two_callbacks_stay_apart(tmp_path, monkeypatch):
    first, second = (lightning_class(monkeypatch, name) for name in HARMLESS_NAMES[:2])
    content = {"state_dict": WEIGHTS, "callbacks": {first: 1, second: 2}}
    path = save(content, tmp_path / "model.ckpt")
    monkeypatch.undo()
    loaded = checkpoints._load(path, "file")["callbacks"]
    assert sorted(loaded.values()) == [1, 2]


@pytest.mark.parametrize("form", FORMATS)
def test_a_call_in_a_checkpoint_is_refused_and_not_made(tmp_path, attack, form):
    payload, name, marker = attack
    path = save({"state_dict": WEIGHTS, "extra": payload}, tmp_path / "evil.ckpt", form)
    with pytest.raises(BenchError, match="nothing of it was executed") as refusal:
        read_checkpoint(path)
    assert str(path) in str(refusal.value)
    assert f"it names '{name}'" in str(refusal.value)
    assert not marker.exists()
    assert not list(tmp_path.glob(".*"))
    # The attack is a real one: the same bytes do run where they are trusted.
    if form == "zip format":
        torch.load(path, weights_only=False)
        assert marker.exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("place", ["attribute", "key", "callback state", "argument", "state_dict"])
def test_a_call_hidden_in_what_is_allowed_is_refused(tmp_path, attack, form, place):
    payload, _, marker = attack
    content = {"state_dict": dict(WEIGHTS)}
    if place == "attribute":
        content["hyper_parameters"] = argparse.Namespace(seed=payload)
    elif place == "key":
        content["callbacks"] = {payload: {}}
    elif place == "callback state":
        content["callbacks"] = {argparse.Namespace: {"dirpath": [payload]}}
    elif place == "argument":
        content["lr"] = Payload(type(np.float64(0)).__reduce__(np.float64(0))[0], payload)
    else:
        content["state_dict"]["model.c"] = payload
    path = save(content, tmp_path / "evil.ckpt", form)
    with pytest.raises(BenchError, match="nothing of it was executed"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_pickle_inside_a_numpy_scalar_stays_closed(tmp_path, attack):
    """Numpy itself would unpickle the bytes of an object scalar."""
    payload, _, marker = attack
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    content = {"state_dict": WEIGHTS, "lr": Payload(scalar, np.dtype("O"), pickle.dumps(payload))}
    path = save(content, tmp_path / "model.ckpt")
    assert read_checkpoint(path).state_dict.keys() == WEIGHTS.keys()
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_is_refused_and_not_run(tmp_path, attack, protocol):
    payload, _, marker = attack
    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(payload, protocol))
    with pytest.raises(BenchError, match=r"refused|damaged or not a checkpoint"):
        read_checkpoint(path)
    assert not marker.exists()


def test_os_system_by_its_public_name(tmp_path):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(BenchError, match=r"'os\.system'"):
        read_checkpoint(path)


def test_the_allow_list_is_put_back(tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch keeps a set, lists it in any order
    read_checkpoint(save({"state_dict": WEIGHTS}, tmp_path / "model.ckpt"))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "it holds a list"),
        ({"model": {"a": 1}, "step": 2}, "no state_dict; its entries: model, step"),
        ({}, "no state_dict; its entries: none"),
        ({"state_dict": {"a": torch.ones(1), "b": "text"}}, "b in its state_dict is a str"),
    ],
)
def test_checkpoints_of_another_kind(tmp_path, content, words):
    path = save(content, tmp_path / "model.ckpt")
    with pytest.raises(BenchError, match=words) as refusal:
        read_checkpoint(path)
    assert str(path) in str(refusal.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(BenchError, match=r"model\.ckpt does not exist"):
        read_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html><html>404</html>", b"\x93NUMPY"])
def test_bytes_that_are_no_checkpoint(tmp_path, data):
    path = tmp_path / "model.ckpt"
    path.write_bytes(data)
    with pytest.raises(BenchError, match=r"not a PyTorch checkpoint; it starts with b'"):
        read_checkpoint(path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.97])
def test_truncated_files(tmp_path, form, kept):
    # Random numbers: zeros would be deflated to nothing.
    weights = {"model.a": torch.randn(20000, generator=torch.Generator().manual_seed(0))}
    path = save({"state_dict": weights}, tmp_path / "model.ckpt", form)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(BenchError, match="truncated, damaged or not a checkpoint"):
        read_checkpoint(path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("form", ["zip format", "archived", "archived legacy"])
def test_a_flipped_byte_is_found(tmp_path, form):
    weights = {"model.a": torch.randn(20000, generator=torch.Generator().manual_seed(0))}
    path = save({"state_dict": weights}, tmp_path / "model.ckpt", form)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BenchError, match="truncated, damaged or not a checkpoint"):
        read_checkpoint(path)
    assert not list(tmp_path.glob(".*"))


def archive_of(path, *names):
    content = io.BytesIO()
    torch.save({"state_dict": WEIGHTS}, content)
    with zipfile.ZipFile(path, "w") as opened:
        for name in names:
            opened.writestr(name, content.getvalue())
    return path


def test_archives_with_none_or_several_checkpoints(tmp_path):
    with pytest.raises(BenchError, match=r"no \.ckpt file; its members: readme\.txt"):
        read_checkpoint(archive_of(tmp_path / "a.zip", "readme.txt"))
    with pytest.raises(BenchError, match=r"2 \.ckpt files \(last\.ckpt, model\.ckpt\); extract"):
        read_checkpoint(archive_of(tmp_path / "b.zip", "last.ckpt", "model.ckpt"))


def test_files_that_macos_adds_to_archives_are_passed_over(tmp_path):
    path = archive_of(tmp_path / "a.zip", "model.ckpt", "__MACOSX/._model.ckpt")
    check_format("checkpoint", path)
    assert read_checkpoint(path).state_dict.keys() == WEIGHTS.keys()


def test_a_member_that_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("model.ckpt", "text")
    with pytest.raises(BenchError, match=r"a\.zip \(its member model\.ckpt\) is not a PyTorch"):
        read_checkpoint(tmp_path / "a.zip")
    assert not list(tmp_path.glob(".*"))


def test_an_archive_is_not_extracted_onto_a_full_disk(tmp_path, monkeypatch):
    path = archive_of(tmp_path / "a.zip", "model.ckpt")
    usage = types.SimpleNamespace(free=100)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(BenchError, match=r"extracting model\.ckpt .* GB left; free some"):
        read_checkpoint(path)
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_run_left_is_replaced(tmp_path):
    path = archive_of(tmp_path / "a.zip", "model.ckpt")
    (tmp_path / ".a.extracted.ckpt").write_bytes(b"half")
    assert read_checkpoint(path).state_dict.keys() == WEIGHTS.keys()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.zip"]


def test_an_archive_beside_which_nothing_can_be_written(tmp_path):
    path = archive_of(tmp_path / "a.zip", "model.ckpt")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BenchError, match="cannot be extracted to .*: "):
        read_checkpoint(path, scratch=tmp_path / "file" / "folder")
