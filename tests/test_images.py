"""Images: what decodes, what is refused and why, and that a view is what timm and torchvision would show."""

from __future__ import annotations

import errno
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from encoded import HEIC, draw, encode, png_bomb, png_chunk
from PIL import Image, ImageFile, features

from transfer.dataset import sniff
from transfer.errors import ResourceError, UsageError
from transfer.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_PIXELS,
    Preprocessing,
    UnreadableImage,
    decode,
    load_view,
    normalise,
    stack,
    view,
)
from transfer.images.foreign import SIGNATURES

HALF = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
HAS_AVIF = "avif" in features.modules and features.check("avif")  # before 11.3, Pillow does not know the word
needs_avif = pytest.mark.skipif(not HAS_AVIF, reason="this Pillow has no AVIF")


@pytest.fixture
def picture() -> Image.Image:
    return draw()


def reason(source: object, **options: object) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode(source, **options)
    assert "\n" not in str(caught.value)
    return caught.value.reason


# Sources and formats


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_formats_decode_to_the_very_pixels(picture, file_format):
    picture = picture.quantize(200).convert("RGB") if file_format == "GIF" else picture
    pixels = decode(encode(picture, file_format))
    assert np.array_equal(pixels, np.asarray(picture))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", pytest.param("AVIF", marks=needs_avif)])
def test_lossy_formats_decode_to_nearly_the_pixels(picture, file_format):
    smooth = picture.resize((24, 16)).resize(picture.size)
    pixels = decode(encode(smooth, file_format, quality=95))
    assert np.abs(pixels.astype(int) - np.asarray(smooth)).mean() < 5


def test_path_text_bytes_image_and_array_give_the_same_pixels(picture, tmp_path):
    path = tmp_path / "a.png"
    picture.save(path)
    expected = np.asarray(picture)
    for source in (
        path,
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        picture,
        Image.open(path),
        expected,
    ):
        assert np.array_equal(decode(source), expected)


def test_the_file_name_does_not_decide_the_format(picture, tmp_path):
    for name in ("really_a_png.jpg", "no_extension", "UPPER.PNG", "-leading dash 'quoted'.eps", "caf\u00e9.png"):
        (tmp_path / name).write_bytes(encode(picture, "PNG"))
        assert np.array_equal(decode(tmp_path / name), np.asarray(picture))


def test_another_kind_of_source_is_a_usage_error():
    with pytest.raises(UsageError, match="Cannot decode int: give a path"):
        decode(7)


# Damage


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
def test_a_truncated_file_is_refused_wherever_it_ends(picture, file_format, share):
    data = encode(picture, file_format)
    assert reason(data[: int(len(data) * share)]) == f"truncated {file_format}"


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 100, "subsampling": 0}])
def test_a_jpeg_that_lacks_its_last_bytes_is_refused(picture, options):
    data = encode(picture, "JPEG", **options)
    for n_lost in (1, 2, 3, 10):
        assert reason(data[:-n_lost]) == "truncated JPEG"


