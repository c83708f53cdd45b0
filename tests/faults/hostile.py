"""A hostile folder, made by code: every fault of images, names and trees that users were bitten by, each with its fate.

The numbers are the rows of docs/reliability.md.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from encoded import draw, encode, png_bomb
from PIL import Image, features

from transfer.images.formats import has_heic

N_GOOD = 8  # sound pictures of each of the two classes
HEIC = "damaged HEIC" if has_heic() else "HEIC: `pip install 'transfer[heic]'`"
MARKUP = "<script>alert(1)</script>"  # in metadata and in names
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
LATIN_1 = os.fsdecode(b"\xe9t\xe9")  # no UTF-8
ODD_NAMES = (
    "naïve Ωμ 猫.png",
    "sp ace 'quo\"te.png",
    "new\nline.png",
    "-rf.png",
    "=1+1.png",
    "\x1b[31mred.png",
    "\u202egnp.exe.png",
    f"{MARKUP.replace('/', ':')}.png",
    os.fsdecode(b"caf\xe9.png"),
    f"{'long' * 62}abc.png",  # 255 bytes
)


@dataclass(frozen=True)
class Fault:
    """A file that is not a sound picture with a plain name, and what becomes of it."""

    row: int
    path: str
    content: bytes
    fate: str = "used"  # or unreadable, or ignored
    why: str = ""  # what the reason starts with


@dataclass(frozen=True)
class Hostile:
    """A hostile folder: all that is wrong in it, and its checksum before anything read it."""

    root: Path
    faults: list[Fault]
    before: str

    def of_fate(self, fate: str) -> set[str]:
        """Return the paths below the root of all faults that end so."""
        return {fault.path for fault in self.faults if fault.fate == fate}


def picture(seed: int) -> Image.Image:
    """Return a picture of 48x32 that differs from those of other seeds, by far: no near-duplicates."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize((48, 32), Image.Resampling.NEAREST)


def fill(root: Path, counts: dict[str, int], seed: int = 1000) -> Path:
    """Make class folders below `root` with so many pictures, all different; `seed` begins the count."""
    for name, n in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (root / name / f"{i:03}.png").write_bytes(encode(picture(seed), "PNG"))
            seed += 1
    return root


