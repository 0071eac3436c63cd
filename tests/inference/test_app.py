"""The local page by HTTP: photos, targets, views, webcam, video, two visitors, limits, strangers."""

import http.client
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image
from video_helpers import ASTRONAUT, disc_model, moving, read_video, write_video

from rtgaze_jax import cli
from rtgaze_jax.inference import app, studio
from rtgaze_jax.inference.provenance import SOURCE_TYPE


@pytest.fixture(scope="module")
def server():
    with app.Server(disc_model(), port=0) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Visitor:
    """A browser as far as HTTP goes: keeps its cookie."""

    def __init__(self, server):
        self.port, self.cookie = server.server_address[1], None

    def ask(self, method, path, body=None, **headers):
        """(status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if self.cookie:
            headers["Cookie"] = self.cookie
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        if answer.getheader("Set-Cookie"):
            self.cookie = answer.getheader("Set-Cookie").split(";")[0]
        connection.close()
        return answer.status, answer.headers, content

    def post(self, path, value):
        return self.ask("POST", path, json.dumps(value))

    def picture(self, path, value):
        status, _, content = self.post(path, value)
        assert status == 200, content
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    def upload(self, content):
        status, _, answer = self.ask("POST", "/api/photo", content)
        return status, json.loads(answer)


@pytest.fixture
def visitor(server):
    return Visitor(server)


def error_of(answer):
    status, _, content = answer
    message = json.loads(content)["error"]
    assert "\n" not in message
    return status, message


def test_pages_bring_everything_themselves(visitor):
    for path, kind in (("/", "html"), ("/app.css", "css"), ("/app.js", "javascript"), ("/icon.svg", "svg")):
        status, headers, content = visitor.ask("GET", path)
        assert status == 200
        assert kind in headers["Content-Type"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
    _, _, page = visitor.ask("GET", "/")
    assert b"Only use pictures of people who agreed" in page


def test_upload_and_drag(visitor):
    status, told = visitor.upload(ASTRONAUT.read_bytes())
    assert status == 200
    assert (told["width"], told["height"]) == (512, 512)
    (face,) = told["faces"]
    assert face["x"] == pytest.approx(0.43, abs=0.03)
    assert face["y"] == pytest.approx(0.19, abs=0.03)
    assert "HttpOnly" not in visitor.cookie  # the attribute is not part of the value
    _, _, before = visitor.ask("GET", "/api/photo")
    before = np.asarray(Image.open(io.BytesIO(before))).astype(int)
    left, right = (visitor.picture("/api/redirect", {"face": 1, "yaw": yaw}) for yaw in (30, -30))
    again = visitor.picture("/api/redirect", {"face": 1, "yaw": 30})
    np.testing.assert_array_equal(left, again)
    assert np.abs(left - before).max() > 60
    assert np.abs(left - right).max() > 60
    changed = np.argwhere(np.abs(left - before).max(-1) > 30)
    assert changed.min() > 50
    assert changed[:, 0].max() < 140  # the eyes and nothing else
    none = visitor.picture("/api/redirect", {"face": 1, "yaw": 30, "strength": 0})
    assert np.abs(none - before).max() <= 3
    status, headers, _ = visitor.post("/api/redirect", {"yaw": 44})
    assert "trained" in json.loads(headers["X-About"])["note"]


def test_views_depth_and_saving(visitor):
    visitor.upload(ASTRONAUT.read_bytes())
    view = visitor.picture("/api/view", {"left": 20, "up": -5})
    assert view.shape == (128, 128, 3)
    depth = visitor.picture("/api/view", {"left": 20, "depth": True})
    assert (depth.max(-1) - depth.min(-1)).max() <= 2  # grey
    status, headers, content = visitor.post("/api/save", {"yaw": 10})
    assert status == 200
    assert headers["Content-Type"] == "image/png"
    assert SOURCE_TYPE.encode() in content
    assert Image.open(io.BytesIO(content)).size == (512, 512)


def png(size, mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, size).save(out, "PNG")
    return out.getvalue()


def test_bad_uploads_get_messages(visitor, monkeypatch):
    for content, cause in (
        (b"", "not a photo"),
        (b"hello", "not a photo"),
        (b"%PDF-1.7 whatever", "not a photo"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a photo"),
        (ASTRONAUT.read_bytes()[:3000], "damaged"),
        (png((300, 300)), "no face"),
        (png((6000, 5000), "1"), "more than 24 million pixels"),
    ):
        status, told = visitor.upload(content)
        assert status == 400
        assert cause in told["error"]
    monkeypatch.setattr(app, "PHOTO_BYTES", 1 << 20)
    assert error_of(visitor.ask("POST", "/api/photo", bytes((1 << 20) + 1))) == (
        413,
        "the upload is too large: at most 1 MB",
    )
    assert error_of(visitor.post("/api/redirect", {}))[1].startswith("there is no photo")


@pytest.mark.parametrize(
    ("path", "body", "cause"),
    [
        ("/api/redirect", b"{", "JSON object"),
        ("/api/redirect", b"[1]", "JSON object"),
        ("/api/redirect", b"[" * 3000, "JSON object"),
        ("/api/redirect", b'{"face": "one"}', "whole number"),
        ("/api/redirect", b'{"face": 7}', "no face 7"),
        ("/api/redirect", b'{"yaw": "left"}', "yaw must be a number"),
        ("/api/redirect", b'{"yaw": NaN}', "yaw must be a number"),
        ("/api/redirect", b'{"yaw": 99}', "from -45 to 45"),
        ("/api/redirect", b'{"strength": 3}', "strength"),
        ("/api/redirect", b" " * 5000, "too large"),
        ("/api/view", b'{"left": 80}', "view"),
        ("/api/camera?yaw=0", b"no picture", "not a photo"),
        ("/api/camera?yaw=nan", ASTRONAUT.read_bytes(), "yaw must be a number"),
        ("/api/camera?strength=7", ASTRONAUT.read_bytes(), "strength must be"),
        ("/api/video", b"no video", "is not a video"),
        ("/api/nothing", b"", "nothing here"),
    ],
)
def test_bad_requests_get_messages(visitor, path, body, cause):
    visitor.upload(ASTRONAUT.read_bytes())
    status, message = error_of(visitor.ask("POST", path, body))
    assert 400 <= status < 500
    assert cause in message
    assert "/tmp" not in message


def test_strangers_are_refused(visitor, server):
    assert error_of(visitor.ask("GET", "/", Host="evil.example"))[0] == 400
    assert error_of(visitor.ask("POST", "/api/redirect", b"{}", Origin="http://evil.example"))[0] == 400
    assert visitor.ask("GET", "/app.js", Host=f"localhost:{visitor.port}")[0] == 200
    for path in ("/../app.py", "/app.py", "/%2e%2e/app.py", "//etc/passwd"):
        assert visitor.ask("GET", path)[0] == 404
    assert error_of(visitor.ask("POST", "/api/redirect", Content_Length="many"))[0] == 400


def test_two_visitors_at_once(server):
    """Each sees only the own photo and gaze, also when they ask at the same moment."""
    mirrored = io.BytesIO()
    Image.open(ASTRONAUT).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored, "PNG")
    visitors, results = [Visitor(server), Visitor(server)], {}

    def visit(i, content):
        assert visitors[i].upload(content)[0] == 200
        results[i] = [visitors[i].picture("/api/redirect", {"yaw": yaw}) for yaw in (25, 0, -25, 25)]

    contents = (ASTRONAUT.read_bytes(), mirrored.getvalue())
    threads = [threading.Thread(target=visit, args=(i, c)) for i, c in enumerate(contents)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert visitors[0].cookie != visitors[1].cookie
    for i in (0, 1):
        np.testing.assert_array_equal(results[i][0], results[i][3])
    alike = np.abs(results[0][0] - results[1][0][:, ::-1])  # the same face, mirrored, but another gaze
    assert np.median(alike) <= 3
    assert alike.max() > 60


def test_forgotten_sessions(server, visitor, monkeypatch):
    monkeypatch.setattr(studio, "MAX_SESSIONS", 2)
    visitor.upload(ASTRONAUT.read_bytes())
    for _ in range(3):
        Visitor(server).ask("GET", "/api/video")
    assert error_of(visitor.post("/api/redirect", {}))[1].startswith("there is no photo")


def test_webcam(visitor):
    for i in range(3):
        out = io.BytesIO()
        frame = moving(i)[0]
        Image.fromarray(frame).save(out, "JPEG", quality=95)
        status, _, content = visitor.ask("POST", "/api/camera?pitch=0&yaw=10&strength=1", out.getvalue())
        assert status == 200
        result = np.asarray(Image.open(io.BytesIO(content))).astype(int)
        assert (np.abs(result - frame)[90:125, 120:200] > 60).any()


def test_video(visitor, tmp_path):
    source = write_video(tmp_path / "in.mp4", [moving(i)[0] for i in range(6)])
    assert error_of(visitor.ask("GET", "/api/video/result"))[1] == "there is no finished video"
    status, _, content = visitor.ask("POST", "/api/video?yaw=5&faces=all", source.read_bytes())
    assert status == 200
    assert json.loads(content)["state"] in ("waiting", "working")
    for _ in range(1200):
        state = json.loads(visitor.ask("GET", "/api/video")[2])
        if state["state"] in ("done", "failed"):
            break
        time.sleep(0.05)
    assert state["state"] == "done", state
    assert state["redirected"] == 6
    status, _, content = visitor.ask("GET", "/api/video/result")
    (tmp_path / "out.mp4").write_bytes(content)
    before, after = read_video(source), read_video(tmp_path / "out.mp4")
    assert after[0].shape == before[0].shape
    assert after[2] == before[2]
    assert json.loads(visitor.post("/api/video/stop", {})[2]) == {"state": "none"}


def test_command_mistakes_are_one_line(tmp_path, capsys):
    for arguments, cause in (
        (["--port", "99999"], "--port"),
        (["--port", "x"], "invalid int"),
        (["--weights", str(tmp_path / "none.safetensors")], "none.safetensors"),
    ):
        assert cli.main(["app", *arguments]) == 2
        captured = capsys.readouterr()
        assert cause in captured.err
        assert captured.err.count("\n") == 1


def test_a_taken_port_is_told(server):
    with pytest.raises(app.UserError, match="choose another --port"):
        app.Server(disc_model(), port=server.server_address[1])
