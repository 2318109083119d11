"""A project with everything a page shows, and a headless Chromium to look at it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hqdm_bench.common.files import write_json
from hqdm_bench.report.page.gallery import preview_cells
from hqdm_bench.report.preview import write_preview

LAYER = "input_blocks.3.1.transformer_blocks.0.ff.net.2"
OTHER = "middle_block.0.in_layers.2"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, " ": 32}


class Browser:
    """One tab. Pages are local files; anything they ask of the network is recorded."""

    path: Path  # of the page under test

    def __init__(self, program: str, folder: Path) -> None:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--no-first-run", "--disable-background-networking", "--hide-scrollbars"]
        options += ["--remote-debugging-port=0", "--remote-allow-origins=*"]
        self.process = subprocess.Popen(
            [program, *options, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self.socket = self._connect(folder / "DevToolsActivePort")
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _connect(self, port_file: Path) -> Any:
        import urllib.request

        import websocket

        end = time.monotonic() + 300
        while time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError, IndexError):
                port = int(port_file.read_text().split()[0])
                listing = f"http://127.0.0.1:{port}/json/list"
                with urllib.request.urlopen(listing, timeout=5) as answer:
                    tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
                address = tabs[0]["webSocketDebuggerUrl"]
                return websocket.create_connection(address, timeout=600, suppress_origin=True)
            time.sleep(0.1)
        raise RuntimeError("Chromium did not open its DevTools port within five minutes")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; events that come before its answer are kept."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page in a window of that size and wait until it has run."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def run(self, script: str) -> Any:
        """Value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key on what has the focus."""
        code = {"key": key, "code": "Space" if key == " " else key}
        code |= {"windowsVirtualKeyCode": KEYS[key]}
        text = {"Enter": "\r", " ": " "}.get(key)
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def click(self, selector: str, along: float = 0.5) -> None:
        """The mouse on an element, so far along its width."""
        x, y = self.run(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            " node.scrollIntoView({ block: 'center', behavior: 'instant' });"
            " const box = node.getBoundingClientRect();"
            f" return [box.x + {along} * box.width, box.y + box.height / 2]; }})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    @property
    def faults(self) -> list[str]:
        """Errors of scripts and policy, and addresses asked for beside the page's own."""
        found = []
        for event in self.events:
            kind, values = event["method"], event["params"]
            if kind == "Runtime.exceptionThrown":
                found.append(values["exceptionDetails"]["text"])
            elif kind == "Log.entryAdded" and values["entry"]["level"] == "error":
                found.append(values["entry"]["text"])
            elif kind == "Network.requestWillBeSent":
                address = values["request"]["url"]
                if not address.startswith(("file:", "data:")):
                    found.append(address)
        return found

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """A png of the page, or of the window."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the browser."""
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A running Chromium; tests that need it are skipped where there is none."""
    named = os.environ.get("CHROMIUM", "")
    program = next(
        (found for name in (named, *NAMES) if name and (found := shutil.which(name))), None
    )
    if program is None:
        pytest.skip("no Chromium: install the package chromium or set CHROMIUM")
    pytest.importorskip("websocket", reason="the package websocket-client speaks DevTools")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        running = Browser(program, Path(folder))
        yield running
        running.close()


def claim(name: str, verdict: str, **changes: Any) -> dict[str, Any]:
    """One entry of a claims.json."""
    entry = {
        "id": name,
        "statement": f"sentence {name}",
        "place": "section 5",
        "kind": "difference",
        "paper": {"hqdm": 33.47, "efficientdm": 99.78},
        "arithmetic": "follows",
        "verdict": verdict,
        "effect": -1.403,
        "unit": "FID-like",
        "interval": [-1.8, -1.0],
        "rule": "the interval lies below zero",
        "scope": "direction only",
        "evidence": ["results/tiny/tables/table1.csv"],
    }
    return entry | changes


@pytest.fixture
def full(drawn_project: Any) -> Any:
    """A project with everything a page can show: images, channel maxima, claims, benchmarks."""
    project = drawn_project
    for cell in project.suite.models[0].students:
        project.write_cost(cell)
    for place, cell in enumerate(preview_cells(project.suite)):
        project.write_samples(cell)
        shards = [project.layout.shard(cell, shard) for shard in range(2)]
        if place:  # full precision and the students differ in their green channel
            tint(shards, 20 * place)
        write_preview(project.layout.preview(cell), shards, 8)
    (entry,) = project.suite.models
    recorded = {"layers": [LAYER, OTHER], "steps": [0, 9]}
    project.suite = replace(project.suite, models=(replace(entry, outliers=recorded),))
    claims = [
        claim("a", "reproduced"),
        claim("b", "inconclusive", effect=0.25, unit="", interval=[-0.5, 1.0]),
        claim("c", "not run", effect=None, interval=None, paper={}, evidence=[]),
        claim("d", "inconclusive"),
    ]
    path = project.layout.claims("tiny", "json")
    write_json(path, {"suite": "tiny", "claims": claims})
    return project


def tint(shards: Sequence[Path], green: int) -> None:
    """Give every pixel of the images a green of its own."""
    for path in shards:
        with np.load(path) as file:
            held = dict(file)
        held["arr_0"][..., 1] = green
        np.savez(path, **held)
