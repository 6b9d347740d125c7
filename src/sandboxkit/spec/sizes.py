"""The one parser of sizes and durations."""

from __future__ import annotations

import math
import re

from sandboxkit.errors import SpecError

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_size(value: object, argument: str) -> int:
    """Bytes, from an int or a text like "64M" (powers of 1024). Raises `SpecError` naming the argument."""
    expected = 'a number of bytes, or a text like "64M" or "1.5G"'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is not None:
            number, unit = match.group(1), match.group(2).upper()
            if unit or "." not in number:  # half a byte is no size
                return (
                    int(float(number) * 1024 ** _POWERS[unit]) if "." in number else int(number) * 1024 ** _POWERS[unit]
                )
    raise SpecError(argument, value, expected)


def parse_seconds(value: object, argument: str) -> float:
    """Seconds as a float, infinity included. Raises `SpecError` for anything negative or not a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value) and value >= 0:
        return float(value)
    raise SpecError(argument, value, "a number of seconds, not negative")


def whole(value: object, argument: str, low: int, high: int) -> int:
    """A whole number in a range; bool and text are not numbers here."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise SpecError(argument, value, f"a whole number from {low} to {high}")
