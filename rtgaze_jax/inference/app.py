"""The local page of `rtgaze app`: a small HTTP server of the standard library and three files of its own.

Nothing is loaded from elsewhere and nothing is sent elsewhere. Requests must name this host (no other page can reach
it through a name that resolves here), come from its own page, and stay within limits; errors are messages.
"""

import http.cookies
import http.server
import json
import shutil
import sys
import threading
import traceback
import urllib.parse
from collections.abc import Callable
from importlib import resources
from typing import Any, ClassVar

from rtgaze_jax.errors import UserError
from rtgaze_jax.inference.redirector import Redirector
from rtgaze_jax.inference.studio import FRAME_BYTES, PHOTO_BYTES, VIDEO_BYTES, Session, Studio

_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_COOKIE = "rtgaze"
_MAX_REQUESTS = 24  # at once
_JSON_BYTES = 4096
_DRAIN = 256 << 20  # bytes of a refused upload that are read and dropped
_LOCAL = ("127.0.0.1", "localhost", "[::1]")


class TooLargeError(UserError):
    """An upload beyond the limit."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rtgaze", ""
    timeout = 60  # seconds without a byte
    server: "Server"

    def log_message(self, format: str, *args: Any) -> None:
        """Writes nothing: who looked at what is nobody's business."""

    # --- requests -----------------------------------------------------------------------------------------------

    def do_GET(self) -> None:
        """Pages, pictures, progress."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Everything that takes input."""
        self._answer("POST")

    def _answer(self, method: str) -> None:
        self._key: str | None = None
        if not self.server.slots.acquire(blocking=False):
            self._error(503, "too many requests at once; try again in a moment")
            return
        try:
            self._check_origin(method)
            url = urllib.parse.urlsplit(self.path)
            if method == "GET" and url.path in _PAGES:
                name, kind = _PAGES[url.path]
                self._send(200, (resources.files("rtgaze_jax.inference") / "page" / name).read_bytes(), kind)
                return
            action = _ACTIONS.get((method, url.path))
            if action is None:
                self._error(404, "there is nothing here")
                return
            session = self._session()
            action(self, session, dict(urllib.parse.parse_qsl(url.query)))
        except TooLargeError as error:
            self._error(413, str(error))
        except UserError as error:
            self._error(400, str(error))
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the visitor left
        except Exception as error:  # the server must live on; the page shows the message
            if self.server.debug:
                traceback.print_exc(file=sys.stderr)
            self._error(500, f"this failed: {' '.join(str(error).split())[:200] or type(error).__name__}")
        finally:
            self.server.slots.release()

    def _check_origin(self, method: str) -> None:
        host = self.headers.get("Host", "")
        if self.server.hosts and host.rsplit(":", 1)[0] not in self.server.hosts:
            raise UserError(f"this server answers to {', '.join(sorted(self.server.hosts))} only")
        origin = self.headers.get("Origin")
        if method == "POST" and origin is not None and urllib.parse.urlsplit(origin).netloc != host:
            raise UserError("requests must come from this server's own page")

    def _session(self) -> Session:
        cookies = http.cookies.SimpleCookie()
        try:
            cookies.load(self.headers.get("Cookie", ""))
        except http.cookies.CookieError:
            cookies.clear()
        known = cookies[_COOKIE].value if _COOKIE in cookies else None
        key, session = self.server.studio.session(known)
        self._key = key if key != known else None  # told to the browser with the answer
        return session

    def _length(self, limit: int) -> int:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if length < 0:
            raise UserError("the request does not say how long it is")
        if length > limit:
            self.close_connection = True
            for _ in range(min(length, _DRAIN) >> 20):  # a browser hears the answer only after it was heard
                self.rfile.read(1 << 20)
            raise TooLargeError(f"the upload is too large: at most {limit / (1 << 20):.3g} MB")
        return length

    def body(self, limit: int) -> bytes:
        """The request's body, of at most `limit` bytes."""
        length = self._length(limit)
        content = self.rfile.read(length)
        if len(content) < length:
            raise ConnectionError
        return content

    def numbers(self, given: dict[str, Any], **defaults: float) -> dict[str, float]:
        """Named finite numbers of a request. Raises UserError."""
        found = {}
        for name, default in defaults.items():
            try:
                found[name] = float(given.get(name, default))
            except (TypeError, ValueError):
                raise UserError(f"{name} must be a number") from None
        return found

    def aim(self) -> dict[str, Any]:
        """The JSON of a request about a face: its number and where it is to look."""
        try:
            given = json.loads(self.body(_JSON_BYTES) or b"{}")
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise UserError("the request must be a JSON object")
        face = given.get("face", 1)
        if not isinstance(face, int) or isinstance(face, bool):
            raise UserError("face must be a whole number")
        return {"face": face, **self.numbers(given, pitch=0, yaw=0), "rest": given}

    # --- answers ------------------------------------------------------------------------------------------------

    def _headers(self, status: int, length: int, kind: str, extra: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        if self._key:
            self.send_header("Set-Cookie", f"{_COOKIE}={self._key}; HttpOnly; SameSite=Strict; Path=/")
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, content: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
        try:
            self._headers(status, len(content), kind, extra or {})
            self.wfile.write(content)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _error(self, status: int, message: str) -> None:
        if self.command == "POST":
            self.close_connection = True  # a body may be left unread
        self.json({"error": message}, status)

    def json(self, value: Any, status: int = 200) -> None:
        """Sends a JSON value."""
        self._send(status, json.dumps(value).encode(), "application/json")

    def picture(self, content: bytes, about: dict[str, Any] | None = None) -> None:
        """Sends a JPEG, and what is to be said about it as a header."""
        self._send(200, content, "image/jpeg", {"X-About": json.dumps(about)} if about else None)

    # --- actions ------------------------------------------------------------------------------------------------

    def upload_photo(self, session: Session, _: dict[str, str]) -> None:
        """A photo's bytes -> its size and faces."""
        content = self.body(PHOTO_BYTES)
        with session.lock:
            self.json(session.upload(content))

    def show_original(self, session: Session, _: dict[str, str]) -> None:
        """The photo as it came."""
        with session.lock:
            self.picture(session.original())

    def redirect_photo(self, session: Session, _: dict[str, str]) -> None:
        """Face, pitch, yaw, strength -> the redirected photo."""
        aim = self.aim()
        strength = self.numbers(aim["rest"], strength=1)["strength"]
        with session.lock:
            self.picture(*session.redirected(aim["face"], aim["pitch"], aim["yaw"], strength))

    def save_photo(self, session: Session, _: dict[str, str]) -> None:
        """As redirect_photo, in full size as a PNG file."""
        aim = self.aim()
        strength = self.numbers(aim["rest"], strength=1)["strength"]
        with session.lock:
            content = session.full(aim["face"], aim["pitch"], aim["yaw"], strength)
        self._send(200, content, "image/png", {"Content-Disposition": 'attachment; filename="redirected.png"'})

    def show_view(self, session: Session, _: dict[str, str]) -> None:
        """Face, pitch, yaw, up, left, depth -> the face from there."""
        aim = self.aim()
        view = self.numbers(aim["rest"], up=0, left=0)
        with session.lock:
            depth = bool(aim["rest"].get("depth"))
            self.picture(session.view(aim["face"], aim["pitch"], aim["yaw"], view["up"], view["left"], depth))

    def camera_frame(self, session: Session, query: dict[str, str]) -> None:
        """A webcam's frame -> the same, redirected."""
        aim = self.numbers(query, pitch=0, yaw=0, strength=1)
        content = self.body(FRAME_BYTES)
        with session.lock:
            self.picture(session.frame(content, **aim))

    def upload_video(self, session: Session, query: dict[str, str]) -> None:
        """A video's bytes -> work begins."""
        aim = self.numbers(query, pitch=0, yaw=0, strength=1)
        left = self._length(VIDEO_BYTES)
        with session.lock:
            with session.video.upload() as path, open(path, "wb") as file:
                while left:
                    piece = self.rfile.read(min(left, 1 << 20))
                    if not piece:
                        raise ConnectionError
                    file.write(piece)
                    left -= len(piece)
            session.video.start(**aim, everyone=query.get("faces") == "all")
            self.json(session.video.status())

    def video_status(self, session: Session, _: dict[str, str]) -> None:
        """How far the video is."""
        self.json(session.video.status())

    def stop_video(self, session: Session, _: dict[str, str]) -> None:
        """Stops the work on the video."""
        self.body(_JSON_BYTES)
        with session.lock:
            session.video.close()
            self.json(session.video.status())

    def video_result(self, session: Session, _: dict[str, str]) -> None:
        """The finished video."""
        with open(session.video.result(), "rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            self._headers(200, size, "video/mp4", {"Content-Disposition": 'inline; filename="redirected.mp4"'})
            shutil.copyfileobj(file, self.wfile, 1 << 20)


_ACTIONS: dict[tuple[str, str], Callable[[Handler, Session, dict[str, str]], None]] = {
    ("POST", "/api/photo"): Handler.upload_photo,
    ("GET", "/api/photo"): Handler.show_original,
    ("POST", "/api/redirect"): Handler.redirect_photo,
    ("POST", "/api/save"): Handler.save_photo,
    ("POST", "/api/view"): Handler.show_view,
    ("POST", "/api/camera"): Handler.camera_frame,
    ("POST", "/api/video"): Handler.upload_video,
    ("GET", "/api/video"): Handler.video_status,
    ("POST", "/api/video/stop"): Handler.stop_video,
    ("GET", "/api/video/result"): Handler.video_result,
}


class Server(http.server.ThreadingHTTPServer):
    """The page's server. host: what to bind; port 0 takes a free one. Raises UserError if the port is taken."""

    daemon_threads = True
    allow_reuse_address: ClassVar[bool] = True  # type: ignore[misc]

    def __init__(self, model: Redirector, host: str = "127.0.0.1", port: int = 7860, debug: bool = False):
        self.studio, self.debug = Studio(model), debug
        # bound to every address, the server cannot know its own names
        self.hosts = set() if host in ("0.0.0.0", "::", "") else {*_LOCAL, host}
        self.slots = threading.BoundedSemaphore(_MAX_REQUESTS)
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"cannot listen on {host}:{port} ({reason}); choose another --port") from error

    @property
    def address(self) -> str:
        """Where to point a browser."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/"

    def server_close(self) -> None:
        """Ends the server and all work."""
        super().server_close()
        self.studio.close()
