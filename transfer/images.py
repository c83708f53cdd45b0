"""Images: a file becomes pixels, pixels become a view.

Pillow decodes (torchvision's own decoders crash the process on a damaged PNG), torch resizes. An image is
either decoded completely or refused as an `UnreadableImage`; nothing is guessed and nothing is replaced.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import hashlib
import importlib
import io
import json
import math
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from transfer.errors import DataError, ResourceError, UsageError, did_you_mean

if TYPE_CHECKING:
    import PIL.Image
    import torch

#: Pixels of the largest image that is decoded. It is the size that Pillow itself refuses (twice its
#: `MAX_IMAGE_PIXELS`), so every image that other tools open is opened here too; decoding one takes up to 2 GB.
MAX_PIXELS = 178_956_970

#: Formats that are tried, by Pillow's names. MPO (two pictures in one, from phones and 3-D cameras) comes as JPEG.
#: A fixed list, because Pillow would hand an EPS file to Ghostscript whatever the file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
CROP_MODES = ("center", "squash", "border")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Part of every fingerprint: raise it when `decode` or `view` gives different pixels, and old caches are left alone.
_VIEW_VERSION = 1

_PLUGINS = {name: f"PIL.{name.title()}ImagePlugin" for name in FORMATS} | {"WEBP": "PIL.WebPImagePlugin"}

# Longer shapes than 8:1 lose their ends before they are resized: enough for every centre crop, and a
# 20000×1 image would otherwise pass through 4 GB on its way to a square.
_LONGEST_ASPECT = 8

# A JPEG decoded at a fraction of its size keeps at least this many times the size that is needed. Measured on 60
# photographs with EfficientNet-Lite0, cosine of the features to those of a full decode: 0.988 on average (0.90 at
# worst) with 1 to 1.5, 0.997 with 2 and more. A 12-megapixel JPEG takes 56 ms with 2, 45 ms with 1, 103 ms in full.
_DRAFT_MARGIN = 2

# From the EXIF standard: orientation value to the name of the PIL.Image.Transpose that sets it upright.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}

_UNSUPPORTED = {
    b"%PDF": "PDF",
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"8BPS": "PSD",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x01\x00": "ICO",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


class UnreadableImage(DataError):  # noqa: N818 (the glossary's word)
    """An image that cannot be decoded completely.

    A list of these keeps the pixels alive that their tracebacks refer to: keep `path` and `reason` instead.

    Attributes
    ----------
    path : Path or None
        The file, or None for an image that came as bytes or as a PIL image.
    reason : str
        A few words: `truncated JPEG`, `empty file`, `not an image (HTML)`.
    """

    def __init__(self, path: str | os.PathLike[str] | None, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it can be pickled and cross to another process
        self.path = None if path is None else Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"Unreadable image {_printable(self.path)}: {self.reason}. Replace it or leave it out."


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the input of a backbone. It belongs to the weights: other values cost accuracy.

    Examples
    --------
    >>> preprocessing = Preprocessing(input_size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> preprocessing.resize_size
    256
    >>> preprocessing.describe()
    '224 px: bicubic to 256, centre crop, mean 0.5 0.5 0.5, std 0.5 0.5 0.5'
    """

    input_size: int = 224  # height and width of the view
    crop_share: float = 0.875  # input_size as a share of what the image is resized to; timm's crop_pct
    interpolation: str = "bicubic"  # one of INTERPOLATIONS
    mean: tuple[float, ...] = IMAGENET_MEAN  # red, green, blue, for pixels in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD
    crop_mode: str = "center"  # shorter side to resize_size ("center"), both sides ("squash"), longer side ("border")

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        for name, value, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("crop_mode", self.crop_mode, CROP_MODES),
        ):
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise UsageError(f"Unknown {name} {value!r} in the preprocessing.{hint} Known: {', '.join(known)}.")
        if not isinstance(self.input_size, int) or self.input_size < 1:
            raise UsageError(f"Preprocessing has input_size {self.input_size!r}: give a whole number of pixels.")
        if not 0 < self.crop_share < math.inf:
            raise UsageError(f"Preprocessing has crop_share {self.crop_share!r}: give a share such as 0.875.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UsageError("Preprocessing needs a mean and a positive std for red, green and blue.")

    @property
    def resize_size(self) -> int:
        """Pixels that the shorter side (see `crop_mode`) has before the crop."""
        # Floored as in timm; the tiny addition makes input_size / (input_size / n) come back as n.
        return math.floor(self.input_size / self.crop_share + 1e-6)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Return what timm's `pretrained_cfg` or `resolve_data_config` describes, with timm's defaults.

        Raises
        ------
        UsageError
            The network does not take square RGB images, or its interpolation is not offered here.
        """
        n_channels, height, width = config.get("input_size") or (3, 224, 224)
        if height != width or n_channels != 3:
            raise UsageError(
                f"The backbone takes {n_channels}×{height}×{width} input: choose one for square RGB images."
            )
        return cls(
            input_size=int(height),
            crop_share=float(config.get("crop_pct") or 0.875),
            interpolation=config.get("interpolation") or "bicubic",
            mean=tuple(config.get("mean") or IMAGENET_MEAN),
            std=tuple(config.get("std") or IMAGENET_STD),
            crop_mode=config.get("crop_mode") or "center",
        )

    @classmethod
    def from_torchvision(cls, preset: Any) -> Preprocessing:
        """Return what an `ImageClassification` preset of torchvision describes: `weights.transforms()`."""
        (input_size,), (resize_size,) = preset.crop_size, preset.resize_size
        return cls(
            input_size=input_size,
            crop_share=input_size / resize_size,
            interpolation=preset.interpolation.value,
            mean=tuple(preset.mean),
            std=tuple(preset.std),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing that `to_dict` wrote.

        Raises
        ------
        UsageError
            A key or a value is unknown.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"Unknown preprocessing key {key!r}.{did_you_mean(key, known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or YAML."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def describe(self) -> str:
        """Return one line for people."""
        shape = {"center": "centre crop", "squash": "squashed, centre crop", "border": "with border"}[self.crop_mode]
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{self.input_size} px: {self.interpolation} to {self.resize_size}, {shape}, mean {mean}, std {std}"

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that differ when the views or their normalisation differ."""
        text = json.dumps([_VIEW_VERSION, self.to_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def decode(
    source: str | os.PathLike[str] | bytes | PIL.Image.Image | np.ndarray,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
) -> np.ndarray:
    """Return the pixels of an image: complete, upright, RGB.

    * EXIF orientation is applied. ICC profiles are not: numbers are taken as sRGB.
    * Transparency is composited on white.
    * 16-bit grey is scaled by 1/257, the same for every image. Floating-point images and integers beyond
      16 bits carry no scale: each is stretched from its own minimum to its own maximum.
    * Of animations and files with several pages, the first.

    Parameters
    ----------
    source
        A path, the bytes of a file, a PIL image, or an array: uint8, or floating point in [0, 1], of shape
        (height, width) or (height, width, 1, 3 or 4).
    max_pixels
        Larger images are refused from their header alone, before any pixel is decoded.
    at_least
        Pixels that the shorter side is needed with. JPEGs at least four times as large are decoded at 1/2, 1/4 or
        1/8 of their size, keeping at least twice what is needed. None decodes in full.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (height, width, 3), C-contiguous.

    Raises
    ------
    UnreadableImage
        The image is missing, damaged, too large, or of a format that is not in `FORMATS`.
    UsageError
        `source` is an array of another shape or type, or no kind of image at all.
    """
    if isinstance(source, np.ndarray):
        return _pixels_of_array(source)
    from PIL import Image

    if isinstance(source, Image.Image):
        return _decode_image(source, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode_stream(io.BytesIO(source), None, max_pixels, at_least)
    if isinstance(source, (str, os.PathLike)):
        with _open_regular(source) as stream:
            return _decode_stream(stream, source, max_pixels, at_least)
    raise UsageError(f"Cannot decode {type(source).__name__}: give a path, bytes, a PIL image or a NumPy array.")


def view(pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """Return the part of an image that a backbone sees, at its size: the standard evaluation transform.

    The same as timm's and torchvision's up to rounding: torch resizes uint8 with antialiasing as Pillow does, in a
    fraction of the time: 0.004 grey levels apart on average, 2 at most (0.25 and 9 where Pillow 13 resizes height
    before width, as it does with some tall images). Images longer than 8:1 lose their far ends first, which no
    centre crop shows.

    Parameters
    ----------
    pixels
        uint8 of shape (height, width, 3), as `decode` returns it. Any size from 1×1.

    Returns
    -------
    torch.Tensor
        uint8 of shape (3, input_size, input_size), in channels-last memory; shares nothing with `pixels`.
    """
    import torch

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise UsageError(f"A view needs uint8 pixels (height, width, 3), not {pixels.dtype} {pixels.shape}: `decode`.")
    if preprocessing.crop_mode == "center":
        pixels = _without_far_ends(pixels)
    # The batch dimension comes first and the channels move last, or torch takes the strides for NCHW and repacks.
    image = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    height, width, _ = pixels.shape
    resized = _resize(image, _resized_shape(height, width, preprocessing), preprocessing.interpolation)
    return _centre(resized[0].permute(1, 2, 0), preprocessing).permute(2, 0, 1)


def load_view(
    path: str | os.PathLike[str] | bytes,
    preprocessing: Preprocessing,
    *,
    max_pixels: int = MAX_PIXELS,
    exact: bool = False,
) -> torch.Tensor:
    """Return the view of an image file: `decode`, then `view`. Several threads may call it at once.

    JPEGs at least four times as large as needed are decoded at a fraction of their size, which moves their pixels
    by one or two grey levels on average; `exact` decodes them in full.

    Raises
    ------
    UnreadableImage
        As `decode` does.
    """
    at_least = None if exact else preprocessing.resize_size
    return view(decode(path, max_pixels=max_pixels, at_least=at_least), preprocessing)


def stack(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return views as one batch (N, 3, size, size) in channels-last memory; `torch.stack` would repack each."""
    import torch

    return torch.stack([one.permute(1, 2, 0) for one in views]).permute(0, 3, 1, 2)


def normalise(
    batch: torch.Tensor,
    preprocessing: Preprocessing,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """Return (batch / 255 - mean) / std, computed in float32 and then cast.

    Parameters
    ----------
    batch
        uint8 views of shape (N, 3, size, size), on any device.
    dtype
        float32 when None.
    memory_format
        That of `batch` when None.
    """
    import torch

    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=batch.device).view(3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    # One pass over the memory instead of three.
    scaled = torch.addcmul(-mean / std, batch.float(), 1 / (255 * std))
    return scaled.to(dtype=dtype or torch.float32, memory_format=memory_format or torch.preserve_format)


class _PillowGuard:
    """While inside: Pillow refuses truncated files, and does not warn about what `decode` handles.

    Both are process-wide switches. `ImageFile.LOAD_TRUNCATED_IMAGES` (which other libraries turn on) fills the
    missing part with grey; it is off while any thread is inside and as before when the last one leaves.
    `warnings.catch_warnings` is not safe with threads, so one filter for Pillow's own modules is put in and stays.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._filter = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
        self._n_inside = 0
        self._allowed_truncated = False
        if hasattr(os, "register_at_fork"):  # a forked child must not inherit a lock that nobody will release
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
            )

    def __enter__(self) -> None:
        from PIL import ImageFile

        with self._lock:
            self._allowed_truncated = ImageFile.LOAD_TRUNCATED_IMAGES or (
                self._n_inside > 0 and self._allowed_truncated
            )
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._n_inside += 1
            filters: list[Any] = warnings.filters  # type: ignore[assignment]
            if not filters or filters[0] is not self._filter:
                filters[:] = [self._filter, *(other for other in filters if other is not self._filter)]

    def __exit__(self, *_: object) -> None:
        from PIL import ImageFile

        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._allowed_truncated


_guard = _PillowGuard()


def _decode_stream(
    stream: BinaryIO, path: str | os.PathLike[str] | None, max_pixels: int, at_least: int | None
) -> np.ndarray:
    format_name, head = "image", b""
    try:
        with _guard:
            head = stream.read(512)
            format_name, factory = _identify(head, path)
            stream.seek(0)
            # The plugin itself, because `Image.open` compares with a process-wide limit, `Image.MAX_IMAGE_PIXELS`.
            # No file name: Pillow would map the file, and a file that shrinks under a map kills the process.
            image = factory(stream, "")
            _require_pixels(image.size, path, max_pixels)
            if at_least:
                image.draft(None, (_DRAFT_MARGIN * at_least, _DRAFT_MARGIN * at_least))
            image.load()
            return _rgb_pixels(_upright(image))
    except _pillow_errors() as error:
        raise UnreadableImage(path, _foreign(head) or _damage(format_name, error)) from error


def _decode_image(image: PIL.Image.Image, max_pixels: int) -> np.ndarray:
    _require_pixels(image.size, None, max_pixels)
    try:
        with _guard:
            image.load()
            return _rgb_pixels(_upright(image))
    except _pillow_errors() as error:
        raise UnreadableImage(None, _damage(image.format or "image", error)) from error


def _open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (half the time of Path.stat); a FIFO would block
            raise UnreadableImage(path, "not a regular file")
        return open(path, "rb")
    except FileNotFoundError as error:
        raise UnreadableImage(path, "no such file") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing about the image
            raise ResourceError("Too many open files: close some, or raise the limit with `ulimit -n`.") from error
        raise UnreadableImage(path, (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise UnreadableImage(path, "not a file name") from error


@functools.cache
def _openers() -> dict[str, tuple[Callable[..., Any], Callable[[bytes], bool | str] | None]]:
    from PIL import Image

    for plugin in _PLUGINS.values():
        with contextlib.suppress(ImportError):  # AVIF came with Pillow 11.3
            importlib.import_module(plugin)
    return {name: Image.OPEN[name] for name in FORMATS if name in Image.OPEN}


def _identify(head: bytes, path: str | os.PathLike[str] | None) -> tuple[str, Callable[..., Any]]:
    if not head:
        raise UnreadableImage(path, "empty file")
    for name, (factory, accepts) in _openers().items():
        if accepts is None or accepts(head[:16]) is True:  # a text says that this Pillow lacks the codec
            return name, factory
    raise UnreadableImage(path, _foreign(head) or "not an image")


def _require_pixels(size: tuple[int, int], path: str | os.PathLike[str] | None, max_pixels: int) -> None:
    n_pixels = size[0] * size[1]
    if n_pixels > max_pixels:
        reason = f"{n_pixels / 1e6:.6g} megapixels, limit {max_pixels / 1e6:.6g} (--max-pixels)"
        raise UnreadableImage(path, reason)


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.format == "TIFF":  # turned by Pillow while loading
        return image
    try:
        orientation = image.getexif().get(0x0112, 1)
        name = _UPRIGHT.get(orientation)
    except _pillow_errors():  # damaged metadata; the pixels are whole
        return image
    if name is None:
        return image
    from PIL import Image

    return image.transpose(Image.Transpose[name])


def _rgb_pixels(image: PIL.Image.Image) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _grey_8_bit(np.asarray(image), is_16_bit=image.format in ("PNG", "PPM"))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    from PIL import Image

    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(layer, mask=layer)
    return white


def _grey_8_bit(values: np.ndarray, *, is_16_bit: bool) -> np.ndarray:
    """Scale grey of more than 8 bits; `is_16_bit`: the format says so, whatever the largest value is."""
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("NaN or infinite pixels")
    if values.dtype.itemsize == 2 or (values.dtype.kind != "f" and low >= 0 and (is_16_bit or 255 < high <= 65535)):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind != "f" and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    return np.rint((values.astype(np.float64) - low) * (255 / ((high - low) or 1))).astype(np.uint8)


def _pixels_of_array(array: np.ndarray) -> np.ndarray:
    from PIL import Image

    accepted = "give uint8, or floats in [0, 1], of shape (height, width), (…, 1), (…, 3) or (…, 4)."
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise UsageError(f"An array of shape {array.shape} is no image: {accepted}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also catches NaN
            raise UsageError(f"A floating-point image has values outside [0, 1]: {accepted}")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise UsageError(f"An image of type {array.dtype} has no known scale: {accepted}")
    if array.shape[2] == 4:
        return np.array(_on_white(Image.fromarray(np.ascontiguousarray(array))))
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else np.ascontiguousarray(array)


def _without_far_ends(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    longest = _LONGEST_ASPECT * min(height, width)
    for axis, length in enumerate((height, width)):
        if length > longest:
            kept = longest + (length - longest) % 2  # an even number goes, so the centre stays where it was
            start = (length - kept) // 2
            pixels = pixels[start : start + kept] if axis == 0 else pixels[:, start : start + kept]
    return pixels


def _resized_shape(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    size = preprocessing.resize_size
    if preprocessing.crop_mode == "squash":
        return size, size
    if preprocessing.crop_mode == "border":  # timm.data.transforms.ResizeKeepRatio(longest=1.0)
        ratio = max(height, width) / size
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    if height <= width:  # torchvision truncates the longer side
        return size, int(size * width / height)
    return int(size * height / width), size


def _resize(image: torch.Tensor, shape: tuple[int, int], interpolation: str) -> torch.Tensor:
    from torch.nn.functional import interpolate

    if tuple(image.shape[-2:]) == shape:
        return image
    if interpolation == "nearest":
        return interpolate(image, shape, mode="nearest-exact")  # Pillow's nearest; torch's "nearest" is off by half
    return interpolate(image, shape, mode=interpolation, antialias=True, align_corners=False)


def _centre(image: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Crop (height, width, 3) to the input size around its centre, or pad it: black, or the mean as a border."""
    import torch

    size = preprocessing.input_size
    height, width = image.shape[:2]
    if height < size or width < size:
        fill = [round(255 * value) for value in preprocessing.mean] if preprocessing.crop_mode == "border" else [0] * 3
        canvas = torch.tensor(fill, dtype=torch.uint8).expand(max(height, size), max(width, size), 3).clone()
        top, left = max(0, size - height) // 2, max(0, size - width) // 2
        canvas[top : top + height, left : left + width] = image
        image, (height, width) = canvas, canvas.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size].clone(memory_format=torch.contiguous_format)


@functools.cache
def _pillow_errors() -> tuple[type[BaseException], ...]:
    """What Pillow was seen to raise on damaged files; the list is long because its parsers trust their input."""
    from PIL import Image

    return (
        OSError,  # the usual one; UnidentifiedImageError is one too
        SyntaxError,  # "not a … file", broken PNG chunks, unknown TIFF layouts
        ValueError,  # sizes and text chunks beyond a limit, failed codecs
        EOFError,
        struct.error,  # headers cut short
        zlib.error,  # compressed PNG metadata
        LookupError,  # IndexError past the data; KeyError for an unknown mode or tag
        TypeError,
        AttributeError,
        AssertionError,
        ArithmeticError,  # OverflowError and ZeroDivisionError from absurd sizes and resolutions
        RuntimeError,  # codecs that fail to start; recursion in nested metadata
        MemoryError,
        ImportError,  # a codec that this build of Pillow lacks
        Image.DecompressionBombError,  # checks of single plugins: GIF frames, WebP and TIFF tiles
        Warning,  # where an application has turned warnings into errors
    )


def _damage(format_name: str, error: BaseException) -> str:
    from PIL import Image

    message = " ".join(_printable(error).split())
    if "truncated" in message.lower() or isinstance(error, EOFError):
        return f"truncated {format_name}"
    if isinstance(error, MemoryError):
        return f"not enough memory for this {format_name}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than Pillow allows in a {format_name}"
    return f"damaged {format_name} ({message[:80] or type(error).__name__})"


def _foreign(head: bytes) -> str | None:
    """Say what a file that is no image of ours starts like, or None when nothing is recognised."""
    for signature, name in _UNSUPPORTED.items():
        if head.startswith(signature):
            return f"unsupported format ({name})"
    if head[4:8] == b"ftyp":
        return _foreign_container(head[8:64])
    if head[128:132] == b"DICM":
        return "unsupported format (DICOM)"
    if not any(head):
        return "only zero bytes"
    return _foreign_text(head)


def _foreign_container(brands: bytes) -> str | None:
    if b"avif" in brands or b"avis" in brands:
        return None if "AVIF" in _openers() else "unsupported format (AVIF: needs Pillow 11.3)"
    return f"unsupported format ({'HEIC' if brands[:4] in _HEIC_BRANDS else 'MP4'})"


def _foreign_text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).lower()  # its last character may be cut in two
    except UnicodeDecodeError:
        return None
    is_text = text and all(c.isprintable() or c.isspace() for c in text)
    if not is_text or re.match(r"p[1-6]\s", text):  # the text forms of PPM
        return None
    if "<html" in text or "<!doctype html" in text:
        return "not an image (HTML)"
    if "<svg" in text:
        return "unsupported format (SVG)"
    if text.startswith("version https://git-lfs"):
        return "a Git LFS pointer: `git lfs pull` fetches the image"
    return "not an image (text)"


def _printable(thing: object) -> str:
    """Return text without line breaks, control characters or bytes that are not UTF-8."""
    text = "from memory" if thing is None else str(thing)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
