"""Report file: the page beside its run, written whole or not at all."""

from __future__ import annotations

import html
import os
from pathlib import Path

from transfer.errors import UsageError
from transfer.files import require_folder, write_csv, write_text
from transfer.progress import Progress
from transfer.report.findings import Findings, find
from transfer.report.page import render_page
from transfer.report.predictions import read_predictions
from transfer.report.records import Record, require_complete
from transfer.report.templates import MARK

NAME = "report.html"
_N_HEAD_BYTES = 1000  # the mark stands in them


class Report:
    """A report that was written; a notebook shows it.

    Examples
    --------
    ``transfer.load_run("runs/flowers").report.path``
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text(encoding="utf-8"))
        style = "width: 100%; height: 42rem; border: 1px solid #8885; border-radius: 6px"
        return f'<iframe srcdoc="{page}" sandbox title="Report" style="{style}"></iframe>'


def write_report(run: Record, out: str | os.PathLike[str] | None = None, *, quiet: bool = False) -> Report:
    """Write the report of a run, by default as report.html in its folder, and replace an earlier report.

    Images are read where they were when the run was fitted; what is missing or has changed is a grey box. Features come
    from the cache, and where they are not there, are computed from the images. The same run, images and features give
    the same bytes. In the run's folder the images in doubt and the near-duplicates are tables too, suspects.csv and
    near_duplicates.csv.

    Raises
    ------
    UsageError
        There is another file of that name.
    ArtefactError
        The run's tables are damaged.
    ResourceError
        The file cannot be written.
    """
    path = run.path / NAME if out is None else Path(out)
    _require_replaceable(path)
    require_folder(path.parent)
    require_complete(run)
    predictions = read_predictions(run)
    findings = find(run, predictions, Progress(quiet))
    folder = run.path if out is None else None
    page = render_page(run, findings, predictions, folder)
    if folder and not findings.why_no_features:  # tables of a fit that had the features say more
        _write_tables(folder, findings)
    return write_page(path, page)


def write_page(path: Path, page: str) -> Report:
    """Write a page that is made, and replace an earlier report.

    Raises
    ------
    UsageError
        There is another file of that name.
    """
    _require_replaceable(path)
    write_text(path, page)
    return Report(path)


def _write_tables(folder: Path, findings: Findings) -> None:
    header = ["path", "split", "label", "suggested", "label_probability", "suggested_probability", "margin"]
    doubts = (
        [d.image.path, d.image.part, d.image.label, d.suggested, *_rounded(d.p_label, d.p_suggested, d.margin)]
        for d in findings.doubts
    )
    write_csv(folder / "suspects.csv", header, doubts)
    header = ["path", "split", "label", "other_path", "other_split", "other_label", "cosine"]
    pairs = (
        [
            p.later.path,
            p.later.part,
            p.later.label,
            p.earlier.path,
            p.earlier.part,
            p.earlier.label,
            *_rounded(p.cosine),
        ]
        for p in findings.look_alikes
    )
    write_csv(folder / "near_duplicates.csv", header, pairs)


def _rounded(*shares: float) -> list[float]:
    return [round(share, 4) for share in shares]


def _require_replaceable(path: Path) -> None:
    if not os.path.lexists(path):  # a link to nowhere is something too
        return
    if path.is_file():
        with open(path, "rb") as earlier:
            if MARK.encode() in earlier.read(_N_HEAD_BYTES):
                return
    raise UsageError(f"{path} exists and is no report of this toolkit. Choose another --out, or delete it.")
