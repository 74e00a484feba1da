"""Pages, plots and pictures that show what a run did, in one HTML file."""

from report_pages.pages import embedded_image, filled
from report_pages.pictures import beside, headline, labeled, shrunk, spread, stacked
from report_pages.plots import Line, Plot, svg

__all__ = [
    "Line",
    "Plot",
    "beside",
    "embedded_image",
    "filled",
    "headline",
    "labeled",
    "shrunk",
    "spread",
    "stacked",
    "svg",
]
