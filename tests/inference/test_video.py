"""`rtgaze video`: frames, times, sound and metadata kept; killed and resumed; one line for whatever is wrong."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from video_helpers import astronaut, disc_model, moving, read_video, write_video

from rtgaze_jax import cli
from rtgaze_jax.errors import UserError
from rtgaze_jax.inference import redirector
from rtgaze_jax.inference.live import Aim, LiveRedirector
from rtgaze_jax.inference.provenance import SOURCE_TYPE
from rtgaze_jax.inference.repaint import Key
from rtgaze_jax.inference.tracking import Tracker
from rtgaze_jax.inference.video import VideoJob, ahead
from rtgaze_jax.inference.video_files import Colour, Video


@pytest.fixture(autouse=True)
def disc_network(monkeypatch):
    monkeypatch.setattr(redirector, "load", lambda path: disc_model())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """30 frames of a drifting face, 320x240, with sound, a title and a comment."""
    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    frames = [moving(i)[0] for i in range(30)]
    return write_video(path, frames, metadata={"title": "A talk", "comment": "first take"})


def redirect(source, out, *arguments):
    return cli.main(["video", str(source), "-o", str(out), "--look-at", "camera", *arguments])


def test_frames_times_sound_and_metadata_are_kept(clip, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert redirect(clip, out) == 0
    before, after = read_video(clip), read_video(out)
    assert after[0].shape == before[0].shape
    assert after[1] == before[1]
    assert len(before[2]) > 40
    assert after[2] == before[2]  # the sound's very packets
    assert after[3]["title"] == "A talk"
    assert after[3]["comment"].startswith("first take [The gaze direction")
    assert SOURCE_TYPE in after[3]["comment"]
    assert SOURCE_TYPE.encode() in out.read_bytes()[-3000:]  # the XMP box
    difference = np.abs(after[0].astype(int) - before[0]).max(-1)
    assert (difference[:, 90:125, 120:200] > 60).any((1, 2)).all()  # red eyes in every frame
    assert difference[:, 160:].max() < 40  # and elsewhere nothing but compression
    assert np.median(difference[:, 160:]) <= 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4"]
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"{clip} -> {out}: 30 frames, 30 faces redirected, 0 left alone, ")


def test_without_provenance_and_in_other_containers(clip, tmp_path):
    for name in ("out.mkv", "out.mov"):
        assert redirect(clip, tmp_path / name, "--no-provenance") == 0
        frames, _, sound, metadata = read_video(tmp_path / name)
        assert len(frames) == 30
        assert len(sound) > 40
        assert SOURCE_TYPE not in (tmp_path / name).read_text("latin-1")
        comments = {k.lower(): v for k, v in metadata.items()}
        assert comments["comment"] == "first take"


def test_planes_keep_what_is_not_redirected(clip):
    """Outside what was redirected not even the colour conversion may leave a trace before the encoder."""
    video = Video(clip)
    for frame in video.read():
        same = video.changed(frame, frame.pixels, [])
        assert all(a is b for a, b in zip(same, frame.planes, strict=True))
        window = (slice(41, 90), slice(33, 99))
        changed = video.changed(frame, 255 - frame.pixels, [window])
        different = (changed[0] != frame.planes[0]).nonzero()
        assert different[0].min() >= 40
        assert different[0].max() < 90
        assert different[1].min() >= 32
        assert different[1].max() < 100
        assert (changed[1] != frame.planes[1]).any()
        break
    # where a window's pixels are the old ones, converting them leaves no trace
    whole = [(slice(0, 240), slice(0, 320))]
    for before, after in zip(frame.planes, video.changed(frame, frame.pixels, whole), strict=True):
        np.testing.assert_array_equal(after, before)
    # and new pixels become what FFmpeg makes of them
    import av

    new = np.clip(frame.pixels.astype(int) // 2 + 60, 0, 255).astype(np.uint8)
    reference = av.VideoFrame.from_ndarray(new, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU601")
    expected = np.frombuffer(reference.planes[0], np.uint8).reshape(240, -1)[:, :320]
    assert np.abs(video.changed(frame, new, whole)[0].astype(int) - expected).mean() < 2


@pytest.mark.parametrize("space", [1, 5, 9])
def test_grey_has_no_colour_and_primaries_reach_the_limits(space):
    for full, (luma, chroma) in ((1, (219, 112)), (2, (255, 127.5))):
        weights = Colour(space, full, 2, 2).weights() * 255
        np.testing.assert_allclose(weights.sum(1), (luma, 0, 0), atol=1e-3)
        assert weights[1, 2] == pytest.approx(chroma)  # blue in U
        assert weights[2, 0] == pytest.approx(chroma)  # red in V


def test_uneven_times_odd_sizes_no_sound_no_face(tmp_path, capsys):
    random = np.random.default_rng(0)
    frames = [random.integers(90, 120, (75, 101, 3), np.uint8) for _ in range(7)]
    source = write_video(tmp_path / "in.mkv", frames, sound=False, times=[0, 4, 9, 13, 30, 34, 60])
    assert redirect(source, tmp_path / "out.mp4") == 0
    before, after = read_video(source), read_video(tmp_path / "out.mp4")
    assert after[0].shape == (7, 75, 101, 3)
    np.testing.assert_allclose(after[1], before[1], atol=1e-3)
    assert "nothing was changed: there is no face 1" in capsys.readouterr().err


def test_all_faces(tmp_path):
    photo = astronaut()[:300, 80:380]
    both = np.concatenate([photo, photo[:, ::-1]], 1)
    source = write_video(tmp_path / "in.mp4", [both] * 3, sound=False)
    reddened = {}
    for face in ("1", "2", "all"):
        assert redirect(source, tmp_path / "out.mp4", "--face", face) == 0
        change = np.abs(read_video(tmp_path / "out.mp4")[0].astype(int) - read_video(source)[0]).max(-1) > 70
        reddened[face] = [bool(change[:, :, :300].any()), bool(change[:, :, 300:].any())]
    assert sorted([reddened["1"], reddened["2"]]) == [[False, True], [True, False]]
    assert reddened["all"] == [True, True]


KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)  # as in these tests
sys.path.insert(0, {tests!r})
from pathlib import Path
from video_helpers import disc_model
from rtgaze_jax.inference.live import Aim
from rtgaze_jax.inference.video import VideoJob

def stop(progress):
    if progress.done == {at}:
        os.kill(os.getpid(), signal.SIGKILL)

VideoJob(Path({source!r}), Path({out!r}), Aim(), segment=8).run(disc_model(), stop)
"""


