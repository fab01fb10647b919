"""Reads tables: CSV in the ways that programs write it, and JSON, as a list of records. What cannot be read says where."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from nodes.base import NodeError

DELIMITERS: Final = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")
_YES_NO = {"yes": True, "true": True, "no": False, "false": False}


def decode(content: bytes) -> str:
    """The text of a file: UTF-8 or UTF-16 with their marks, else what Windows programs write."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def read_csv(text: str, *, delimiter: str = "auto", header: bool = True, typed: bool = True, limit: int) -> list[Any]:
    """The rows of a CSV text: records by column, or lists when there is no header. Raises NodeError naming the line."""
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        raise NodeError("This is not a CSV text: it holds zero characters.", fix="Save the table as CSV (UTF-8).")
    # Excel may say in a first line which sign separates the columns.
    first, _newline, rest = text.partition("\n")
    said = first.strip().lower()
    offset = 0
    if len(said) == 5 and said.startswith("sep="):
        text, sign, offset = rest, first.strip()[4], 1
    else:
        sign = DELIMITERS.get(delimiter) or _guess(text)
    lines = _lines(text, sign, offset)
    columns = _columns(*next(lines, (1, []))) if header else None
    rows: list[list[str]] = []
    width = len(columns) if columns is not None else 0
    for number, cells in lines:
        if columns is None and not rows:
            width = len(cells)
        if len(cells) != width:
            cells = _fitted(cells, width, number)
        if len(rows) >= limit:
            raise NodeError(
                f"The table has more than {limit:,} rows.",
                category="limit",
                fix="Split it, or raise the limit of rows.",
            )
        rows.append(cells)
    values: list[list[Any]] = _typed(rows, width) if typed else rows
    return values if columns is None else [dict(zip(columns, row, strict=True)) for row in values]


def _lines(text: str, sign: str, offset: int) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the number of its first line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
    line = offset + 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise NodeError(f"Line {line:,} of the CSV cannot be read: {_in_words(str(error), sign)}.") from None
        if any(cells):
            yield line, cells
        line = offset + reader.line_num + 1


def _in_words(said: str, sign: str) -> str:
    if "unexpected end" in said:
        return "a quote is opened and never closed"
    if "expected after" in said:
        return f"after a closing quote comes neither “{sign}” nor the end of the line"
    return "a cell is too long" if "field larger" in said else said


def _guess(text: str) -> str:
    """The sign that cuts the first rows into the most columns of the same number."""
    sample = text[:20_000]
    best, score = ",", (0, 0)
    for sign in DELIMITERS.values():
        widths: list[int] = []
        try:
            for cells in csv.reader(io.StringIO(sample, newline=""), delimiter=sign):
                if any(cells):
                    widths.append(len(cells))
                if len(widths) == 10:
                    break
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            found = (sum(width == widths[0] for width in widths), widths[0])
            if found > score:
                best, score = sign, found
    return best


def _columns(number: int, cells: list[str]) -> list[str]:
    names: list[str] = []
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    for place, cell in enumerate(cells, 1):
        name = cell.strip() or f"column_{place}"
        if name in names:
            raise NodeError(
                f"Line {number:,} names two columns “{name[:60]}”.", fix="Give each column a name of its own."
            )
        names.append(name)
    return names


def _fitted(cells: list[str], width: int, number: int) -> list[str]:
    """A row without the empty cells that some programs add at its end."""
    while len(cells) > width and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) == width:
        return cells
    raise NodeError(
        f"Line {number:,} of the CSV has {len(cells)} cells, but there are {width} columns.",
        fix="Put quotes around a cell that holds the separator, or fill in the missing cells.",
        details={"line": number},
    )


def _typed(rows: list[list[str]], width: int) -> list[list[Any]]:
    """Columns that hold only numbers, or only yes and no, as such; an empty cell in them is nothing."""
    out: list[list[Any]] = [list(row) for row in rows]
    for place in range(width):
        cells = [row[place].strip() for row in rows]
        filled = [cell for cell in cells if cell]
        if not filled:
            continue
        if all(_NUMBER.fullmatch(cell) for cell in filled):
            for row, cell in zip(out, cells, strict=True):
                row[place] = None if not cell else float(cell) if "." in cell else int(cell)
        elif all(cell.lower() in _YES_NO for cell in filled):
            for row, cell in zip(out, cells, strict=True):
                row[place] = _YES_NO[cell.lower()] if cell else None
    return out


def read_json(text: str, *, limit: int) -> list[Any]:
    """The rows of a JSON text: a list, a record that holds one list, or one record a line. Raises NodeError."""
    text = text.removeprefix("\ufeff").strip()
    try:
        found = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        found = _json_lines(text)
        if found is None:
            raise NodeError(f"This is not valid JSON: {error}.", fix="Correct the text at that place.") from None
    return as_rows(found, limit=limit)


def _json_lines(text: str) -> list[Any] | None:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or not all(line.lstrip()[:1] == "{" for line in lines):
        return None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(orjson.loads(line))
        except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
            raise NodeError(f"Record {number:,} is not valid JSON: {error}.", details={"line": number}) from None
    return rows


def as_rows(found: Any, *, limit: int) -> list[Any]:
    """A value as rows: a list itself, the only list of a record, or one record alone. Raises NodeError."""
    if isinstance(found, dict):
        lists = [part for part in found.values() if isinstance(part, list)]
        found = lists[0] if len(lists) == 1 else [found]
    if not isinstance(found, list):
        raise NodeError("There is no list of rows in this.", fix="Give a list of records.")
    if len(found) > limit:
        raise NodeError(
            f"The list has {len(found):,} rows, and {limit:,} may be read.",
            category="limit",
            fix="Split it, or raise the limit of rows.",
        )
    return found
