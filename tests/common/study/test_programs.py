"""Programs that share a process: their words on its command line, their parts of its log."""

from __future__ import annotations

from pathlib import Path

from common.study import programs


def test_a_log_that_programs_share_is_cut_where_another_begins(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in ("a", "b", "c"))
    log = f"{programs.header([a])}\none\n{programs.header([b, c])}\ntwo\nthree\n"
    assert programs.spoken(a, log) == "one\n"
    assert programs.spoken(b, log) == programs.spoken(c, log) == "two\nthree\n"
    assert programs.spoken(a, "alone\n") == "alone\n"


def test_the_words_of_a_command_line_are_programs(tmp_path: Path) -> None:
    assert programs.programs_of(["/a", "/b", "--", "/c"]) == [[Path("/a"), Path("/b")], [Path("/c")]]
