"""The local page in chromium, as a person would use it: pytest -m browser tests/browser.

Set RTGAZE_SCREENSHOTS to a folder to keep what was seen.
"""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
from video_helpers import ASTRONAUT, disc_model, moving, write_video

from rtgaze_jax.inference.app import Server

pytestmark = pytest.mark.browser
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the WebDriver standard's key of an element
_FLAGS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ),
    *("--no-first-run", "--disable-sync", "--window-size=1280,900"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)


class Browser:
    """One WebDriver session: the few commands of the protocol that are needed."""

    def __init__(self, port, folder):
        self._base = f"http://127.0.0.1:{port}/session"
        options = {"goog:chromeOptions": {"args": [*_FLAGS, f"--user-data-dir={folder}"]}}
        options |= {"goog:loggingPrefs": {"browser": "ALL"}}
        self._base += "/" + self._ask("POST", "", {"capabilities": {"alwaysMatch": options}})["sessionId"]

    def _ask(self, method, path, value=None):
        body = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self._base + path, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def open(self, address):
        self._ask("POST", "/url", {"url": address})

    def element(self, selector):
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[_ELEMENT]}"

    def click(self, selector):
        self._ask("POST", self.element(selector) + "/click", {})

    def type(self, selector, text):
        self._ask("POST", self.element(selector) + "/value", {"text": text})

    def run(self, script):
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, condition, seconds=20):
        for _ in range(int(seconds / 0.1)):
            if self.run(f"return Boolean({condition})"):
                return
            time.sleep(0.1)
        raise AssertionError(f"never happened: {condition}; message: {self.message()}")

    def drag(self, x, y):
        """Takes the target to a place, in shares of the picture."""
        place = "const b = document.getElementById('{}').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
        box = self.run(place.format("picture"))
        to = round(box[0] + x * box[2]), round(box[1] + y * box[3])
        left, top, width, height = self.run(place.format("target"))
        begin = left + width / 2, top + height / 2
        moves = [
            {"type": "pointerMove", "duration": 0, "x": round(begin[0]), "y": round(begin[1])},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "duration": 200, "x": to[0], "y": to[1]},
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": moves}
        self._ask("POST", "/actions", {"actions": [pointer]})

    def size(self, width, height):
        self._ask("POST", "/window/rect", {"width": width, "height": height})

    def screenshot(self, name):
        content = base64.b64decode(self._ask("GET", "/screenshot"))
        if os.environ.get("RTGAZE_SCREENSHOTS"):
            folder = Path(os.environ["RTGAZE_SCREENSHOTS"])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(content)
        return content

    def picture(self, name="after"):
        """The pixels of an image of the page, u8[H, W, 3]."""
        data = self.run(
            f"const i = document.getElementById('{name}'), c = document.createElement('canvas');"
            "c.width = i.naturalWidth; c.height = i.naturalHeight; c.getContext('2d').drawImage(i, 0, 0);"
            "return c.toDataURL('image/png')"
        )
        content = base64.b64decode(data.split(",")[1])
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    def message(self):
        return self.run("const m = document.getElementById('message'); return m.hidden ? '' : m.textContent")

    def console(self):
        """What the browser complained about."""
        return [e["message"] for e in self._ask("POST", "/se/log", {"type": "browser"}) if e["level"] == "SEVERE"]

    def close(self):
        self._ask("DELETE", "")


