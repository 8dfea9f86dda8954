"""Pictures and videos that are given: at the rate, size and turn of the result, whatever the file has."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import write_video
from PIL import Image

from pipelines.sample_pictures import count_pictures, displayed_size, read_picture, video_pictures

SIZE = (32, 48)


def levels(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Pictures that tell their number by their grey: 10, 20, 30, ..."""
    return np.broadcast_to(
        10 * np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)
    )


def read(path: Path, fps: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.concatenate(list(video_pictures(str(path), fps, size)))


@pytest.mark.parametrize(
    ("fps", "numbers"),
    [
        (8.0, [1, 4, 7, 10, 13, 16, 19, 22]),
        (24.0, list(range(1, 25))),
        (12.0, list(range(1, 25, 2))),
        (48.0, [n for n in range(1, 24) for _ in range(2)] + [24]),
        (16.0, [1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20, 22, 23]),
    ],
)
def test_a_video_is_read_at_the_rate_of_the_result(tmp_path: Path, fps: float, numbers: list[int]) -> None:
    """One second of 24 pictures, none of which is shown after its end; where two are as near, either will do."""
    path = write_video(tmp_path / "a.mp4", levels(24), fps=24)
    found = np.rint(read(path, fps).mean((1, 2, 3)) / 10).astype(int)
    assert len(found) == len(numbers) == count_pictures(str(path), fps)
    assert np.abs(found - numbers).max() <= (fps > 24 or fps == 16)


def test_no_picture_is_lost_to_times_that_are_rounded(tmp_path: Path) -> None:
    """As those of Matroska are, to milliseconds; 41.67 ms here."""
    path = write_video(tmp_path / "a.mkv", levels(24), fps=24)
    assert np.rint(read(path, 24.0).mean((1, 2, 3)) / 10).astype(int).tolist() == list(range(1, 25))
    assert count_pictures(str(write_video(tmp_path / "one.mp4", levels(1), fps=24)), 8.0) == 1


def test_a_video_of_another_aspect_is_cut_evenly(tmp_path: Path) -> None:
    """Of 3:1 the middle half stays, for 3:2; nothing is squeezed."""
    picture = np.zeros((64, 192, 3), np.uint8)
    picture[:, :48], picture[:, 48:96], picture[:, 96:144], picture[:, 144:] = 250, 60, 120, 250
    path = write_video(tmp_path / "wide.mp4", np.repeat(picture[None], 3, 0), fps=8)
    found = read(path, 8.0)
    assert found.shape == (3, *SIZE, 3)
    assert found[0, :, 3:21].mean() == pytest.approx(60, abs=3)
    assert found[0, :, 27:45].mean() == pytest.approx(120, abs=3)
    assert displayed_size(str(path), is_video=True) == (192, 64)


def halves(height: int, width: int) -> Image.Image:
    """Red above blue."""
    picture = Image.new("RGB", (width, height), "blue")
    picture.paste("red", (0, 0, width, height // 2))
    return picture


@pytest.mark.parametrize(("turn", "shown"), [(1, 0), (3, 180), (6, 270), (8, 90)])
def test_a_photo_is_upright(tmp_path: Path, turn: int, shown: int) -> None:
    """EXIF says how the camera was held: 6 is that the right side of the file is down."""
    upright = halves(96, 64)
    stored = upright.rotate(-shown, expand=True)
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "a.png", exif=exif)
    assert displayed_size(str(tmp_path / "a.png"), is_video=False) == (64, 96)
    (found,) = read_picture(str(tmp_path / "a.png"), (48, 32))
    assert np.array_equal(found, np.asarray(upright.resize((32, 48))))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path: Path, mode: str) -> None:
    """Whatever colour they hide; those half transparent are half white."""
    picture = np.zeros((32, 48, 4), np.uint8)
    picture[:, 16:32, 3], picture[:, 32:, 3] = 128, 255
    image = Image.fromarray(picture)
    if mode == "P":  # one colour of the palette is transparent
        image = image.convert("RGB").quantize(4)
        image.info["transparency"] = image.getpixel((0, 0))
        data = io.BytesIO()
        image.save(data, format="PNG", transparency=image.getpixel((0, 0)))
        (tmp_path / "a.png").write_bytes(data.getvalue())
        (found,) = read_picture(str(tmp_path / "a.png"), SIZE)
        assert (found == 255).all()
        return
    image.convert(mode).save(tmp_path / "a.png")
    (found,) = read_picture(str(tmp_path / "a.png"), SIZE)
    assert (found[:, :16] == 255).all()
    assert np.abs(found[:, 16:32].astype(int) - 127).max() <= 1
    assert (found[:, 32:] == 0).all()


def test_a_video_that_says_how_it_is_turned_is_upright(tmp_path: Path) -> None:
    """A phone's: the display matrix of the file turns it."""
    wide = np.asarray(halves(96, 64).rotate(90, expand=True))
    path = write_video(tmp_path / "a.mp4", np.repeat(wide[None], 4, 0), fps=8)
    turned = tmp_path / "turned.mp4"
    data = bytearray(path.read_bytes())
    # The matrix of the track header, 16.16 numbers: that of 90 degrees instead of that of none.
    at = data.index(b"tkhd") + 4 + 40
    one, minus = (1 << 16).to_bytes(4, "big"), (-(1 << 16)).to_bytes(4, "big", signed=True)
    zero = bytes(4)
    assert data[at : at + 12] == one + zero + zero
    data[at : at + 24] = zero + one + zero + minus + zero + zero
    turned.write_bytes(data)
    with av.open(str(turned)) as video:
        assert next(video.decode(video=0)).rotation % 360 == 270
    assert displayed_size(str(turned), is_video=True) == (64, 96)
    found = read(turned, 8.0, (48, 32))
    assert found[0, 4:20, :, 0].mean() > 200 > 60 > found[0, 4:20, :, 2].mean()
    assert found[0, 28:44, :, 2].mean() > 200 > 60 > found[0, 28:44, :, 0].mean()
