"""Options and lines of ``hqdm-bench fetch``; no server is asked."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from hqdm_bench.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path):
    """A project folder whose catalogue has mirrors in a folder of this machine."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config" / "artefacts.lock.json").unlink(missing_ok=True)
    path = tmp_path / "config" / "artefacts.yaml"
    entries = yaml.safe_load(path.read_text())
    for entry in entries.values():
        entry |= {"urls": [(tmp_path / "mirror" / entry["file"]).as_uri()]}
        entry |= {"sha256": None, "bytes": None}
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    (tmp_path / "mirror").mkdir()
    for name in ("adm-imagenet256", "adm-bedroom256"):
        np.savez(tmp_path / "mirror" / entries[name]["file"], arr_0=np.zeros(5))
    return tmp_path


def run(capsys, root, *argv):
    status = main(["fetch", *argv, "--root", str(root)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out.splitlines(), captured.err


def test_names_are_fetched_then_verified(capsys, root):
    status, lines, _ = run(capsys, root, "adm-imagenet256", "adm-bedroom256", "adm-imagenet256")
    assert status == 0
    assert [line.split(":")[0] for line in lines] == ["adm-imagenet256", "adm-bedroom256"]
    size = (root / "artefacts" / "VIRTUAL_imagenet256_labeled.npz").stat().st_size
    for line in lines:
        assert f" linked, {size} bytes, sha256 " in line
        assert "no digest was known, it is now recorded in" in line
        assert line.endswith("artefacts.lock.json: commit it")
    files = [*(root / "artefacts").iterdir(), root / "config" / "artefacts.lock.json"]
    before = [path.stat().st_mtime_ns for path in files]
    status, lines, _ = run(capsys, root, "adm-imagenet256", "--offline")
    assert (status, len(lines)) == (0, 1)
    assert f" is already there, {size} bytes, sha256 " in lines[0]
    assert lines[0].endswith(" verified")
    assert [path.stat().st_mtime_ns for path in files] == before


@pytest.mark.parametrize("argv", [("--all",), ("--suite", "paper"), ("--all", "--suite", "paper")])
def test_one_failure_does_not_stop_the_others(capsys, root, argv):
    status, lines, errors = run(capsys, root, *argv)
    assert status == 2
    assert len(lines) == 2
    missing = errors.count("there is no such file")
    first = f"{missing} of {missing + 2} artefacts failed:\n'ldm4-imagenet' could not be fetched."
    assert first in errors
    assert missing > 3
    assert len(list((root / "artefacts").iterdir())) == 2


def test_suite_without_files(capsys, root):
    assert run(capsys, root, "--suite", "mini") == (
        0,
        ["suite 'mini' needs no external files"],
        "",
    )


def test_offline_without_the_file(capsys, root):
    status, lines, errors = run(capsys, root, "ldm4-imagenet", "--offline", "--from", "http://a/b")
    assert (status, lines) == (2, [])
    assert "nothing is downloaded with --offline. Get LDM-4 ImageNet checkpoint" in errors
    assert len(errors.splitlines()) == 1


def test_from_path(capsys, root):
    source = root / "mirror" / "copy.npz"
    np.savez(source, arr_0=np.ones(5))
    status, _, _ = run(capsys, root, "adm-imagenet256", "--from", str(source))
    assert status == 0
    assert (root / "artefacts" / "VIRTUAL_imagenet256_labeled.npz").samefile(source)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "name artefacts, or take all of them with --all, or those of a suite with --suite"),
        (["inception", "--all"], "name artefacts, or take all of them with --all"),
        (["inception", "--suite", "paper"], "there are ldm4-imagenet, ldm4-bedrooms"),
        (["imagenet"], "unknown artefact 'imagenet' (see config/artefacts.yaml); known: adm-"),
        (["--suite", "maxi"], "unknown suite 'maxi'"),
        (["--all", "--from", "x"], "--from gives one file, so it goes with one NAME"),
        (["inception", "lsun-churches", "--from", "x"], "--from gives one file"),
        (["inception", "--from", "nowhere.pth"], "nowhere.pth: there is no such file"),
        (["inception", "--from", "s3://a/b"], "s3 is not supported; use http, https, file or a"),
    ],
)
def test_bad_options_are_one_line(capsys, root, argv, message):
    status, lines, errors = run(capsys, root, *argv)
    assert (status, lines) == (2, [])
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (root / "artefacts").exists() or not list((root / "artefacts").iterdir())


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["fetch", "--help"])
    text = capsys.readouterr().out
    assert "hqdm-bench fetch --suite paper" in text
    assert "goes on where it stopped" in text


def test_the_verb_starts_without_torch_and_requests(root):
    code = (
        "import sys; from hqdm_bench.cli import main; "
        f"main(['fetch', 'inception', '--offline', '--root', {str(root)!r}]); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'requests')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
