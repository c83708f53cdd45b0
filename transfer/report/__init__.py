"""Report: what a run says about itself, as one HTML page that needs nothing but itself.

* `records` says what of a run is read, `tables` reads its CSV files; `predictions` finds those that are worth a look.
* `thumbnails` and `figures` draw, `confusions` and `reproduction` put into rows and words; none knows of HTML.
* `page` fills the template `page.html.j2` with these, and `writing` puts the page beside the run.
"""

from __future__ import annotations

from transfer.report.writing import Report, write_report

__all__ = ["Report", "write_report"]
