"""Table: rows as HTML, for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

_LIMIT = 50  # rows; a notebook keeps what it shows


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], above: str = "", below: Sequence[str] = ()) -> str:
    """Return an HTML table with a line of text above and lines below; everything is escaped.

    Names from a file system go through `dataset.display` before, which HTML's escaping does not replace.

    >>> table(["class", "images"], [["<b>", 3]])
    '<table><tr><th>class</th><th>images</th></tr><tr><td>&lt;b&gt;</td><td>3</td></tr></table>'
    """
    rows = list(rows)
    lines = [f"... and {len(rows) - _LIMIT} more rows"] * (len(rows) > _LIMIT) + list(below)
    body = "".join(_row("td", row) for row in rows[:_LIMIT])
    return f"{_line(above)}<table>{_row('th', header)}{body}</table>{''.join(map(_line, lines))}"


def _row(tag: str, cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"


def _line(text: str) -> str:
    return f"<div>{html.escape(text)}</div>" if text else ""
