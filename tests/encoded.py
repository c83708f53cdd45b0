"""Pictures drawn and encoded in memory, for tests of what decodes and of what a folder may hold."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw


def draw(width: int = 96, height: int = 64) -> Image.Image:
    """A picture without symmetry: a gradient, a box in one corner, a disc, a little noise."""
    columns, rows = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    noise = np.random.default_rng(0).integers(0, 20, (height, width, 3))
    image = Image.fromarray((np.stack([columns, rows, (columns + rows) / 2], axis=2) + noise).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.rectangle((2, 2, width // 4, height // 4), fill=(250, 20, 20))
    pen.ellipse((width // 2, height // 2, width * 3 // 4, height * 3 // 4), fill=(20, 240, 30))
    return image


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, file_format, **options)
    return target.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(side: int) -> bytes:
    """A complete, valid, all-black grey PNG of side×side pixels, without ever holding its pixels."""
    packer = zlib.compressobj(1)
    # One bit per pixel, so that the test stays fast.
    row = bytes(1 + (side + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


#: A HEIC as phones write it: stored as 64x48 and to be turned by a quarter, so 48x64, of four plain colours, clockwise
#: from the top left: blue, red, green, white. Kept as it is, since a decoder alone cannot make one.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAAB7AABAAAAAAAAAHEAAgAAAAACXQABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNg"
    "AAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZE"
    "AcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AA"
    "AAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAA"
    "AJ1tZGF0AAAAbSgBrxOA5TH3/7f5P9+jP8kyZk6gxC/7oD7qxL+h9LEG46eJ85Q/w1D/J6Igo0Jnn/5+7dXMFx2JPUQUPY0wDf9JIOzctcRE"
    "6s0rOdut7yldKekwG8MFH26hgB8U/Pyw/Glf7HR+nY4HAy4bD24AAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA="
)
