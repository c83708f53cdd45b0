"""Format: of an image file, as its first bytes announce it."""

from __future__ import annotations

import re

from transfer.dataset.names import extension
from transfer.images.foreign import SIGNATURES, is_raw
from transfer.images.formats import has_heic, is_avif, is_heic

EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "HEIC": (".heic", ".heif", ".hif"),
}
IMAGE_EXTENSIONS = frozenset(ending for group in EXTENSIONS.values() for ending in group)
_TEXT_EXTENSIONS = frozenset(
    (".csv", ".html", ".json", ".jsonl", ".log", ".md", ".py", ".txt", ".xml", ".yaml", ".yml")
)
_SUPPORTED = frozenset(("JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP", "AVIF", "PPM"))
_MAGIC = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "RAW": (b"FUJIFILMCCD-RAW",),
} | SIGNATURES  # formats that `images` knows and does not decode
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_PPM_START = re.compile(rb"P[1-6](\s|#[^\n]*\n)+\d+(\s|#[^\n]*\n)+\d*")
N_HEAD_BYTES = 1024


def sniff(head: bytes) -> str | None:
    """Return the format that the first kilobyte of a file announces, or None.

    >>> sniff(bytes([255, 216, 255, 224])), sniff(b"<svg xmlns='http://www.w3.org/2000/svg'>"), sniff(b"hello")
    ('JPEG', 'SVG', None)
    """
    for name, starts in _MAGIC.items():
        if head.startswith(starts):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _sniff_iso_media(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[128:132] == b"DICM":
        return "DICOM"
    if _PPM_START.match(head):
        return "PPM"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start):
        return "SVG"
    return None


def sniff_file(path: str, head: bytes) -> str | None:
    """Return the format of a file with this name and these first bytes, or None."""
    return "RAW" if is_raw(path, head) else sniff(head)


def _sniff_iso_media(head: bytes) -> str:
    if is_avif(head):
        return "AVIF"
    if is_heic(head):
        return "HEIC"
    return "RAW" if head[8:11] == b"crx" else "video"


def is_supported(found: str | None) -> bool:
    """Say whether files of a format that was sniffed are decoded."""
    return found in _SUPPORTED or (found == "HEIC" and has_heic())


def looks_like_image(path: str) -> bool:
    """Judge by the extension where it is a usual one, by the first bytes otherwise."""
    ending = extension(path)
    if ending in IMAGE_EXTENSIONS or ending in _TEXT_EXTENSIONS:
        return ending in IMAGE_EXTENSIONS
    try:
        with open(path, "rb") as source:
            return is_supported(sniff_file(path, source.read(N_HEAD_BYTES)))
    except OSError:
        return False
