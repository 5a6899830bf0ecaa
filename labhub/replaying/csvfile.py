"""CSV files as tracks. Cells are read as text, so that each number is the one that stands there."""

from __future__ import annotations

import csv
import math
import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labhub.errors import InvalidArgument, NotARecording
from labhub.replaying.columns import Column, Found, LeftOut, refuse, text_array, with_missing
from labhub.replaying.tables import NO_TIME, check_names, field_name
from labhub.replaying.times import TimeUnit, Where, times_ns
from labhub.replaying.tracks import Track, track_of
from labhub.schema import TIME

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "<na>", "nat"})
"""Cells, in lower case, of a column of numbers in which there is none."""
BOOLEANS = {"true": True, "false": False}
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf|infinity)", re.ASCII | re.IGNORECASE)


def csv_track(path: Path, name: str, unit: TimeUnit | None) -> Track:
    """Make a track of a CSV file."""
    header = _header(path)
    check_names(header)
    if TIME not in header:
        hint = "; its cells seem to be separated by another character than a comma" if len(header) == 1 else ""
        raise InvalidArgument(f"{path}: {NO_TIME}. There are: {', '.join(map(repr, header[:8]))}{hint}")
    cells = _cells(path, header)

    def where(row: int) -> str:
        return f"{path}, line {_line(path, row)}"

    time_ns = times_ns(np.array(cells.pop(TIME), object), where, unit)
    found = Found()
    for column, texts in cells.items():
        try:
            found.columns.append(Column.of(field_name(column), array_of_cells(texts, column, where, found.words)))
        except LeftOut as reason:
            found.words.append(f"column {column!r} is left out: {reason}")
    return track_of(name, found, time_ns)


def _header(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return next((row for row in csv.reader(file) if row), [])
    except FileNotFoundError:
        raise NotARecording(f"{path} does not exist", path=str(path)) from None
    except (OSError, ValueError, csv.Error) as error:
        raise NotARecording(f"{path} cannot be read as a table: {error}", path=str(path)) from None


def _cells(path: Path, header: list[str]) -> dict[str, list[str]]:
    """Return the cells of each column; of a short row, empty ones."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # more cells than names
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, names=header, header=0)
    except (ValueError, UnicodeError, OSError, pd.errors.ParserWarning) as error:
        raise NotARecording(
            f"{path} cannot be read as a table: {' '.join(str(error).split())}", path=str(path)
        ) from None
    return {column: table[column].fillna("").tolist() for column in header}


def _line(path: Path, row: int) -> int:
    """Return the line of a file in which its row (from 0 on) ends, as an editor counts."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        seen = -2  # the header is no row
        for cells in reader:
            seen += any(cells) or len(cells) > 1
            if seen == row:
                return reader.line_num
    return row + 2


def array_of_cells(cells: list[str], name: str, where: Where, words: list[str]) -> NDArray[np.generic]:
    """Return the cells of a column as booleans, integers or floats if all are that or missing, else as text.

    Raises
    ------
    InvalidArgument
        A number is missing or out of range and has no form in the column's dtype.
    LeftOut
    """
    stripped = [cell.strip() for cell in cells]
    missing = np.array([cell.lower() in MISSING for cell in stripped], np.bool_)
    present = [cell for cell, gone in zip(stripped, missing, strict=True) if not gone]
    if not any(stripped):
        raise LeftOut("it has no values")
    if present and {cell.lower() for cell in present} <= BOOLEANS.keys():
        flags = np.array([BOOLEANS.get(cell.lower(), False) for cell in stripped])
        return with_missing(flags, missing, name, where, words)
    if present and all(map(_INTEGER.fullmatch, present)):
        numbers = [0 if gone else int(cell) for cell, gone in zip(stripped, missing, strict=True)]
        if min(numbers) >= -(2**63) and max(numbers) < (2**63 if min(numbers) < 0 else 2**64):
            kind = np.uint64 if max(numbers) >= 2**63 else np.int64
            return with_missing(np.array(numbers, kind), missing, name, where, words)
    elif all(map(_NUMBER.fullmatch, present)):
        floats = [math.nan if gone else float(cell) for cell, gone in zip(stripped, missing, strict=True)]
        for row in np.flatnonzero(np.isinf(floats)):
            if any(digit in cells[row] for digit in "0123456789"):
                refuse(name, int(row), where, f"{cells[row]} is out of the range of float64", "correct the cell")
        return np.array(floats)
    return text_array(cells, name)
