"""Foreign file: one that is no image of ours, told by its first bytes.

Scanning a dataset shares the signatures (`dataset.sniffing`) and judges the rest by rules of its own: it asks whether a
file claims to be an image, before anything is decoded; here the question is why one could not be.
"""

from __future__ import annotations

import codecs
import os
import re

from transfer.images.formats import HEIC_ADVICE, has_heic, is_avif, is_heic, openers

#: First bytes of formats that are recognised and not decoded.
SIGNATURES = {
    "PDF": (b"%PDF",),
    "EPS": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "PSD": (b"8BPS",),
    "JPEG 2000": (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\x00\x00\x00\x0cJXL ", b"\xff\x0a"),
    "ICO": (b"\x00\x00\x01\x00",),
}
# Most camera formats are TIFF inside; Pillow would silently read their thumbnail.
_RAW_EXTENSIONS = (".arw", ".cr2", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raw", ".rw2", ".srw")
_TIFF = (b"II*\0", b"MM\0*")
_ARCHIVES = {"ZIP": (b"PK\x03\x04",), "gzip": (b"\x1f\x8b",)}


def describe_foreign(head: bytes) -> str | None:
    """Say what a file that is no image of ours starts like, or None when nothing is recognised."""
    for name, starts in (SIGNATURES | _ARCHIVES).items():
        if head.startswith(starts):
            return f"unsupported format ({name})"
    if head[4:8] == b"ftyp":
        return _describe_container(head)
    if head[128:132] == b"DICM":
        return "unsupported format (DICOM)"
    if not any(head):
        return "only zero bytes"
    return _describe_text(head)


def is_raw(path: str | os.PathLike[str], head: bytes) -> bool:
    """Say whether a file that starts like a TIFF is the raw data of a camera."""
    if not head.startswith(_TIFF):
        return False
    return head[8:10] == b"CR" or os.fspath(path).lower().endswith(_RAW_EXTENSIONS)


def _describe_container(head: bytes) -> str | None:
    if is_avif(head):
        return None if "AVIF" in openers() else "unsupported format (AVIF: needs Pillow 11.3)"
    if is_heic(head):
        return None if has_heic() else f"HEIC: {HEIC_ADVICE}"
    return "unsupported format (MP4)"


def _describe_text(head: bytes) -> str | None:
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