def odd_images() -> list[Fault]:
    """Return rows 1 to 26 in class folders."""
    whole = draw(48, 32)
    grey, rgba, palette = whole.convert("L"), whole.convert("RGBA"), whole.convert("P")
    rgba.putalpha(grey)
    png, jpeg = encode(whole, "PNG"), encode(whole, "JPEG", quality=90)
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [whole.rotate(90)]}
    exif, turned = Image.Exif(), Image.Exif()
    exif[0x010E] = MARKUP  # image description
    turned[0x0112] = 6
    broken = bytearray(png)
    broken[len(png) // 2] ^= 1
    rotten = bytearray(jpeg)
    rotten[-60] ^= 1  # in the pixels: other ones are decoded, without an error
    five = io.BytesIO()
    tifffile.imwrite(five, np.zeros((8, 8, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    found = [
        Fault(1, "bee/cut.jpg", jpeg[: len(jpeg) // 2], "unreadable", "truncated JPEG"),
        Fault(1, "bee/cut.png", png[: len(png) // 2], "unreadable", "truncated PNG"),
        Fault(2, "bee/empty.jpg", b"", "unreadable", "empty file"),
        Fault(3, "bee/page.jpg", b"<!DOCTYPE html><html>404</html>", "unreadable", "not an image (HTML)"),
        Fault(3, "bee/words.jpg", b"Not found", "unreadable", "not an image (text)"),
        Fault(4, "ant/really_a_png.jpg", encode(picture(100), "PNG")),
        Fault(5, "ant/no_extension", encode(picture(101), "PNG")),
        Fault(5, "ant/UPPER.PNG", encode(picture(102), "PNG")),
        Fault(6, "ant/rotten.jpg", bytes(rotten)),
        Fault(7, "bee/crc.png", bytes(broken), "unreadable", "damaged PNG"),
        Fault(8, "ant/cmyk.jpg", encode(whole.convert("CMYK"), "JPEG")),
        Fault(8, "ant/ycc.jpg", encode(whole.convert("YCbCr"), "JPEG")),
        Fault(9, "ant/sixteen.png", encode(sixteen, "PNG")),
        Fault(10, "ant/float.tif", encode(Image.fromarray(np.asarray(grey) / np.float32(255)), "TIFF")),
        Fault(11, "ant/rgba.png", encode(rgba, "PNG")),
        Fault(11, "ant/la.png", encode(rgba.convert("LA"), "PNG")),
        Fault(11, "ant/palette.png", encode(palette, "PNG", transparency=3)),
        Fault(12, "ant/one_bit.png", encode(whole.convert("1"), "PNG")),
        Fault(12, "ant/grey.jpg", encode(grey, "JPEG")),
        Fault(12, "bee/five_channels.tif", five.getvalue(), "unreadable", "damaged TIFF"),
        Fault(13, "ant/moving.gif", encode(whole, "GIF", **frames)),
        Fault(13, "ant/moving.webp", encode(whole, "WEBP", **frames)),
        Fault(13, "ant/moving.png", encode(whole, "PNG", **frames)),
        Fault(14, "ant/pages.tif", encode(whole, "TIFF", **frames)),
        Fault(14, "ant/two.jpg", encode(whole, "MPO", **frames)),
        Fault(15, "bee/phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unreadable", HEIC),
        Fault(17, "bee/logo.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "ignored", "unsupported format SVG"),
        Fault(17, "bee/paper.jpg", b"%PDF-1.7", "unreadable", "unsupported format PDF"),
        Fault(17, "bee/camera.nef", b"II*\0\x08\0\0\0", "ignored", "unsupported format RAW"),
        Fault(17, "bee/scan.dcm", bytes(128) + b"DICM", "ignored", "unsupported format DICOM"),
        Fault(18, "bee/eps.jpg", encode(whole, "EPS"), "unreadable", "unsupported format EPS"),
        Fault(19, "ant/turned.jpg", encode(whole, "JPEG", exif=turned)),
        Fault(20, "bee/bomb.png", png_bomb(20_000), "unreadable", "400 megapixels, limit 178.957 (--max-pixels)"),
        Fault(22, "ant/dot.png", encode(picture(103).resize((1, 1)), "PNG")),
        Fault(23, "ant/line.png", encode(picture(104).resize((20_000, 1)), "PNG")),
        Fault(25, "ant/profile.png", encode(picture(105), "PNG", icc_profile=wide_profile())),
        Fault(26, "ant/metadata.jpg", encode(picture(106), "JPEG", exif=exif)),
    ]
    if "avif" in features.modules and features.check("avif"):  # before 11.3, Pillow does not know the word
        found.append(Fault(16, "ant/modern.avif", encode(whole, "AVIF")))
    return found


def odd_names() -> list[Fault]:
    """Return rows 27 to 37 and 46 as far as they go into one tree: names, classes, clutter."""
    fresh = iter(range(200, 300))

    def png() -> bytes:
        return encode(picture(next(fresh)), "PNG")

    found = [Fault(28 if is_foreign(name) else 27, f"bee/{name}", png()) for name in ODD_NAMES]
    found += [Fault(28, f"{LATIN_1}/{i}.png", png()) for i in range(3)]
    found += [Fault(29, f"{name}/{i}.png", png()) for name in (NFC, NFD) for i in range(2)]
    found += [Fault(30, f"{name}/{i}.png", png()) for name in ("Cat", "cat") for i in range(2)]
    found += [
        Fault(33, "hopeless/empty.png", b"", "unreadable", "empty file"),
        Fault(34, "single/only.png", png()),
        *(Fault(36, path, png(), "ignored", "hidden file") for path in ("ant/._00.png", "ant/.DS_Store", "Thumbs.db")),
        *(
            Fault(36, path, png(), "ignored", "in a hidden folder")
            for path in ("__MACOSX/ant/00.png", "ant/.ipynb_checkpoints/00.png")
        ),
        Fault(37, "ant/notes.txt", b"words", "ignored", "not an image (.txt)"),
        Fault(37, "ant/boxes.XML", b"<a/>", "ignored", "not an image (.xml)"),
        Fault(37, "beside.png", png(), "ignored", "image outside the class folders"),
        Fault(46, "bee/also_an_ant.png", encode(picture(0), "PNG")),
    ]
    return found


def links() -> list[Fault]:
    """Return rows 38 to 40, whose files have no content; `write_hostile_folder` makes them."""
    return [
        Fault(38, "ant/up", b"", "ignored", "directory loop"),
        Fault(39, "ant/dangling.png", b"", "ignored", "dangling symbolic link"),
        Fault(39, "ant/pipe.png", b"", "ignored", "not a regular file"),
        Fault(39, "ant/device.png", b"", "ignored", "not a regular file"),
        Fault(40, "ant/outside.png", encode(picture(107), "PNG")),
    ]


def is_foreign(name: str) -> bool:
    """Say whether a name has bytes that are not UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in name)


def write_hostile_folder(root: Path) -> Hostile:
    """Make the folder. Beside it lies the file that a link leads to."""
    for name, offset in (("ant", 0), ("bee", 50)):
        (root / name).mkdir(parents=True)
        for i in range(N_GOOD):
            (root / name / f"{i:02}.png").write_bytes(encode(picture(offset + i), "PNG"))
    faults = [*odd_images(), *odd_names()]
    for fault in faults:
        (root / fault.path).parent.mkdir(parents=True, exist_ok=True)
        (root / fault.path).write_bytes(fault.content)
    outside = root.with_name("outside.png")
    outside.write_bytes(links()[-1].content)
    for name, target in (("up", root), ("dangling.png", "gone.png"), ("device.png", "/dev/zero")):
        (root / "ant" / name).symlink_to(target)
    os.mkfifo(root / "ant" / "pipe.png")
    (root / "ant" / "folder.png").mkdir()  # 39 too, and no file to count
    (root / "nothing").mkdir()  # 33
    (root / "ant" / "outside.png").symlink_to(outside)
    return Hostile(root, [*faults, *links()], fingerprint(root))


def count_files(root: Path) -> int:
    """Count everything that is not a folder, without following links."""
    return sum(len(names) + sum((Path(f) / d).is_symlink() for d in folders) for f, folders, names in os.walk(root))


def fingerprint(root: Path) -> str:
    """Return a checksum over every name, kind, time of change and content below `root`."""
    digest = hashlib.sha256()
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        told = f"{status.st_mode} {status.st_mtime_ns} {status.st_size}".encode()
        digest.update(os.fsencode(path) + b"\0" + told + b"\0" + content + b"\0")
    return digest.hexdigest()


def wide_profile() -> bytes:
    """Return an ICC profile whose red and blue are exchanged: who applied it would change the picture."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    n_tags = struct.unpack(">I", profile[128:132])[0]
    at = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 136 + 12 * i for i in range(n_tags)}
    red, blue = at[b"rXYZ"], at[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    return bytes(profile)