@pytest.fixture(scope="module")
def server():
    with Server(disc_model(), port=0) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def driver():
    found = shutil.which("chromedriver")
    assert found, "chromedriver is needed: apt-get install chromium chromium-driver"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([found, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=1):
                break
        except OSError:
            time.sleep(0.1)
    yield port
    process.terminate()
    process.wait()


@pytest.fixture
def browser(driver, server, tmp_path):
    browser = Browser(driver, tmp_path / "profile")
    browser.open(server.address)
    yield browser
    browser.close()


def upload(browser, path):
    browser.type("#photo", str(path))
    browser.wait("!document.getElementById('picture').hidden && document.getElementById('picture').dataset.gaze")


def redirected(browser, pitch, yaw):
    browser.wait(
        "(() => { const g = (document.getElementById('picture').dataset.gaze || '').split(' ').map(Number);"
        "const done = document.getElementById('after').complete;"
        f"return done && Math.abs(g[0] - ({pitch})) < 2 && Math.abs(g[1] - ({yaw})) < 2;"
        "})()"
    )
    time.sleep(0.3)
    return browser.picture()


def test_upload_drag_keys_and_views(browser):
    browser.screenshot("1_empty")
    upload(browser, ASTRONAUT)
    straight = redirected(browser, 0, 0)
    browser.screenshot("2_camera")
    browser.drag(0.15, 0.10)
    aimed = [float(x) for x in browser.run("return document.getElementById('picture').dataset.gaze").split()]
    time.sleep(0.5)
    aimed = [float(x) for x in browser.run("return document.getElementById('picture').dataset.gaze").split()]
    assert aimed[0] > 5  # up
    assert aimed[1] > 20  # image left
    dragged = redirected(browser, *aimed)
    browser.screenshot("3_dragged")
    change = np.argwhere(np.abs(dragged - straight).max(-1) > 40)
    assert len(change) > 20
    assert change[:, 0].max() < 140
    browser.type("#target", "\ue011")  # Home
    np.testing.assert_array_equal(redirected(browser, 0, 0), straight)
    browser.type("#target", "\ue014" * 4)  # four times arrow right
    assert browser.run("return document.getElementById('yaw').value") == "-4"
    redirected(browser, 0, -4)
    browser.wait("!document.getElementById('view-image').hidden")
    colour = browser.picture("view-image")
    browser.click("#depth")
    browser.wait("document.getElementById('view-image').complete")
    time.sleep(0.5)
    depth = browser.picture("view-image")
    assert (depth != colour).any()
    assert (depth.max(-1) - depth.min(-1)).max() <= 2
    browser.run("const c = document.getElementById('compare'); c.value = 50; c.dispatchEvent(new Event('input'))")
    browser.screenshot("4_compare")
    assert browser.message() == ""
    assert browser.console() == []
    browser.size(420, 900)
    browser.screenshot("5_narrow")
    wide = browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert wide


def test_bad_uploads_are_told(browser, tmp_path):
    (tmp_path / "text.png").write_text("no photo")
    browser.type("#photo", str(tmp_path / "text.png"))
    browser.wait("!document.getElementById('message').hidden")
    assert "not a photo" in browser.message()
    browser.screenshot("6_message")
    Image.new("RGB", (300, 300), "green").save(tmp_path / "green.png")
    browser.type("#photo", str(tmp_path / "green.png"))
    browser.wait("document.getElementById('message').textContent.includes('no face')")
    upload(browser, ASTRONAUT)
    assert browser.message() == ""


def test_two_people_at_once(browser, driver, server, tmp_path):
    second = Browser(driver, tmp_path / "second")
    try:
        second.open(server.address)
        mirrored = tmp_path / "mirrored.png"
        Image.open(ASTRONAUT).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
        upload(browser, ASTRONAUT)
        upload(second, mirrored)
        browser.drag(0.15, 0.2)
        second.drag(0.15, 0.2)
        time.sleep(1)
        one, two = browser.picture(), second.picture()
        original = np.asarray(Image.open(ASTRONAUT).convert("RGB")).astype(int)
        assert np.median(np.abs(one - original)) <= 2
        assert np.median(np.abs(two - original[:, ::-1])) <= 2
    finally:
        second.close()


def test_webcam_and_video(browser, tmp_path):
    browser.click("#tab-camera")
    browser.click("#camera")
    browser.wait(
        "document.getElementById('after').src.startsWith('blob:') && document.getElementById('after').naturalWidth"
    )
    assert browser.message() == ""  # chromium's false camera shows no face, and that is no error
    browser.screenshot("7_webcam")
    browser.click("#tab-video")
    source = write_video(tmp_path / "in.mp4", [moving(i)[0] for i in range(12)])
    browser.type("#video", str(source))
    browser.wait("!document.getElementById('finished').hidden", 60)
    browser.wait("document.getElementById('result').readyState >= 2")
    assert browser.run("return document.getElementById('result').videoWidth") == 320
    browser.screenshot("8_video")
    browser.type("#video", str(ASTRONAUT.with_name("NOTICE")))
    browser.wait("!document.getElementById('message').hidden")
    assert "not a video" in browser.message()
    assert [m for m in browser.console() if "400" not in m] == []
