"""From the committed files of a result to the pages that a reader sees; nothing here computes a verdict."""

from common.study.report.overview import readme
from common.study.report.page import render
from common.study.report.site import build

__all__ = ["build", "readme", "render"]
