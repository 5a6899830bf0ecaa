"""The documents in docs/spec and the code say the same: no field, message, code or constant is in one of them only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from msgspec import inspect

from labhub import ChecksumPolicy, ConsumerSyncPolicy, DataBlockPolicy, _native
from labhub.protocol import codec, messages
from labhub.protocol.messages import REPLY_TO, RIGHT_FOR, TYPE_NAME, ChannelEntry, ErrorCode, EventKind, Message, Right
from labhub.runtime import ConnectionFile

from . import segment_file

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec"
DATABLOCK = (SPEC / "datablock.md").read_text()
PROTOCOL = (SPEC / "protocol.md").read_text()
LAYOUT_HPP = (ROOT / "native" / "include" / "labhub" / "layout.hpp").read_text()
SIZES = {"u64": 8, "i64": 8, "u32": 4, "u8": 1}
TYPES = {**TYPE_NAME, ChannelEntry: "ChannelEntry"}


def sections(text: str) -> dict[str, str]:
    """The text under each heading of the third level, by that heading's first word."""
    parts = re.split(r"^#{1,3} (.*)$", text, flags=re.M)
    return {title.split()[0].strip("`"): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def tables(section: str) -> list[list[dict[str, str]]]:
    """The tables of a section: for each a list of rows, a row being the cells by their column's title."""
    found: list[list[dict[str, str]]] = []
    titles: list[str] = []
    for line in [*section.splitlines(), ""]:
        if not line.startswith("|"):
            titles = []
            continue
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not titles:
            titles = cells
            found.append([])
        elif set(line) - set("|-"):
            found[-1].append(dict(zip(titles, cells, strict=True)))
    return found


def column(table: list[dict[str, str]], title: str) -> list[str]:
    return [row[title].strip("`") for row in table]


# ------------------------------------------------------------------------------------------------------ datablock.md


def places_in_document(name: str) -> dict[str, tuple[int, int]]:
    table = tables(sections(DATABLOCK)[name])[0]
    for row in table:
        plain, _, count = row["type"].removeprefix("atomic ").rstrip("]").partition("[")
        assert SIZES[plain] * int(count or 1) == int(row["size"]), (name, row)
    return {row["name"].strip("`"): (int(row["offset"]), int(row["size"])) for row in table}


def places_in_header_file() -> dict[str, dict[str, tuple[int, int]]]:
    """Lay the structs of layout.hpp out as a C++ compiler does."""
    sizes = {"std::uint64_t": 8, "std::int64_t": 8, "std::uint32_t": 4, "std::uint8_t": 1}
    source = re.sub(r"//.*", "", LAYOUT_HPP)
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for name, body in re.findall(r"struct alignas\(kLine\) (\w+) \{(.*?)\};", source, flags=re.S):
        found[name], at = {}, 0
        for declaration in body.split(";")[:-1]:
            kind, names = re.sub(r"std::atomic<(.*?)>", r"\1", declaration).split(maxsplit=1)
            for item in names.split(","):
                field, _, count = item.strip().rstrip("]").partition("[")
                at = -(-at // sizes[kind]) * sizes[kind]
                found[name][field] = (at, sizes[kind] * int(count or 1))
                at += sizes[kind] * int(count or 1)
    return found


def test_every_byte_of_the_layout_is_in_the_document() -> None:
    code = places_in_header_file()
    assert len(code) == 9
    for name, fields in code.items():
        assert places_in_document(name) == fields, name


@pytest.mark.parametrize("name", segment_file.FIELDS)
def test_the_independent_reader_follows_the_document(name: str) -> None:
    assert segment_file.FIELDS[name] == places_in_document(name)
    title = re.search(rf"^### {name} \((.*)\)$", DATABLOCK, flags=re.M)
    assert title is not None
    assert str(segment_file.REGIONS[name]) in re.findall(r"\d+", title[1])


def test_the_regions_are_where_the_header_file_has_them() -> None:
    """The order of the struct `Header` and the static asserts give every region its offset."""
    body = re.search(r"struct Header \{(.*?)\};", re.sub(r"//.*", "", LAYOUT_HPP), flags=re.S)
    assert body is not None
    kinds = re.findall(r"(\w+) \w+(?:\[\w+\])?;", body[1])
    offsets = {kind: 64 * k for k, kind in reversed(list(enumerate(kinds)))}
    assert offsets | {"SlotHeader": segment_file.HEADER_NBYTES} == segment_file.REGIONS
    assert kinds.index("CursorLine") == len(kinds) - 1
    assert kinds[segment_file.BEFORE // 64] == "CounterLine"


def test_the_numbers_of_the_document_are_those_of_the_code() -> None:
    assert f"layout version {_native.ABI_VERSION}" in DATABLOCK.splitlines()[0]
    assert _native.ABI_VERSION == segment_file.ABI
    assert _native.MAX_LOSSLESS == segment_file.LOSSLESS_LINES
    assert _native.MAX_LOSSLESS + _native.MAX_OBSERVERS == segment_file.LINES
    magic = re.search(r"kMagic = ([0-9A-Fx']+)ULL", LAYOUT_HPP)
    assert magic is not None
    assert int(magic[1].replace("'", ""), 16) == segment_file.MAGIC
    assert f"`0x{segment_file.MAGIC:016X}`" in DATABLOCK
    assert segment_file.MAGIC.to_bytes(8, "little") == b"\0LHBLKB1"
    for name, states in {"LineState": "FREE ACTIVE EVICTED", "Closed": "open ended replaced"}.items():
        body = re.search(rf"enum {name} .*?\{{(.*?)\}}", LAYOUT_HPP)
        assert body is not None
        assert re.findall(r"k(\w+) = (\d)", body[1]) == [(s.capitalize(), str(k)) for k, s in enumerate(states.split())]


# ------------------------------------------------------------------------------------------------------- protocol.md


def type_in_words(kind: inspect.Type) -> str:
    """A type of messages.py in the words of protocol.md."""
    match kind:
        case inspect.StrType(pattern=str() as pattern):
            return {r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z": "name", r"\A[0-9a-fA-F]{64}\Z": "hash"}[pattern]
        case inspect.StrType(min_length=int() as least, max_length=int() as most):
            return f"text{least}to{most}"
        case inspect.StrType(max_length=length):
            return f"text{length or ''}"
        case inspect.IntType(ge=low, le=high):
            return "int" if low is None else f"int {low} to {high}"
        case inspect.BoolType():
            return "bool"
        case inspect.FloatType():
            return "number"
        case inspect.EnumType():
            return "event kind"
        case inspect.StructType(cls=cls):
            return cls.__name__
        case inspect.ListType(item_type=item, max_length=most):
            return f"list of {type_in_words(item)}" + (f", at most {most}" if most else "")
        case inspect.DictType(value_type=inspect.AnyType()):
            return "object"
        case inspect.DictType(key_type=key, value_type=value, max_length=most):
            keys = f", keys {type_in_words(key)}, at most {most}" if most else ""
            return f"object of {type_in_words(value)}{keys}"
        case inspect.UnionType(types=types):
            return " or ".join("null" if isinstance(t, inspect.NoneType) else type_in_words(t) for t in types)
    raise AssertionError(f"protocol.md has no word for {kind}")


def default_in_words(field: inspect.Field) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return json.dumps(field.default_factory())
    if not field.required and field.default is msgspec.NODEFAULT:
        return "left out"
    return "—" if field.required else json.dumps(field.default)


@pytest.mark.parametrize("kind", TYPES, ids=TYPES.values())
def test_every_field_of_a_message_is_in_the_document(kind: type[msgspec.Struct]) -> None:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    code = [(f.name, type_in_words(f.type), default_in_words(f)) for f in info.fields if f.name != "correlation_id"]
    words = {"pid": f"int 0 to {2**63 - 1}", "version": f"int 0 to {2**63 - 1}"}
    document = [
        (row["field"].strip("`"), words.get(row["type"], row["type"]), row["default"].strip("`"))
        for row in tables(sections(PROTOCOL)[TYPES[kind]])[0]
    ]
    assert document == code


def test_the_document_has_no_message_that_the_code_has_not() -> None:
    headings = set(re.findall(r"^### (.*)$", PROTOCOL, flags=re.M))
    assert headings == set(TYPES.values())


@pytest.mark.parametrize("kind", [k for k in TYPE_NAME if k is not messages.Error], ids=lambda k: TYPE_NAME[k])
def test_every_message_has_an_example_that_is_one(kind: type[Message]) -> None:
    name = TYPE_NAME[kind]
    (example,) = re.findall(r"```json\n(.*?)\n```", sections(PROTOCOL)[name], flags=re.S)
    message = codec.decode(codec.split([name.encode(), example.encode()]))
    assert codec.encode(message) == [name.encode(), example.encode()]


@pytest.mark.parametrize("request_kind", REPLY_TO, ids=lambda k: TYPE_NAME[k])
def test_every_request_names_its_reply(request_kind: type[Message]) -> None:
    assert f"nswered by `{TYPE_NAME[REPLY_TO[request_kind]]}`" in sections(PROTOCOL)[TYPE_NAME[request_kind]]


def test_error_codes_and_events_are_those_of_the_code() -> None:
    assert column(tables(sections(PROTOCOL)["ERROR"])[1], "code") == [c.value for c in ErrorCode]
    assert column(tables(sections(PROTOCOL)["EVENT"])[1], "event") == [k.value for k in EventKind]


def test_the_rights_of_the_requests_are_those_of_the_code() -> None:
    (rights,) = [t for t in tables(sections(PROTOCOL)["4"]) if "right" in t[0]]
    document = {row["right"].strip("`"): set(re.findall(r"`(\w+_REQ)`", row["needed for"])) for row in rights}
    code = {right.value: {TYPE_NAME[kind] for kind, r in RIGHT_FOR.items() if r is right} for right in Right}
    assert document == code


def test_the_constants_are_those_of_the_code() -> None:
    document = {row["constant"].strip("`"): row["value"] for row in tables(sections(PROTOCOL)["7"])[0]}
    code = {n: str(v) for n, v in vars(messages).items() if n.isupper() and isinstance(v, int | float)}
    assert document == code


def test_the_connection_file_is_described_whole() -> None:
    assert column(tables(sections(PROTOCOL)["2"])[0], "field") == list(ConnectionFile.__struct_fields__)


def test_the_policies_have_the_names_that_travel() -> None:
    meaning = {row["key"].strip("`"): row["meaning"] for row in tables(sections(PROTOCOL)["5"])[0]}
    kinds: dict[str, type[DataBlockPolicy | ConsumerSyncPolicy | ChecksumPolicy]] = {
        "policy": DataBlockPolicy,
        "consumer_sync_policy": ConsumerSyncPolicy,
        "checksum_policy": ChecksumPolicy,
    }
    for key, kind in kinds.items():
        assert meaning[key] == ", ".join(f"`{member.wire}`" for member in kind)
    places = {row["name"].strip("`"): row["meaning"] for row in tables(sections(DATABLOCK)["Identity"])[0]}
    for name, kind in {"policy": DataBlockPolicy, "sync": ConsumerSyncPolicy}.items():
        assert all(f"{member.value} {member.wire}" in places[name] for member in kind)


# -------------------------------------------------------------------------------------------------------- all of them


PAGES = [*sorted(SPEC.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "tests" / "vectors" / "README.md"]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if not anchor:
            continue
        headings = re.findall(r"^#+ (.*)$", there.read_text(), flags=re.M)
        anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in anchors, target
