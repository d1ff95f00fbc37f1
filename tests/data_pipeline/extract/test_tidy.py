"""What trafilatura leaves behind, made text."""

from __future__ import annotations

from data_pipeline.extract.tidy import tidy

PARAGRAPH = "Members of the laboratory study how compilers and architectures meet. " * 6


def test_layout_tables_become_lines() -> None:
    one_column = "Title\n|  | \n|---|\n| First   part. | \n| Second \\| third. | \nEnd"
    assert tidy(one_column) == "Title\nFirst part.\nSecond | third.\nEnd"
    assert tidy(f"| Home | {PARAGRAPH} | \n|---|---|\n|  | {PARAGRAPH} | ") == "\n".join(
        ["Home", PARAGRAPH.strip(), PARAGRAPH.strip()]
    )
    assert tidy("R101\n|\nText.") == "R101\nText."


def test_data_tables_stay() -> None:
    table = "| Name | Size |\n|---|---|\n| a.jar | 607 |\n| b.jar |  |"
    assert tidy(table) == table


def test_lines_of_white_space_go_and_code_keeps_its_indentation() -> None:
    chapter = "102\n        \n            “Were you there?”  \n        \n            “No.”\n"
    assert tidy(chapter) == "102\n“Were you there?”\n“No.”"
    code = "def f():\n    if x:\n        return 1\n\n    return 2\n"
    assert tidy(code) == code.strip()
    assert tidy("a\n\n\n\nb") == "a\n\nb"
