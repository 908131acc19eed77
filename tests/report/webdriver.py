"""Debian's chromedriver spoken to over its own HTTP protocol: enough to open a page, click, measure, photograph and read the console."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
).split()


class Browser:
    """One headless Chromium; `profile` is an empty folder of its own."""

    def __init__(self, profile: Path) -> None:
        assert DRIVER is not None
        self.process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        port = next(found[1] for line in self.process.stdout if (found := re.search(r"on port (\d+)\.", line)))
        self.base = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        try:
            self.base += f"/session/{self._post('/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
        except BaseException:
            self.process.kill()
            raise

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(self.base + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def close(self) -> None:
        urllib.request.urlopen(urllib.request.Request(self.base, method="DELETE"), timeout=20).close()
        self.process.terminate()
        self.process.wait(timeout=20)

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, page: Path, width: int, *, dark: bool = False) -> None:
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self._post("/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        return self._post("/execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        element = self._post("/element", {"using": "css selector", "value": selector})
        self._post(f"/element/{next(iter(element.values()))}/click", {})

    def press(self, *keys: str) -> None:
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def photograph(self, path: Path) -> None:
        size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
        whole = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        taken = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, clip=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def console(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self._post("/se/log", {"type": "browser"})
        return messages
