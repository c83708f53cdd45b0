"""Report file: the page beside its run, written whole or not at all."""

from __future__ import annotations

import html
import os
from pathlib import Path

from transfer.errors import UsageError
from transfer.files import require_folder, write_text
from transfer.report.page import MARK, render_page
from transfer.report.records import Record

_NAME = "report.html"
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


def write_report(run: Record, out: str | os.PathLike[str] | None = None) -> Report:
    """Write the report of a run, by default as report.html in its folder, and replace an earlier report.

    Images are read where they were when the run was fitted; what is missing or has changed is a grey box. The same run
    and images give the same bytes.

    Raises
    ------
    UsageError
        There is another file of that name.
    ArtefactError
        The run's tables are damaged.
    ResourceError
        The file cannot be written.
    """
    path = run.path / _NAME if out is None else Path(out)
    _require_replaceable(path)
    require_folder(path.parent)
    write_text(path, render_page(run))
    return Report(path)


def _require_replaceable(path: Path) -> None:
    if not os.path.lexists(path):  # a link to nowhere is something too
        return
    if path.is_file():
        with open(path, "rb") as earlier:
            if MARK.encode() in earlier.read(_N_HEAD_BYTES):
                return
    raise UsageError(f"{path} exists and is no report of this toolkit. Choose another --out, or delete it.")
