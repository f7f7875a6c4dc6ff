"""From the committed files of a result to the pages that a reader sees; nothing here computes a verdict."""

from common.study.report.overview import evidence, readme
from common.study.report.page import differences, pages, render
from common.study.report.site import build

__all__ = ["build", "differences", "evidence", "pages", "readme", "render"]
