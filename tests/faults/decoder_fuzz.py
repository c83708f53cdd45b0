"""Decoder fuzz: what becomes of damaged images, counted. `python tests/faults/decoder_fuzz.py [FILES [SEED]]`

It runs in a process of its own, since a decoder that fails badly takes its process with it. It prints a line before
each file that it has not survived yet, and a JSON object at the end.
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transfer.errors import DataError
from transfer.images import UnreadableImage, decode

Damage = Callable[[bytes, bytes, random.Random], bytes]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MORE_BYTES = 3_000_000_000  # of address space, for one decoder: MAX_PIXELS take up to 2 GB
CPU_SECONDS = 30.0  # for one file; SIGVTALRM ends the process


def wholes(file_format: str) -> list[bytes]:
    """Return some sound files of one format, as different from each other as the format allows."""
    y, x = np.mgrid[0:96, 0:128]
    noise = np.random.default_rng(0).integers(0, 40, (96, 128, 3))
    picture = Image.fromarray((np.stack([x + 60, 2 * y, x + y], axis=2) % 216 + noise).astype(np.uint8))
    grey, palette = picture.convert("L"), picture.quantize(64)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [picture.rotate(90)]}
    kinds: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "JPEG": [(picture, {"exif": exif}), (picture, {"progressive": True}), (picture.convert("CMYK"), {})],
        "PNG": [(picture, {}), (palette, {"transparency": 3}), (grey.convert("I;16"), {})],
        "WEBP": [(picture, {}), (picture, {"lossless": True}), (picture, frames)],
        "GIF": [(palette, {}), (picture, frames), (grey, {"interlace": True})],
        "BMP": [(picture, {}), (palette, {}), (grey.convert("1"), {})],
        "TIFF": [(picture, {}), (picture, {"compression": "tiff_lzw"}), (grey.convert("F"), {"exif": exif})],
    }
    files = []
    for image, options in kinds[file_format]:
        data = io.BytesIO()
        image.save(data, file_format, **options)
        files.append(data.getvalue())
    return files


def flip(whole: bytes, other: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(whole)
    damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def truncate(whole: bytes, other: bytes, dice: random.Random) -> bytes:
    return whole[: dice.randrange(len(whole))]


def zero(whole: bytes, other: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(whole))
    n = min(dice.choice([1, 16, 512, 4096]), len(whole) - at)
    return whole[:at] + bytes(n) + whole[at + n :]


def splice(whole: bytes, other: bytes, dice: random.Random) -> bytes:
    return whole[: dice.randrange(len(whole))] + other[dice.randrange(len(other)) :]


DAMAGES: dict[str, Damage] = {"flip": flip, "truncate": truncate, "zero": zero, "splice": splice}


def outcome(damaged: bytes, pixels: np.ndarray) -> str:
    """Decode a damaged file and say what came out, beside what the whole one has."""
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        found = decode(damaged)
    except UnreadableImage as error:
        return "refused" if error.reason and str(error).isprintable() else "refused without a reason"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
        return f"pixels of {found.dtype} and shape {found.shape}"
    return "same pixels" if np.array_equal(found, pixels) else "other pixels"


def is_noticed(path: Path, damaged: bytes, whole: bytes) -> bool:
    """Say whether a file that was damaged after it was scanned is refused, whatever it decodes to."""
    path.write_bytes(damaged)
    try:
        decode(path, content=hashlib.sha256(whole).hexdigest())
    except DataError:
        return True
    return False


def fuzz(n_files: int, seed: int) -> dict[str, Any]:
    """Damage `n_files` files, as many of each format and damage, and count what became of them."""
    dice = random.Random(seed)
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    files = {name: [(whole, decode(whole)) for whole in wholes(name)] for name in FORMATS}
    cells = [(name, damage) for name in FORMATS for damage in DAMAGES]
    n_damaged, unnoticed = 0, []
    with tempfile.TemporaryDirectory() as folder:
        while n_damaged < n_files:
            name, damage = cells[n_damaged % len(cells)]
            (whole, pixels), (other, _) = dice.choice(files[name]), dice.choice(files[name])
            damaged = DAMAGES[damage](whole, other, dice)
            if damaged == whole:  # zeros that were there already, or a splice that fits
                continue
            print(f"file {n_damaged}, {name}, {damage}", flush=True)
            table[f"{name} {damage}"][outcome(damaged, pixels)] += 1
            if not is_noticed(Path(folder) / "image", damaged, whole):
                unnoticed.append(f"file {n_damaged}")
            n_damaged += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"n": n_damaged, "unnoticed": unnoticed, "peak_bytes": peak, "table": table}


def limit_memory() -> None:
    """Let this process have no more than `MORE_BYTES` beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    for name in FORMATS:
        decode(wholes(name)[0])  # what is imported later is no decoder's
    if Path("/proc/self/statm").exists():
        limit_memory()
    counted = fuzz(int((sys.argv[1:] or ["2400"])[0]), int((sys.argv[2:] or ["0"])[0]))
    print(json.dumps(counted))
