"""Report: what a run says about itself, as one HTML page that needs nothing but itself.

* `records` says what of a run is read, `tables` reads its CSV files, `files` finds its images; `predictions` finds
  those that are worth a look.
* `rows` has the features of its images; `findings` looks at these once more: labels in doubt, look-alikes across parts,
  a map. `looks` shows where the model looks.
* `thumbnails` and `figures` draw, `confusions` and `reproduction` put into rows and words; none knows of HTML.
* `page` fills a template with these (`templates`), and `writing` puts the page beside the run.
"""

from __future__ import annotations

from transfer.report.writing import NAME, Report, write_page, write_report

__all__ = ["NAME", "Report", "write_page", "write_report"]
