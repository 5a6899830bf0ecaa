"""Texts, ages and sizes as people read them."""

from __future__ import annotations

import html
import unicodedata

import pytest

from labhub.errors import InvalidName
from labhub.names import check_name, check_one
from labhub.tables import html_facts, html_table, text_facts, text_table
from labhub.words import age, did_you_mean, instant, one_line, size, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mm", "mm"),
        ("[mm]", "[mm]"),
        ("Temp °C, 5 µV, 3 kΩ, 2 Å, α, 温度, Größe", "Temp °C, 5 µV, 3 kΩ, 2 Å, α, 温度, Größe"),
        ("10\u00a0000\u2009m", "10\u00a0000\u2009m"),  # blanks that typesetters use
        ("e\u0301", "e\u0301"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\rd\x00e\x7ff", r"a\nb\tc\rd\x00e\x7ff"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("a\u202eb\u2066c\u200fd", r"a\u202eb\u2066c\u200fd"),
        ("a\u2028b\u2029c\ufeff\u200b", r"a\u2028b\u2029c\ufeff\u200b"),
        ("\U000e0041", r"\U000e0041"),
        ("no UTF-8: \udcff", r"no UTF-8: \udcff"),
        ("C:\\new", "C:\\new"),
        ("", ""),
        (5, "5"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: object, shown: str) -> None:
    assert visible(text) == shown
    assert visible(visible(text)) == shown
    assert len(visible(text).splitlines()) <= 1


def test_no_character_at_all_gets_through_that_is_not_a_sign_or_a_blank() -> None:
    everything = "".join(map(chr, range(0x110000)))
    shown = visible(everything)
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in shown)
    shown.encode()  # surrogates are gone, too


def test_an_error_becomes_one_line() -> None:
    assert one_line(ValueError("two\n  lines\x07")) == r"two lines\x07"


def test_tables_show_cells_as_text_and_are_as_wide_as_the_screen_says() -> None:
    text = text_table(("name", "unit"), [("温度", "°C"), ("x\ny", "[mm]")])
    assert text.splitlines() == ["name  unit", "温度  °C", r"x\ny  [mm]"]
    assert text_facts([("温度", "1"), ("length", "2\x1b")]).splitlines() == ["  温度    1", r"  length  2\x1b"]
    assert html_table(("",), [("<b>\u202e",)]).endswith(f">{html.escape('<b>')}\\u202e</td></tr></tbody></table>")
    assert html_facts("a\x1b<", []) == r"<b>a\x1b&lt;</b>"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"), (0.04, "0.0 s"), (5.2, "5.2 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119, "119 s"),
        (119.6, "2 min"),
        (180, "3 min"), (7169, "119 min"), (7171, "2 h"), (170_000, "47 h"), (864_000, "10 d"),
    ],
)  # fmt: skip
def test_ages(seconds: float, words: str) -> None:
    assert age(seconds) == words


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2048, "2.0 kB"), (99_960, "100 kB"), (147_200, "147 kB"),
        (999_499, "999 kB"), (999_960, "1.0 MB"), (8e6, "8.0 MB"), (25.3e9, "25.3 GB"), (999.96e9, "1.0 TB"),
        (3e12, "3.0 TB"),
    ],
)  # fmt: skip
def test_sizes(nbytes: float, words: str) -> None:
    assert size(nbytes) == words


def test_instants_have_nine_digits_and_any_year() -> None:
    assert instant(0) == "1970-01-01T00:00:00.000000000Z"
    assert instant(-1) == "1969-12-31T23:59:59.999999999Z"
    assert instant(2**63 - 1) == "2262-04-11T23:47:16.854775807Z"


def test_close_names_are_offered() -> None:
    assert did_you_mean("presure", ["pressure", "seq"]) == "did you mean pressure?"
    assert did_you_mean("presure", ["pressure"], repr) == "did you mean 'pressure'?"
    assert did_you_mean("zzz", ["a", "b"]) == "there are a, b"
    assert did_you_mean("zzz", []) == ""


@pytest.mark.parametrize(
    ("name", "shown"), [("Temp°C", "'Temp°C'"), ("5 µV", "'5 µV'"), ("a\x1b", r"'a\x1b'"), ("", "''"), (None, "None")]
)
def test_a_refused_name_is_shown_as_it_was_typed(name: object, shown: str) -> None:
    for check in (check_name, check_one):
        with pytest.raises(InvalidName) as refused:
            check(name)
        assert str(refused.value).startswith(f"{shown} cannot name a channel: use 1 to 128 of")
        assert refused.value.name == name


@pytest.mark.parametrize("pattern", ["s.*", "s.?", "[ab]", "*"])
def test_where_one_channel_is_needed_a_pattern_is_told_where_patterns_work(pattern: str) -> None:
    with pytest.raises(InvalidName) as refused:
        check_one(pattern)
    assert str(refused.value).startswith(f"{pattern!r} is a pattern, and here one channel is needed; hub.channels(")
    shell = refused.value.told("shell")
    assert "`labhub channels" in shell
    assert "hub." not in shell
    assert "%hub_discover" in refused.value.told("notebook")
