"""Template: how a page is made of what is known. Whatever comes from a file or a folder is text there, never markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transfer.dataset import display

MARK = '<meta name="generator" content="transfer report">'


def fill(template: str, content: dict[str, Any]) -> str:
    """Return a page as one HTML document, which needs no other file, no script and no network.

    Raises
    ------
    jinja2.UndefinedError
        The template needs more than the content has.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"display": display, "percent": percent, "points": points, "duration": duration}
    return environment.get_template(template).render(content, mark=MARK).lstrip()


def percent(share: float | None, digits: int = 1) -> str:
    if share is None:
        return "–"
    text, smallest = f"{100 * share:.{digits}f}", 10.0**-digits
    if share < 1 and float(text) == 100:  # nothing is rounded to perfection
        text = f"> {100 - smallest:.{digits}f}"
    elif share > 0 and float(text) == 0:
        text = f"< {smallest:.{digits}f}"
    return f"{text}\N{NARROW NO-BREAK SPACE}%"


def points(gap: float | None, error: float | None) -> str:
    """Return a difference of accuracies in points, with its standard error."""
    if gap is None:
        return "–"
    text = f"{100 * gap:+.1f}".replace("-", "−")
    return text if error is None else f"{text} ± {100 * error:.1f}"


def duration(seconds: float) -> str:
    """Return a time in words, as coarse as one says it.

    >>> duration(8.3), duration(61), duration(4000)
    ('8 seconds', '1 minute', '67 minutes')
    >>> duration(36000)
    '10.0 hours'
    """
    n, unit = (seconds / 60, "minute") if seconds >= 59.5 else (seconds, "second")
    if n >= 90 and unit == "minute":
        return f"{n / 60:.1f} hours"
    shown = max(1, round(n)) if n >= 1 else round(n, 1)
    return f"{shown} {unit}{'' if shown == 1 else 's'}"