def test_killed_and_resumed_is_as_never_stopped(clip, tmp_path):
    whole, out = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    VideoJob(clip, whole, Aim(), segment=8).run(disc_model())
    code = KILLED.format(tests=str(Path(__file__).parent), source=str(clip), out=str(out), at=21)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    with pytest.raises(UserError, match="other options"):
        VideoJob(clip, out, Aim(yaw=5.0), resume=True, segment=8)
    job = VideoJob(clip, out, Aim(), resume=True, segment=8)
    assert job.resumed == 16
    counts = job.run(disc_model())
    assert counts["frames"] == 30
    expected, resumed = read_video(whole), read_video(out)
    np.testing.assert_array_equal(resumed[0], expected[0])
    assert resumed[1] == expected[1]
    assert resumed[2] == expected[2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "whole.mp4"]


def test_resume_of_finished_segments_only_joins(clip, tmp_path, monkeypatch):
    out = tmp_path / "out.mp4"
    job = VideoJob(clip, out, Aim(), segment=8)
    monkeypatch.setattr(Video, "join", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        job.run(disc_model())
    monkeypatch.undo()
    again = VideoJob(clip, out, Aim(), resume=True, segment=8)
    assert again.resumed == 30
    model = disc_model()
    again.run(model)
    assert model.network.encoded == 0
    assert len(read_video(out)[0]) == 30


def test_frames_are_those_of_one_after_the_other(clip, tmp_path, monkeypatch):
    """What reaches the encoder, bit for bit, though frames are pasted side by side."""
    video, tracker, live = Video(clip), Tracker(), LiveRedirector(disc_model(), Aim())
    expected = []
    for frame in video.read():
        pixels, windows = live.apply(frame.pixels, frame.time, tracker.update(frame.pixels, frame.time))
        expected.append(video.changed(frame, pixels, windows))
    reached, coded = [], Video._coded
    monkeypatch.setattr(Video, "_coded", lambda self, planes, pts: reached.append(planes) or coded(self, planes, pts))
    VideoJob(clip, tmp_path / "out.mp4", Aim()).run(disc_model())
    assert len(reached) == len(expected) == 30
    for planes, wanted in zip(reached, expected, strict=True):
        for plane, other in zip(planes, wanted, strict=True):
            np.testing.assert_array_equal(plane, other)


def fails_once(function, count, fail):
    """The function, but `fail` is called at its call number `count`."""
    calls = itertools.count()

    def wrapped(*args, **kwargs):
        if next(calls) == count:
            fail()
        return function(*args, **kwargs)

    return wrapped


STAGES = [(Video, "_frame"), (Tracker, "update"), (LiveRedirector, "plan"), (Key, "matrices"), (Video, "_coded")]


@pytest.mark.parametrize(("owner", "name"), STAGES)
def test_an_error_in_any_stage_ends_all_and_what_was_done_is_kept(clip, tmp_path, monkeypatch, owner, name):
    def fail():
        raise UserError("broken")

    out, threads = tmp_path / "out.mp4", set(threading.enumerate())
    job = VideoJob(clip, out, Aim(), segment=8)
    monkeypatch.setattr(owner, name, fails_once(getattr(owner, name), 19, fail))
    with pytest.raises(UserError, match="broken"):
        job.run(disc_model())
    assert not {t for t in threading.enumerate() if not t.name.startswith("faces")} - threads
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4.parts"]
    assert not [p for p in job.folder.iterdir() if p.name.startswith(".")]  # no half files
    monkeypatch.undo()
    again = VideoJob(clip, out, Aim(), resume=True, segment=8)
    assert again.resumed in (0, 8, 16)
    assert again.run(disc_model())["frames"] == 30


@pytest.mark.parametrize(("owner", "name"), STAGES)
def test_an_interrupt_is_one_line_whatever_the_stages_do(clip, tmp_path, monkeypatch, capsys, request, owner, name):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    threads = set(threading.enumerate())
    interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    monkeypatch.setattr(owner, name, fails_once(getattr(owner, name), 19, interrupt))
    assert redirect(clip, tmp_path / "out.mp4") == 130
    captured = capsys.readouterr()
    assert captured.err == "interrupted; the same command with --resume goes on (0 frames are done)\n"
    assert captured.out == ""
    assert not {t for t in threading.enumerate() if not t.name.startswith("faces")} - threads
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4.parts"]
    assert [p.name for p in (tmp_path / "out.mp4.parts").iterdir()] == ["job.json"]


def test_a_rotated_phone_video_comes_out_upright(tmp_path):
    import av

    upright = moving(0)[0]
    source = write_video(tmp_path / "flat.mp4", [np.ascontiguousarray(np.rot90(upright))] * 3, sound=False)
    turned = tmp_path / "turned.mp4"
    with av.open(str(source)) as original, av.open(str(turned), "w") as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        stream.set_display_rotation(-90.0)
        for packet in original.demux(original.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    (frame, *_) = Video(turned).read()
    assert np.abs(frame.pixels.astype(int) - upright).mean() < 4
    assert redirect(turned, tmp_path / "out.mp4") == 0
    result = read_video(tmp_path / "out.mp4")[0][0].astype(int)
    assert result.shape == upright.shape
    assert (np.abs(result - upright)[90:125, 120:200] > 60).any()


def test_a_stage_that_fails_or_is_left_ends_its_thread():
    def numbers():
        yield from range(5)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(ahead(numbers()))
    endless = ahead(iter(int, 1))
    assert next(endless) == 0
    endless.close()


@pytest.fixture(scope="module")
def malformed(clip, tmp_path_factory):
    """A folder of files that are no good videos, and two that are."""
    folder = tmp_path_factory.mktemp("malformed")
    content = clip.read_bytes()
    (folder / "good.mp4").write_bytes(content)
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "start.mp4").write_bytes(content[:100])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "zeros.mp4").write_bytes(bytes(5000))
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "text.mp4").write_text("no video\n" * 50)
    (folder / "json.mkv").write_text(json.dumps({"a": 1}))
    (folder / "page.avi").write_text("<html></html>")
    (folder / "fake.mkv").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(300))
    (folder / "riff.avi").write_bytes(b"RIFF\x10\x00\x00\x00AVI LIST" + bytes(40))
    damaged = bytearray(content)
    damaged[content.index(b"moov") + 8 : content.index(b"moov") + 400] = bytes(392)
    (folder / "moov.mp4").write_bytes(damaged)
    (folder / "strange name 'ü\n.mp4").write_bytes(b"nothing")
    (folder / "sound.m4a").write_bytes(b"")
    (folder / "folder.mp4").mkdir()
    write_video(folder / "sound.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3, sound=True)
    import av

    with av.open(str(folder / "only.mp4"), "w") as container, av.open(str(clip)) as original:
        stream = container.add_stream_from_template(original.streams.audio[0])
        for packet in original.demux(original.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return folder


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["missing.mp4", "-o", "o.mp4", "--look-at", "camera"], "no such file"),
        (["folder.mp4", "-o", "o.mp4", "--look-at", "camera"], "is a folder"),
        *(
            ([name, "-o", "o.mp4", "--look-at", "camera"], name.split("\n")[0])
            for name in (
                *("cut.mp4", "start.mp4", "empty.mp4", "zeros.mp4", "noise.mp4", "text.mp4", "json.mkv", "page.avi"),
                *("fake.mkv", "riff.avi", "moov.mp4", "strange name 'ü\n.mp4", "sound.m4a"),
            )
        ),
        (["only.mp4", "-o", "o.mp4", "--look-at", "camera"], "has no video"),
        (["good.mp4", "-o", "good.mp4", "--look-at", "camera"], "is the video itself"),
        (["good.mp4", "-o", "./good.mp4", "--look-at", "camera"], "is the video itself"),
        (["good.mp4", "-o", "o.gif", "--look-at", "camera"], "must end in"),
        (["good.mp4", "-o", "o", "--look-at", "camera"], "must end in"),
        (["good.mp4", "-o", "folder.mp4", "--look-at", "camera"], "is a folder"),
        (["good.mp4", "-o", "good.mp4/o.mp4", "--look-at", "camera"], "cannot write"),
        (["good.mp4", "--look-at", "camera"], "required"),
        (["good.mp4", "-o", "o.mp4"], "say where to look"),
        (["good.mp4", "-o", "o.mp4", "--look-at", "moon"], "invalid choice"),
        (["good.mp4", "-o", "o.mp4", "--look-at", "camera", "--yaw", "2"], "--look-at already"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "left"], "invalid float"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "nan"], "yaw must be a number"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "46"], "from -45 to 45"),
        (["good.mp4", "-o", "o.mp4", "--pitch", "-31"], "from -30 to 30"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--strength", "2"], "--strength"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--strength", "3:1,2:1"], "--strength"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--strength", ""], "--strength"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--face", "0"], "--face"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--face", "left"], "--face"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--look-away", "0.9"], "--look-away"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--look-away", "nan"], "--look-away"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--seed", "-1"], "--seed"),
        (["good.mp4", "good.mp4", "-o", "o.mp4", "--yaw", "1"], "unrecognized"),
        (["good.mp4", "-o", "o.mp4", "--yaw", "1", "--speed", "2"], "unrecognized"),
        ([], "required"),
    ],
)
def test_mistakes_are_one_line(malformed, monkeypatch, capfd, arguments, cause):
    monkeypatch.chdir(malformed)
    before = sorted(p.name for p in malformed.iterdir())
    code = cli.main(["video", *arguments])
    captured = capfd.readouterr()
    assert code in (1, 2)
    assert cause in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("rtgaze: ")
    assert captured.out == ""
    assert sorted(p.name for p in malformed.iterdir()) == before
