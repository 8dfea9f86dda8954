"""The files that sampling writes: pictures, rates and colours as they were given, in the order given."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipelines.sample_files import GifFile, Mp4File, PngFile, VideoFile, write_mp4


def frames_of(path: Path) -> tuple[list[np.ndarray], av.VideoStream]:
    with av.open(str(path)) as video:
        return [f.to_ndarray(format="rgb24") for f in video.decode(video=0)], video.streams.video[0]


def test_an_mp4_shows_the_frames_it_was_given(tmp_path: Path) -> None:
    frames = np.stack([np.full((33, 48, 3), level, np.uint8) for level in (20, 90, 160, 230)])
    write_mp4(tmp_path / "grey.mp4", frames, 29.97)
    found, stream = frames_of(tmp_path / "grey.mp4")
    assert [round(float(frame.mean()) / 10) * 10 for frame in found] == [20, 90, 160, 230]
    assert found[0].shape == (32, 48, 3)  # yuv420p has even sides
    assert float(stream.average_rate) == pytest.approx(29.97, abs=0.01)


def test_a_gif_shows_the_frames_it_was_given_at_their_rate(tmp_path: Path) -> None:
    frames = np.zeros((6, 33, 48, 3), np.uint8)
    frames[..., 0], frames[:, :16, :, 1] = 40 * np.arange(6)[:, None, None], 200
    with GifFile(tmp_path / "a.gif", (33, 48), 8.0) as file:
        file.write(frames[:2])
        file.write(frames[2:])
        assert not (tmp_path / "a.gif").exists()  # it appears whole
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (6, (48, 33), 0)  # type: ignore[attr-defined]
        total_ms = 0
        for number, frame in enumerate(frames):
            gif.seek(number)
            total_ms += gif.info["duration"]
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).max() <= 2
    assert total_ms == pytest.approx(750, abs=20)  # GIF counts in hundredths of a second


def test_a_file_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    def begin(kind: type[VideoFile]) -> None:
        with kind(tmp_path / f"a{kind.suffix}", (32, 48), 8.0) as file:
            file.write(np.zeros((2, 32, 48, 3), np.uint8))
            raise KeyError

    for kind in (Mp4File, GifFile, PngFile):
        with pytest.raises(KeyError):
            begin(kind)
    assert not list(tmp_path.iterdir())


#: Saturated ones, in which BT.601 and BT.709 differ most.
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (200, 30, 120)]


@pytest.mark.parametrize("size", [(32, 48), (720, 1280)])
def test_colours_of_an_mp4_are_those_of_bt709_and_it_says_so(tmp_path: Path, size: tuple[int, int]) -> None:
    """By the formula of ITU-R BT.709 from the bytes of the decoder, and by what the file says."""
    frames = np.empty((len(COLOURS), *size, 3), np.uint8)
    frames[:] = np.array(COLOURS, np.uint8)[:, None, None]
    write_mp4(tmp_path / "a.mp4", frames, 8)
    with av.open(str(tmp_path / "a.mp4")) as video:
        codec = video.streams.video[0].codec_context
        # H.273: 1 is BT.709 for matrix, primaries and transfer; range 1 is that of video.
        tags = (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range)
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]
        for frame, colour in zip(video.decode(video=0), COLOURS, strict=True):
            y, u, v = (float(np.frombuffer(plane, np.uint8)[0]) for plane in frame.planes)
            luma, blue, red = (y - 16) / 219, (u - 128) / 224 * 1.8556, (v - 128) / 224 * 1.5748
            r, b = luma + red, luma + blue
            g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
            np.testing.assert_allclose([255 * r, 255 * g, 255 * b], colour, atol=4)
            # What reads the tags sees the same.
            np.testing.assert_allclose(frame.to_ndarray(format="rgb24")[0, 0], colour, atol=4)


@pytest.mark.parametrize(
    ("fps", "count", "every"), [(0.1, 3, 1), (50, 10, 1), (60, 10, 2), (144, 10, 3), (240, 11, 5)]
)
def test_a_gif_takes_as_many_pictures_as_it_can_show(
    tmp_path: Path, fps: float, count: int, every: int
) -> None:
    """At most 50 in a second, and as long as the video."""
    frames = np.zeros((count, 16, 16, 3), np.uint8)
    frames[:] = 20 * np.arange(count)[:, None, None, None]
    with GifFile(tmp_path / "a.gif", (16, 16), fps) as file:
        file.write(frames[:3])
        file.write(frames[3:])
    with Image.open(tmp_path / "a.gif") as gif:
        shown, total_ms = [], 0
        for number in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(number)
            total_ms += gif.info["duration"]
            shown.append(round(np.asarray(gif.convert("RGB")).mean() / 20))
    assert shown == list(range(0, count, every))
    assert total_ms == pytest.approx(1000 * len(shown) * every / fps, abs=20)


def test_rates_of_an_mp4_are_kept_to_both_ends(tmp_path: Path) -> None:
    for fps in (0.1, 240.0):
        write_mp4(tmp_path / "a.mp4", np.zeros((3, 32, 48, 3), np.uint8), fps)
        found, stream = frames_of(tmp_path / "a.mp4")
        assert len(found) == 3
        assert float(stream.average_rate) == pytest.approx(fps)  # type: ignore[arg-type]