def test_a_png_with_one_flipped_bit_is_refused(picture):
    data = bytearray(encode(picture, "PNG"))
    data[len(data) // 2] ^= 1
    assert reason(bytes(data)).startswith("damaged PNG")


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_a_png_that_ends_in_zeros_is_refused_and_not_black_below(mode):
    y, x = np.mgrid[0:96, 0:128]
    noise = np.random.default_rng(0).integers(0, 40, (96, 128))
    grey = Image.fromarray(((x + y) % 216 + noise).astype(np.uint8))
    data = encode(grey.convert(mode), "PNG")
    for n_lost in (20, 1000, len(data) // 2):
        assert reason(data[:-n_lost] + bytes(n_lost)).startswith("damaged PNG")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html>\n<html><head><title>404", "not an image (HTML)"),
        (b"\xef\xbb\xbf  <HTML lang=en>", "not an image (HTML)"),
        (b"Pyramids, and other text", "not an image (text)"),
        ("caf\u00e9 ".encode() * 200, "not an image (text)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer: `git lfs pull` fetches the image"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported format (SVG)"),
        (b"%PDF-1.7\n%\xe2\xe3", "unsupported format (PDF)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported format (EPS)"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00mp41", "unsupported format (MP4)"),
        (b"8BPS\x00\x01", "unsupported format (PSD)"),
        (bytes(128) + b"DICM\x02\x00", "unsupported format (DICOM)"),
        (bytes(3000), "only zero bytes"),
        (b"\x01\x02\xfe\xff\x80 nothing known", "not an image"),
        (b"\xff\xd8\xff", "damaged JPEG"),
    ],
)
def test_a_file_that_is_no_image_says_what_it_is(tmp_path, content, expected):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert reason(path).startswith(expected)


def test_a_heic_becomes_upright_pixels_where_the_extra_is_and_is_refused_where_it_is_damaged():
    pytest.importorskip("pi_heif")
    pixels = decode(HEIC)
    assert pixels.shape == (64, 48, 3)
    corners = pixels[[4, 4, -4, -4], [4, -4, -4, 4]].astype(int)
    assert np.abs(corners - [(30, 30, 220), (220, 30, 30), (30, 200, 30), (240, 240, 240)]).max() < 12
    assert reason(HEIC[:-200]).startswith(("truncated HEIC", "damaged HEIC"))
    assert "megapixels" in reason(HEIC, max_pixels=1000)


def test_a_heic_without_the_extra_says_what_reads_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert reason(HEIC) == "HEIC: `pip install 'transfer[heic]'`, or convert to JPEG"


def test_no_format_outside_the_list_is_ever_opened(picture, tmp_path, monkeypatch):
    from PIL import EpsImagePlugin, IcoImagePlugin

    def refuse(*_: object) -> None:
        pytest.fail("a plugin outside FORMATS was called")

    monkeypatch.setitem(Image.OPEN, "EPS", (refuse, None))
    monkeypatch.setitem(Image.OPEN, "ICO", (refuse, None))
    assert EpsImagePlugin
    assert IcoImagePlugin
    (tmp_path / "a.jpg").write_bytes(encode(picture, "EPS"))
    (tmp_path / "b.png").write_bytes(encode(picture, "ICO"))
    assert reason(tmp_path / "a.jpg") == "unsupported format (EPS)"
    assert reason(tmp_path / "b.png") == "unsupported format (ICO)"


@pytest.mark.parametrize(("name", "start"), [(name, start) for name in SIGNATURES for start in SIGNATURES[name]])
def test_a_scan_and_a_decoder_call_a_foreign_format_by_the_same_name(name, start):
    assert sniff(start + b"\0\x80\xff") == name
    assert reason(start + b"\0\x80\xff") == f"unsupported format ({name})"


def test_a_path_that_is_no_file_says_so(tmp_path):
    assert reason(tmp_path / "gone.png") == "no such file"
    assert reason(tmp_path) == "not a regular file"
    assert reason("a\0b.png") == "not a file name"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not a regular file"
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert reason(tmp_path / "loop.jpg").startswith("too many levels of symbolic links")


def test_running_out_of_open_files_is_not_blamed_on_the_image(tmp_path, picture, monkeypatch):
    picture.save(tmp_path / "a.png")

    def no_more_files(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", no_more_files)
    with pytest.raises(ResourceError, match="Too many open files"):
        decode(tmp_path / "a.png")


def test_the_message_is_one_printable_line_for_any_file_name(tmp_path):
    name = os.fsdecode(b"a\nb\xff.jpg")
    with pytest.raises(UnreadableImage) as caught:
        decode(tmp_path / name)
    message = str(caught.value)
    assert message.isprintable()
    message.encode("utf-8")
    assert message.endswith("a\\nb\\udcff.jpg: no such file. Replace it or leave it out.")
    assert caught.value.path == tmp_path / name


def test_an_unreadable_image_crosses_to_another_process():
    error = pickle.loads(pickle.dumps(UnreadableImage("a.jpg", "empty file")))
    assert (error.path, error.reason, error.exit_code) == (Path("a.jpg"), "empty file", 3)


def fuzzed(data: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(data)
    at = dice.randrange(len(damaged))
    match dice.randrange(5):
        case 0:
            del damaged[at:]
        case 1:
            damaged[at] ^= 1 << dice.randrange(8)
        case 2:
            for _ in range(8):
                damaged[dice.randrange(min(len(damaged), 300))] = dice.choice([0, 127, 255, dice.randrange(256)])
        case 3:
            del damaged[at : at + dice.randrange(1, 50)]
        case _:
            damaged[at : at + 40] = bytes(40)
    return bytes(damaged)


def files_of_every_kind(small: Image.Image) -> list[bytes]:
    grey = small.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    two_frames = {"save_all": True, "append_images": [small.rotate(9)]}
    files = [
        encode(small, "JPEG", exif=exif),
        encode(small, "JPEG", progressive=True),
        encode(small.convert("CMYK"), "JPEG"),
        encode(small, "MPO", **two_frames),
        encode(small, "PNG", exif=exif),
        encode(small.convert("P"), "PNG", transparency=3),
        encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        encode(small, "GIF", **two_frames),
        encode(small, "WEBP", **two_frames),
        encode(small, "BMP"),
        encode(small, "TIFF", exif=exif),
        encode(small, "TIFF", compression="tiff_lzw"),  # libtiff decodes it, from an open file or from memory
        encode(grey.convert("F"), "TIFF"),
        encode(small, "PPM"),
        b"P2\n4 4\n255\n" + b" 100" * 16,
    ]
    if HAS_AVIF:
        files.append(encode(small, "AVIF"))
    return files


def test_only_unreadable_image_comes_out_of_damaged_files(picture):
    files = files_of_every_kind(picture.resize((48, 32)))
    dice, refusals, n_trials = random.Random(0), [], 20 * len(files)
    for trial in range(n_trials):
        try:
            pixels = decode(fuzzed(files[trial % len(files)], dice), max_pixels=1_000_000)
        except UnreadableImage as error:
            refusals.append(error)
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
    assert n_trials / 4 < len(refusals) < n_trials
    assert all(refusal.reason and str(refusal).isprintable() for refusal in refusals)


def outcome(source: Path | bytes, **options: int) -> tuple[tuple[int, ...], bytes] | str:
    """Pixels; or the message that says why there are none, with the same word for a file and for memory."""
    try:
        pixels = decode(source, **options)
    except UnreadableImage as error:
        return str(error).replace(str(error.path or "from memory"), "it")
    return pixels.shape, pixels.tobytes()


@pytest.mark.parametrize("options", [{}, {"at_least": 6}, {"max_pixels": 48 * 32 - 1}], ids=str)
def test_a_path_and_the_bytes_of_its_file_give_the_same_pixels_or_the_same_reason(picture, tmp_path, options):
    path, dice, reasons = tmp_path / "a.jpg", random.Random(1), set()
    for whole in files_of_every_kind(picture.resize((48, 32))):
        for data in (whole, whole[: len(whole) // 2], whole[:-2], *(fuzzed(whole, dice) for _ in range(8))):
            path.write_bytes(data)
            found = outcome(path, **options)
            assert found == outcome(data, **options)
            reasons |= {found} if isinstance(found, str) else set()
    assert len(reasons) > 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"%PDF-1.7",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        bytes(600),
        b"\x01\x02\xfe\xff\x80",
        *(b"II+\0\x08\0\0\0" + struct.pack("<Q", position) for position in (2**31, 2**45, 2**62, 2**63, 2**64 - 1)),
    ],
)
def test_a_path_and_the_bytes_of_its_file_give_the_same_reason_where_there_is_no_image(content, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert reason(path) == reason(content)


# Size limits


def test_a_400_megapixel_png_is_refused_from_its_header():
    bomb = png_bomb(20_000)
    assert len(bomb) < 400_000
    limit, start = Image.MAX_IMAGE_PIXELS, time.perf_counter()
    assert reason(bomb) == "400 megapixels, limit 178.957 (--max-pixels)"
    assert time.perf_counter() - start < 0.1
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_pixel_limit_holds_when_another_library_switched_pillows_off(picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert reason(encode(picture, "PNG"), max_pixels=6000).endswith("limit 0.006 (--max-pixels)")
    assert reason(picture, max_pixels=6000).startswith("0.006144 megapixels")


def test_a_limit_above_pillows_own_is_honoured(picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encode(picture, "PNG"), max_pixels=6144).shape == (64, 96, 3)
    assert MAX_PIXELS == 2 * 89_478_485


def test_a_gif_frame_larger_than_pillow_allows_is_refused(picture, monkeypatch):
    data = bytearray(encode(picture, "GIF"))
    data[6:10] = struct.pack("<HH", 1, 1)  # the header says 1×1; the frame itself is 96×64
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert reason(bytes(data)) == "more pixels than Pillow allows in a GIF"


# Process-wide switches


def test_a_truncated_file_is_refused_although_another_library_allows_it(picture, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(picture, "JPEG")
    assert reason(data[: len(data) // 2]) == "truncated JPEG"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_threads_that_decode_at_once_refuse_truncated_files_and_leave_the_switch_as_it_was(picture, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encode(picture.resize((400, 300)), "JPEG")
    outcomes: list[str] = []

    def work() -> None:
        for _ in range(25):
            decode(whole)
            try:
                decode(whole[: len(whole) // 2])
                outcomes.append("decoded")
            except UnreadableImage as error:
                outcomes.append(error.reason)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["truncated JPEG"] * 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def with_malformed_mpo_index(data: bytes) -> bytes:
    segment = b"MPF\0" + b"garbage" * 4
    return data[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


def test_pillows_warnings_do_not_make_an_image_unreadable_and_stay_on_for_everybody_else(picture):
    data = with_malformed_mpo_index(encode(picture, "JPEG"))
    assert np.array_equal(decode(data), decode(encode(picture, "JPEG")))
    with pytest.warns(UserWarning, match="malformed MPO"):
        Image.open(io.BytesIO(data))
    n_filters = len(warnings.filters)
    for _ in range(10):
        warnings.simplefilter("error")
        decode(data)
    assert len(warnings.filters) <= n_filters + 1


def test_decoding_works_in_a_forked_child(picture):
    data = encode(picture, "PNG")
    decode(data)
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from transfer.images import decode; data = sys.stdin.buffer.read(); decode(data)\n"
            "child = os.fork()\n"
            "if not child: os._exit(decode(data).shape[0])\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))",
        ],
        input=data,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert child.stdout.strip() == b"64"


# Modes


def test_16_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 128, 257, 25700], [32768, 65279, 65407, 65535]], dtype=np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    big_endian = Image.frombytes("I;16B", (4, 2), values.astype(">u2").tobytes())
    for source in (
        encode(Image.fromarray(values), "PNG"),
        encode(Image.fromarray(values), "TIFF"),
        encode(big_endian, "TIFF"),
        b"P5 4 2 65535\n" + values.astype(">u2").tobytes(),
        Image.fromarray(values.astype(np.int32)),
    ):
        pixels = decode(source)
        assert np.array_equal(pixels, np.repeat(expected[:, :, None], 3, axis=2))


def test_a_dark_16_bit_image_stays_dark():
    assert decode(encode(Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)), "PNG")).max() == 1


def test_16_bit_colour_keeps_its_high_byte():
    values = np.array([[[65535, 32768, 0]]], dtype=">u2")
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" + values.tobytes()))
    pixels = decode(b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b""))
    assert pixels.tolist() == [[[255, 128, 0]]]


def test_integer_images_of_8_bits_are_taken_as_they_are_and_larger_ones_are_stretched():
    small = np.array([[0, 7, 255]], dtype=np.int32)
    assert decode(Image.fromarray(small))[0, :, 0].tolist() == [0, 7, 255]
    large = np.array([[-100_000, 0, 100_000]], dtype=np.int32)
    assert decode(Image.fromarray(large))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("scale", [1.0, 1000.0, 1e38])
def test_a_floating_point_tiff_is_stretched_from_its_minimum_to_its_maximum(scale):
    values = np.array([[-0.5, 0.0, 0.5]], dtype=np.float32) * np.float32(scale)
    assert decode(encode(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


def test_a_constant_floating_point_tiff_is_black_and_one_with_nan_is_refused():
    assert decode(encode(Image.fromarray(np.full((2, 2), 7, np.float32)), "TIFF")).max() == 0
    for value in (np.nan, np.inf):
        broken = np.array([[0, value]], dtype=np.float32)
        assert reason(encode(Image.fromarray(broken), "TIFF")) == "damaged TIFF (NaN or infinite pixels)"


def test_one_bit_and_grey_images_become_grey_rgb():
    bits = np.array([[True, False], [False, True]])
    expected = np.repeat(bits[:, :, None] * np.uint8(255), 3, axis=2)
    assert np.array_equal(decode(encode(Image.fromarray(bits), "PNG")), expected)
    assert np.array_equal(decode(encode(Image.fromarray(expected[:, :, 0]), "PNG")), expected)


def transparent_sources() -> dict[str, bytes | Image.Image]:
    """Hidden red left, half-transparent black in the middle, opaque green right: 3×1 pixels, or what each mode can."""
    rgba = Image.fromarray(np.array([[[255, 0, 0, 0], [0, 0, 0, 128], [0, 255, 0, 255]]], dtype=np.uint8))
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 0, 0, 255, 0])
    return {
        "RGBA": encode(rgba, "PNG"),
        "RGBA WebP": encode(rgba, "WEBP", lossless=True),
        "RGBA TIFF": encode(rgba, "TIFF"),
        "palette": encode(palette, "PNG", transparency=bytes([0, 128, 255])),
        "premultiplied": rgba.convert("RGBa"),
    }


@pytest.mark.parametrize("kind", list(transparent_sources()))
def test_transparency_is_composited_on_white_and_hides_what_is_under_it(kind):
    assert decode(transparent_sources()[kind]).tolist() == [[[255, 255, 255], [127, 127, 127], [0, 255, 0]]]


def test_one_transparent_colour_and_grey_with_alpha_are_composited_too():
    grey = Image.fromarray(np.array([[10, 200]], dtype=np.uint8))
    assert decode(encode(grey, "PNG", transparency=10))[0, :, 0].tolist() == [255, 200]
    assert decode(encode(grey, "GIF", transparency=10))[0, :, 0].tolist() == [255, 200]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert decode(encode(colour, "PNG", transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    grey_alpha = Image.merge("LA", [grey, Image.fromarray(np.array([[0, 255]], dtype=np.uint8))])
    palette_alpha = Image.frombytes("PA", (2, 1), bytes([0, 0, 1, 255]))
    palette_alpha.putpalette([10, 10, 10, 200, 200, 200])
    for image in (grey_alpha, grey_alpha.convert("La"), palette_alpha):
        assert decode(image)[0, :, 0].tolist() == [255, 200]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_a_jpeg_in_another_colour_space_decodes_to_the_reference_rgb(picture, mode):
    smooth = picture.resize((12, 8)).resize(picture.size)
    data = encode(smooth.convert(mode), "JPEG", quality=98, subsampling=0)
    assert np.abs(decode(data).astype(int) - np.asarray(smooth)).mean() < 2


def test_a_cmyk_jpeg_that_adobe_wrote_inverted_has_the_right_colours():
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    assert np.abs(decode(encode(ink, "JPEG", quality=98)).astype(int) - [255, 0, 0]).max() < 6
    assert np.abs(decode(encode(ink, "TIFF")).astype(int) - [255, 0, 0]).max() == 0


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_animations_and_pages_the_first_is_taken(file_format):
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 200))
    pixels = decode(encode(first, file_format, save_all=True, append_images=[second]))
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - [200, 0, 0]).max() < 5


# Orientation


def stored_as(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Where EXIF orientation says the first row and column are: the inverse of what a decoder must do."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turned[orientation])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_comes_out_upright(picture, file_format, orientation):
    smooth = np.asarray(picture.resize((12, 8)).resize(picture.size))
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"lossless": True} if file_format == "WEBP" else {"quality": 98} if file_format == "JPEG" else {}
    data = encode(Image.fromarray(stored_as(smooth, orientation)), file_format, exif=exif, **quality)
    for source in (data, Image.open(io.BytesIO(data))):
        pixels = decode(source)
        assert pixels.shape == smooth.shape
        assert np.abs(pixels.astype(int) - smooth).mean() < 2


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_metadata_does_not_make_an_image_unreadable(picture, exif):
    assert decode(encode(picture, "JPEG", exif=exif)).shape == (64, 96, 3)
    assert np.array_equal(decode(encode(picture, "PNG", exif=exif)), np.asarray(picture))


def test_an_unknown_orientation_is_ignored(picture):
    for value in (0, 9, 77):
        exif = Image.Exif()
        exif[0x0112] = value
        assert np.array_equal(decode(encode(picture, "PNG", exif=exif)), np.asarray(picture))


# Decoding at a fraction of the size


def test_a_jpeg_four_times_as_large_as_needed_is_decoded_smaller_and_keeps_twice_the_need():
    smooth = draw(24, 16).resize((600, 400), Image.Resampling.BICUBIC)
    data = encode(smooth, "JPEG", quality=95)
    full = decode(data)
    for at_least, shape in ((25, (50, 75)), (26, (100, 150)), (50, (100, 150)), (100, (200, 300)), (101, (400, 600))):
        pixels = decode(data, at_least=at_least)
        assert pixels.shape[:2] == shape
        reference = np.asarray(Image.fromarray(full).resize(shape[::-1], Image.Resampling.BOX))
        assert np.abs(pixels.astype(int) - reference).mean() < 1.5
    assert decode(encode(smooth, "PNG"), at_least=25).shape == (400, 600, 3)


def test_a_view_of_a_large_jpeg_is_nearly_that_of_its_full_decode_and_exact_is_exactly():
    data = encode(draw(40, 30).resize((1200, 900), Image.Resampling.BICUBIC), "JPEG", quality=95)
    small = Preprocessing(input_size=96)
    full = view(decode(data), small)
    quick = load_view(data, small)
    assert not torch.equal(quick, full)
    assert (quick.int() - full.int()).abs().float().mean() < 1
    assert torch.equal(load_view(data, small, exact=True), full)


def test_a_bomb_is_refused_even_when_it_could_be_decoded_smaller(picture):
    assert "megapixels" in reason(encode(picture.resize((800, 600)), "JPEG"), max_pixels=400_000, at_least=32)


# Arrays


def test_arrays_of_every_accepted_kind_become_rgb():
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    opaque = np.concatenate([rgb, np.full((2, 2, 1), 255, np.uint8)], axis=2)
    for array in (grey, grey[:, :, None], rgb, opaque, rgb / 255, (grey / 255).astype(np.float32), rgb[::-1][::-1]):
        pixels = decode(array)
        assert np.array_equal(pixels, rgb)
        assert pixels.flags.c_contiguous
    hidden = np.concatenate([rgb, np.zeros((2, 2, 1), np.uint8)], axis=2)
    assert decode(hidden).min() == 255


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.int64),
        np.full((8, 8, 3), 200.0),
        np.full((8, 8, 3), -0.1),
        np.full((8, 8, 3), np.nan),
    ],
)
def test_other_arrays_are_a_usage_error(array):
    with pytest.raises(UsageError, match="give uint8, or floats in"):
        decode(array)


# Views


TALL = (333, 701)  # Pillow 13 resizes the height first where that is cheaper, and rounds in between
SHAPES = [(500, 375), (375, 500), (400, 533), (257, 256), (100, 100), (31, 47), TALL]


@pytest.mark.parametrize(
    "config",
    [
        {"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"},
        {"interpolation": "bilinear", "crop_pct": 0.95, "crop_mode": "center"},
        {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"},
        {"interpolation": "bicubic", "crop_pct": 1.15, "crop_mode": "center"},  # timm's volo: pads with black
        {"interpolation": "nearest", "crop_pct": 0.875, "crop_mode": "center"},
        {"interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "border"},
        {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "border"},
        {"interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "squash"},
    ],
    ids=lambda config: "-".join(map(str, config.values())),
)
def test_a_view_is_what_timms_evaluation_transform_shows(config):
    from timm.data import create_transform

    config = {"input_size": (3, 224, 224), "mean": IMAGENET_MEAN, "std": IMAGENET_STD, **config}
    transform = create_transform(**config, is_training=False, normalize=False)
    preprocessing = Preprocessing.from_timm(config)
    for shape in SHAPES:
        picture = draw(*shape)
        difference = (view(decode(picture), preprocessing).int() - transform(picture).int()).abs().float()
        assert difference.mean() < (0.3 if shape == TALL else 0.01)
        assert difference.max() <= (10 if shape == TALL else 2)


def test_a_normalised_view_is_what_torchvisions_preset_gives():
    from torchvision.models import ResNet50_Weights

    preset = ResNet50_Weights.IMAGENET1K_V2.transforms()
    preprocessing = Preprocessing.from_torchvision(preset)
    assert (preprocessing.input_size, preprocessing.resize_size, preprocessing.interpolation) == (224, 232, "bilinear")
    for shape in SHAPES:
        picture = draw(*shape)
        ours = normalise(view(decode(picture), preprocessing)[None], preprocessing)[0]
        levels = (ours - preset(picture)).abs() * torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255
        assert levels.mean() < (0.3 if shape == TALL else 0.01)
        assert levels.max() < (10 if shape == TALL else 2.01)


@pytest.mark.real
def test_views_of_real_photographs_are_what_timms_transform_shows(shared):
    from timm.data import create_transform

    config = {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"}
    transform = create_transform(**config, is_training=False, normalize=False)
    preprocessing = Preprocessing.from_timm(config)
    paths = sorted((shared / "data" / "clothing" / "test").rglob("*.jpg"))[::12]
    assert len(paths) > 20
    for path in paths:
        reference = transform(Image.open(path).convert("RGB")).int()
        difference = (load_view(path, preprocessing).int() - reference).abs().float()
        assert difference.mean() < 0.02
        assert difference.max() <= 2


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 5), (20_000, 1), (1, 20_000), (9_001, 2)])
def test_images_of_any_shape_have_a_view_and_none_passes_through_a_huge_one(crop_mode, shape, monkeypatch):
    sizes: list[int] = []
    interpolate = torch.nn.functional.interpolate

    def counted(image: torch.Tensor, size: tuple[int, int], **options: object) -> torch.Tensor:
        sizes.append(size[0] * size[1])
        return interpolate(image, size, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", counted)
    pixels = np.full((*shape, 3), 90, np.uint8)
    seen = view(pixels, Preprocessing(crop_mode=crop_mode))
    assert seen.shape == (3, 224, 224)
    assert seen.dtype == torch.uint8
    assert (seen[:, 111, 111] == 90).all()
    assert sizes
    assert max(sizes) < 1_000_000


@pytest.mark.parametrize("shape", [(3000, 20), (20, 3000), (4001, 20), (20, 401)])
def test_cutting_the_far_ends_off_does_not_move_the_centre_crop(shape):
    picture = draw(*shape[::-1])
    whole = picture.resize((int(256 * max(1, shape[1] / shape[0])), int(256 * max(1, shape[0] / shape[1]))), 3)
    left, top = (whole.width - 224) // 2, (whole.height - 224) // 2
    reference = np.asarray(whole.crop((left, top, left + 224, top + 224))).astype(int)
    seen = view(decode(picture), Preprocessing()).permute(1, 2, 0).numpy()
    assert np.abs(seen - reference).mean() < 0.5


def test_a_view_shares_no_memory_with_its_pixels_and_takes_read_only_and_strided_ones():
    pixels = np.asarray(draw(224, 224))
    assert not pixels.flags.writeable
    whole = Preprocessing(crop_share=1.0)
    seen = view(pixels, whole)
    assert torch.equal(seen, torch.tensor(pixels).permute(2, 0, 1))
    assert torch.equal(view(pixels[::-1], whole), seen.flip(1))
    own = pixels.copy()
    seen = view(own, whole)
    own[:] = 0
    assert seen.float().mean() > 50
    assert seen.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_a_view_of_anything_but_decoded_pixels_is_a_usage_error(pixels):
    with pytest.raises(UsageError, match="uint8 pixels"):
        view(pixels, HALF)


def test_threads_get_the_same_views_as_one_after_another(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(8)]
    for i, path in enumerate(paths):
        draw(200 + 10 * i, 180).save(path)
    expected = [load_view(path, HALF) for path in paths]
    found: dict[int, torch.Tensor] = {}

    def work(first: int) -> None:
        for i in range(first, 8, 4):
            found[i] = load_view(paths[i], HALF)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(8))


def test_views_stack_into_a_channels_last_batch_and_normalise_to_the_formula():
    views = [view(np.asarray(draw(240 + i, 240)), Preprocessing()) for i in range(3)]
    batch = stack(views)
    assert torch.equal(batch, torch.stack(views))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (batch / 255 - mean) / std
    ours = normalise(batch, Preprocessing())
    assert ours.dtype == torch.float32
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(ours, expected, atol=1e-6)
    half = normalise(batch, Preprocessing(), torch.bfloat16, torch.contiguous_format)
    assert half.is_contiguous()
    assert torch.equal(half, ours.to(torch.bfloat16))


# Preprocessing


def test_preprocessing_survives_a_file_and_its_fingerprint_follows_every_setting():
    import json

    changes = [
        {"input_size": 192},
        {"crop_share": 0.9},
        {"interpolation": "bilinear"},
        {"mean": (0.4, 0.5, 0.5)},
        {"std": (0.4, 0.5, 0.5)},
        {"crop_mode": "squash"},
    ]
    variants = [Preprocessing(), *(Preprocessing(**change) for change in changes)]
    for variant in variants:
        assert Preprocessing.from_dict(json.loads(json.dumps(variant.to_dict()))) == variant
    assert len({variant.fingerprint() for variant in variants}) == len(variants)
    assert Preprocessing().fingerprint() == Preprocessing().fingerprint()


def test_timms_settings_are_taken_with_timms_defaults():
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    for name in ("tf_efficientnet_lite0", "resnet50.a1_in1k", "vit_base_patch16_224", "beit_base_patch16_224"):
        pretrained = get_pretrained_cfg(name).to_dict()
        resolved = resolve_data_config(pretrained_cfg=pretrained)
        preprocessing = Preprocessing.from_timm(pretrained)
        assert preprocessing == Preprocessing.from_timm(resolved)
        assert preprocessing.input_size == resolved["input_size"][1]
        assert preprocessing.resize_size == int(resolved["input_size"][1] / resolved["crop_pct"])
        assert preprocessing.mean == tuple(resolved["mean"])
        assert preprocessing.interpolation == resolved["interpolation"]


@pytest.mark.parametrize("sizes", [(224, 232), (299, 342), (384, 384), (240, 255), (600, 600), (518, 518)])
def test_torchvisions_resize_size_comes_back_exactly(sizes):
    from torchvision.transforms._presets import ImageClassification

    preprocessing = Preprocessing.from_torchvision(ImageClassification(crop_size=sizes[0], resize_size=sizes[1]))
    assert (preprocessing.input_size, preprocessing.resize_size) == sizes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"interpolation": "bicubik"}, "Unknown interpolation 'bicubik' .* Did you mean 'bicubic'"),
        ({"crop_mode": "centre"}, "Did you mean 'center'"),
        ({"crop_pct": 0.9}, "Unknown preprocessing key 'crop_pct'"),
        ({"input_size": 0}, "input_size 0"),
        ({"crop_share": 0}, "crop_share 0"),
        ({"std": (1, 1, 0)}, "positive std"),
        ({"mean": (0.5,)}, "mean and a positive std"),
    ],
)
def test_wrong_preprocessing_names_the_setting(values, message):
    with pytest.raises(UsageError, match=message):
        Preprocessing.from_dict(values)


def test_a_backbone_without_square_rgb_input_is_a_usage_error():
    with pytest.raises(UsageError, match="3×1024×768"):
        Preprocessing.from_timm({"input_size": (3, 1024, 768)})


def test_importing_images_imports_neither_torch_nor_pillow():
    code = "import sys, transfer.images; print(sorted({'torch', 'PIL', 'torchvision', 'timm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_decoding_leaves_warning_filters_that_scikit_learn_can_read(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from PIL import Image; from transfer.images import decode\n"
        f"Image.new('RGB', (8, 8)).save({str(tmp_path / 'a.png')!r}); decode({str(tmp_path / 'a.png')!r})\n"
        "from sklearn.model_selection import cross_val_score; from sklearn.linear_model import RidgeClassifier\n"
        "print(cross_val_score(RidgeClassifier(), np.eye(8), [0, 1] * 4, cv=2, n_jobs=2).shape)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "(2,)", shown.stderr
