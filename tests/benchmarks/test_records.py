"""Rows that survive a kill, and tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from measuring.records import Records, markdown_table, significant, spread


def test_rows_are_found_again(tmp_path: Path) -> None:
    """A second start reads what the first one wrote."""
    Records(tmp_path / "rows.jsonl").add({"tool": "a", "repetition": 1, "wall": 2.5})
    again = Records(tmp_path / "rows.jsonl")
    assert again.find(tool="a", repetition=1) == {"tool": "a", "repetition": 1, "wall": 2.5}
    assert again.find(tool="a", repetition=2) is None


def test_a_row_cut_by_a_kill_is_measured_again(tmp_path: Path) -> None:
    """Half a line at the end is dropped, and the next row starts on a line of its own."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n{"n": 2, "wa')
    records = Records(path)
    assert records.rows == [{"n": 1}]
    records.add({"n": 3})
    assert path.read_text() == '{"n": 1}\n{"n": 3}\n'


def test_a_table_has_text_left_and_numbers_right() -> None:
    """None is an empty cell; a bar does not break the row."""
    assert markdown_table(["tool", "s"], [["a|b", 1.5], ["c", None]]) == "| tool | s |\n|---|---:|\n| a\\|b | 1.5 |\n| c |  |\n"


def test_a_row_of_the_wrong_length_is_refused() -> None:
    """The message names both lengths."""
    with pytest.raises(ValueError, match="a row has 1 cells, the table 2 columns"):
        markdown_table(["tool", "s"], [["a"]])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012345, "0.0123"), (1.5, "1.50"), (123.456, "123"), (99999.0, "99999"), (1.5e7, "1.5e+07"), (0, "0")],
)
def test_significant_digits(value: float, text: str) -> None:
    """Three of them."""
    assert significant(value) == text


def test_spread() -> None:
    """Median with the range; one number where all are equal; nothing for nothing."""
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00–3.00)"
    assert spread([2.0, 2.0]) == "2.00"
    assert spread([]) == ""
