"""Checksums of the pixels in a PNG, which Pillow does not always compare.

Its decoder stops when it has enough pixels, before the checksum that the compressed stream ends with. So of a file that
ends in zeros, as an interrupted download leaves it, 16-bit grey came out with a black lower part and no error. libpng
refuses such files.
"""

from __future__ import annotations

import zlib

_SIGNATURE_BYTES = 8
_NOT_CONTENT_BYTES = 12  # of a chunk: length, name, checksum


def require_png_checksums(data: bytes | bytearray | memoryview) -> None:
    """Compare the checksums of the chunks that hold pixels, as far as the file goes.

    Raises
    ------
    SyntaxError
        One is wrong. It is what Pillow raises for other chunks.
    """
    view = memoryview(data)
    at = _SIGNATURE_BYTES
    while (end := at + _NOT_CONTENT_BYTES + int.from_bytes(view[at : at + 4], "big")) <= len(view):
        if view[at + 4 : at + 8] == b"IDAT" and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(
            view[end - 4 : end], "big"
        ):
            raise SyntaxError("wrong checksum")
        if view[at + 4 : at + 8] == b"IEND":  # what follows is no part of the picture
            return
        at = end
