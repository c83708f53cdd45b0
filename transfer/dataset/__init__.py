"""Dataset: labelled image files, found, described and split; every file accounted for.

Nothing is decoded here: a file counts as an image when its first bytes say so. Whoever decodes hands back
what could not be decoded through `Dataset.without`.

Paths are plain strings inside: a `Path` per file costs time and a kilobyte, and there may be 100,000 files.
"""

from __future__ import annotations

from transfer.dataset.describing import describe
from transfer.dataset.domains import Domain, Domains
from transfer.dataset.faults import find_faults, require_faultless
from transfer.dataset.joining import add_few, draw_few, join_domains
from transfer.dataset.names import display
from transfer.dataset.parts import PARTS, reported_part
from transfer.dataset.records import Dataset, Skipped, duplicates
from transfer.dataset.scanning import Source, find_images, from_lists, scan
from transfer.dataset.sniffing import sniff
from transfer.dataset.splitting import (
    Split,
    draw_split,
    held_out_share,
    read_split,
    require_drawable,
    require_test,
    thin_out,
    write_split,
)
from transfer.dataset.unreadable import stop_on_bad

__all__ = [
    "PARTS",
    "Dataset",
    "Domain",
    "Domains",
    "Skipped",
    "Source",
    "Split",
    "add_few",
    "describe",
    "display",
    "draw_few",
    "draw_split",
    "duplicates",
    "find_faults",
    "find_images",
    "from_lists",
    "held_out_share",
    "join_domains",
    "read_split",
    "reported_part",
    "require_drawable",
    "require_faultless",
    "require_test",
    "scan",
    "sniff",
    "stop_on_bad",
    "thin_out",
    "write_split",
]
