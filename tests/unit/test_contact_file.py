"""Files of contacts: three formats, what is refused and with which words, and that a file must stay as it is."""

import errno
import os
import re
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest

from consumer.adapters.contact_file import text
from consumer.adapters.contact_file.avro_rows import MAX_BLOCK_BYTES
from consumer.adapters.contact_file.opened import CHUNK_ROWS, ContactFile
from consumer.errors import FatalError
from consumer.model import FileRow

HEADER = "externalId,phone,email,consent,doNotCall,segment\n"
COLUMNS = [("segment", "segment")]


def file(tmp_path: Path, content: bytes | str) -> ContactFile:
    """A file with this content."""
    path = tmp_path / "contacts"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ContactFile(path, COLUMNS)


def rows(tmp_path: Path, content: bytes | str) -> list[FileRow]:
    """All its rows."""
    return [row for chunk in file(tmp_path, content).chunks() for row in chunk]


def refusal(tmp_path: Path, content: bytes | str) -> str:
    """What is said of a file that cannot be loaded."""
    with pytest.raises(FatalError) as caught:
        rows(tmp_path, content)
    return str(caught.value)


def test_names_that_nothing_is_made_of_are_told(tmp_path: Path) -> None:
    """In whichever of the first rows they are; values under them count for nothing, and nobody would notice."""
    csv = file(tmp_path, HEADER.strip() + ",loyalty\na,+15550100,,true,false,gold,7\n")
    json = file(
        tmp_path,
        b"""{"externalId": "a", "phone": null, "consent": true, "doNotCall": false, "segment": "gold"}
{"externalId": "b", "consent": true, "doNotCall": false, "tier": 1, "occurred_at": 1, "attributes": {"x": "y"}}""",
    )
    assert (csv.left_out, json.left_out) == (["loyalty"], ["tier"])


@pytest.mark.parametrize(
    ("names", "emptied"),
    [("externalId,phone,consent,doNotCall", ["email", "segment"]), (HEADER.strip(), [])],
)
def test_what_known_contacts_would_lose_is_told(tmp_path: Path, names: str, emptied: list[str]) -> None:
    """By the names that the file lacks; empty values are the file's own word."""
    values = {"externalId": "a", "consent": "true", "doNotCall": "false"}
    row = ",".join(values.get(name, "") for name in names.split(","))
    assert file(tmp_path, f"{names}\n{row}\n").emptied == emptied


@pytest.mark.parametrize("content", ['[{"externalId": "a"}]', '\ufeff[\n  {"externalId": "a"}\n]', "[ ]"])
def test_an_array_of_objects_is_told_from_csv(tmp_path: Path, content: str) -> None:
    """With what is wanted."""
    assert "is an array in JSON: put each object on a line of its own" in refusal(tmp_path, content)


def test_json_rows_that_all_lack_a_phone_end_it(tmp_path: Path) -> None:
    """It probably has another name. One that says so may leave it out, and who is deleted needs none."""
    row = b'{"externalId": "a", "mobile": "+15550100", "consent": true, "doNotCall": false}\n'
    assert "none of the first rows" in refusal(tmp_path, row)
    assert len(rows(tmp_path, row + b'{"externalId": "b", "phone": null}\n')) == 2
    assert len(rows(tmp_path, b'{"externalId": "a", "changeType": "DELETE"}\n')) == 1


# -- CSV


def test_csv_values_have_the_types_of_their_fields(tmp_path: Path) -> None:
    """Quotation marks, commas and line breaks within them, empty lines, and no line break at the end."""
    found = rows(tmp_path, HEADER + 'a,+15550100,,true,false,"a ""b"", c\nd"\n\n\r\nb,,b@example.org,FALSE,,')
    names = HEADER.strip().split(",")
    assert [row.number for row in found] == [1, 2]
    assert [[row.fields[name] for name in names] for row in found] == [
        ["a", "+15550100", None, True, False, 'a "b", c\nd'],
        ["b", None, "b@example.org", False, None, None],
    ]
    assert found[0].raw == b'a,+15550100,,true,false,"a ""b"", c\nd"'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path, bom: str, end: str) -> None:
    """As spreadsheets write them; text of any script."""
    (row,) = rows(tmp_path, (bom + HEADER + "Zoë,+15550100,,true,false,日本\n").replace("\n", end))
    assert (row.fields["externalId"], row.fields["segment"]) == ("Zoë", "日本")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a,b,c", "the row has 3 values, the header has 6"),
        ('a,"b"c,,true,false,', "the row is not CSV"),
        ('a,"b"c,,"true,false,', "the row is not CSV"),
    ],
    ids=["width", "quotation marks", "an odd number of quotation marks"],
)
def test_a_bad_line_is_a_row_with_a_problem(tmp_path: Path, line: str, problem: str) -> None:
    """The rows around it are read."""
    before, bad, after = rows(tmp_path, f"{HEADER}x,,,true,false,\n{line}\ny,,,true,false,\n")
    assert (before.problem, after.problem) == ("", "")
    assert bad.problem.startswith(problem)
    assert bad.fields == {}
    assert bad.raw == line.encode()


def test_a_quotation_mark_within_a_value_is_taken_as_it_is(tmp_path: Path) -> None:
    """Quoting begins where a value does: the rows around it stay rows of their own."""
    found = rows(tmp_path, HEADER + 'a,,,true,false,5" pipe\nb,,,false,false,\nc,,,true,false,6"\n')
    assert [(row.fields["externalId"], row.fields["segment"], row.problem) for row in found] == [
        ("a", '5" pipe', ""),
        ("b", None, ""),
        ("c", '6"', ""),
    ]


def test_a_long_value_does_not_break_its_row(tmp_path: Path) -> None:
    """Longer than the parser takes by itself: the line that ends it is no row."""
    found = rows(tmp_path, f'{HEADER}a,,,true,false,"{"x" * 140_000}\n"\nb,,,false,false,\n')
    assert [(row.fields["externalId"], row.problem) for row in found] == [("a", ""), ("b", "")]
    assert found[0].fields["segment"] == "x" * 140_000 + "\n"


@pytest.mark.parametrize(
    "bad",
    [
        'b,"+15550100,,true,false,\nc,,,false,false,\nd,"+15550101",,true,false,\n',
        'b,"+15550100,,true,false,\nc,,,false,false,\nd,,,true,false,6"\n',
        'b,"+15550100,,true,false,\nc,,,false,false,\n',
        'b,,,true,false,"x',
    ],
    ids=["closed in another row", "another width", "never", "never, in the last line"],
)
def test_a_row_of_several_lines_that_is_no_row_ends_it(tmp_path: Path, bad: str) -> None:
    """Rows that say who withdrew may be in it; the line on which it begins is named, and what to do."""
    says = refusal(tmp_path, HEADER + "a,,,true,false,\n" + bad)
    assert "where the row ends that begins at line 3 cannot be told: close the quotation mark" in says


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("externalId,phone\n", "lacks consent, doNotCall"),
        ("name;phone;consent\n", "lacks externalId, consent, doNotCall"),
        ("externalId,external_id,phone,consent,doNotCall\n", "more than one column for externalId"),
        ("externalId,phone,consent,doNotCall,Anna,Anna\n", "more than one column for the name in place 5"),
        ("externalId,consent,doNotCall,Phone\n", "'Phone' (is it phone?)"),
        ("externalId,consent,doNotCall,occurred at\n", "'occurred at' (is it occurredAt?)"),
        ("externalId,consent,doNotCall,Segment\n", "'Segment' (is it segment?)"),
        ("externalId,mobile,consent,doNotCall\n", "lacks phone"),
        ('externalId,"consent\n', "no CSV header"),
        (",".join(["x"] * 1_001) + "\n", "1,001 columns"),
    ],
)
def test_a_header_that_no_row_could_fit_ends_it(tmp_path: Path, header: str, says: str) -> None:
    """Otherwise every row would be rejected for the same reason. It is told when the file is opened."""
    with pytest.raises(FatalError) as caught:
        file(tmp_path, header)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("4711,+4930123456,+4930123456,true,false\n", "lacks externalId, consent, doNotCall, phone"),
        (
            "externalId,phone,consent,doNotCall,4711,+4930123456,true,FALSE,+4930123456\n",
            "values instead of names in column 6, 7, 8, 9: if a row",
        ),
        ("externalId,phone,consent,doNotCall,4711,,ada@example.org\n", "values instead of names in column 7"),
        ('externalId,phone,consent,doNotCall,"note\n4711,+49 30/123 456,x"\n', "values instead of names in column 5"),
        ('externalId,phone,consent,doNotCall,"note\n4711,,,false,true"\n', "values instead of names in column 5"),
    ],
    ids=["no header", "a row behind it", "a row of an address", "a row in a name", "a row of flags"],
)
def test_a_row_in_place_of_names_is_not_repeated(tmp_path: Path, line: str, says: str) -> None:
    """What ends the program is on standard error, and Kubernetes keeps it: no place for a number or an address."""
    with pytest.raises(FatalError) as caught:
        file(tmp_path, line)
    assert says in str(caught.value)
    assert not re.search(r"4711|30.?123|example", str(caught.value))


def test_names_that_are_no_values_are_taken(tmp_path: Path) -> None:
    """Whatever else a table has them for."""
    names = ["cost_center_1002003", "2nd phone", "@id", "true positive", "Straße/Nr.", ""]
    names += ["state@OData.Community.Display.V1.FormattedValue", "2026-01-31", "order 12345678", "Score (1234567)"]
    commas = "," * (3 + len(names))
    assert file(tmp_path, f"externalId,phone,consent,doNotCall,{','.join(names)}\n{commas}\n").left_out == names


# -- JSON objects


def test_a_value_as_a_name_is_not_told(tmp_path: Path) -> None:
    """Those that nothing is made of are logged."""
    row = b'{"externalId": "a", "phone": null, "consent": true, "doNotCall": false, "tier": 1, "+4930123456": true}'
    assert file(tmp_path, row).left_out == ["tier"]


def test_json_objects_one_a_line(tmp_path: Path) -> None:
    """As they are; empty lines are none, and what is no object is a row with a problem."""
    good = b'{"externalId": "a", "phone": null, "attributes": {"segment": "x"}, "version": 3}'
    found = rows(tmp_path, good + b'\r\n\n[1]\n{"externalId": \n' + good)
    assert [(row.number, row.problem) for row in found] == [
        (1, ""),
        (2, "line 3 is JSON, but no object"),
        (3, "line 4 is no JSON"),
        (4, ""),
    ]
    assert found[0].fields == orjson.loads(good)
    assert found[0].raw == good


# -- text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (HEADER.encode() + b"a,,,true,false,\n" + b"Zo\xeb,,,true,false,\n", "line 3 is not UTF-8: convert the file"),
        (b'{"externalId": "a"}\n{"externalId": "Zo\xeb"}\n', "line 2 is not UTF-8"),
        (HEADER.encode("utf-16"), "UTF-16, not UTF-8"),
        (b"\x1f\x8b\x08\x00", "packed with gzip"),
        (b"PK\x03\x04....", "a ZIP archive or a spreadsheet"),
        (b"", "is empty"),
    ],
)
def test_what_is_not_utf_8_text_ends_it_with_the_remedy(tmp_path: Path, content: bytes, says: str) -> None:
    """And with the number of the line."""
    assert says in refusal(tmp_path, content)


def test_a_quotation_mark_that_is_never_closed_does_not_swallow_the_file(tmp_path: Path) -> None:
    """It ends where a record of a topic would, and names the line on which the row begins."""
    content = HEADER + "a,,,true,false,\n" + 'b,"+15550100,,true,false,\n' + "c,,,true,false,\n" * 100_000
    assert "the row that begins at line 3 is longer than 1,000,000 bytes" in refusal(tmp_path, content)


def test_a_line_that_does_not_end_is_not_read_into_memory(tmp_path: Path) -> None:
    """Also without a quotation mark."""
    assert "line 1 is longer" in refusal(tmp_path, b'{"externalId": "' + b"a" * 1_100_000)


def test_lines_do_not_depend_on_how_they_come() -> None:
    """Cut anywhere."""
    content = b"\xef\xbb\xbfone\r\ntwo\n\nthree"
    for size in range(3, 30):
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        assert list(text.lines(pieces)) == [b"one\r\n", b"two\n", b"\n", b"three"]


# -- Avro containers


DEFINITION = {
    "type": "record",
    "name": "Contact",
    "fields": [
        {"name": "externalId", "type": "string"},
        {"name": "phone", "type": ["null", "string"]},
        {"name": "consent", "type": ["null", "boolean"]},
        {"name": "doNotCall", "type": "boolean"},
        {"name": "occurredAt", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "attributes", "type": {"type": "map", "values": "string"}},
    ],
}
CONTACTS: list[dict[str, Any]] = [
    {"externalId": f"c{n}", "phone": None, "consent": n % 2 == 0, "doNotCall": False, "occurredAt": n, "attributes": {}}
    for n in range(1_200)
]


def container(contacts: list[Any], codec: str = "null", **more: Any) -> bytes:
    """An Avro container file."""
    out = BytesIO()
    fastavro.writer(out, fastavro.parse_schema(DEFINITION), contacts, codec=codec, **more)
    return out.getvalue()


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_an_avro_container_gives_what_was_written(tmp_path: Path, codec: str) -> None:
    """Block by block, with times as milliseconds."""
    found = rows(tmp_path, container(CONTACTS, codec=codec, sync_interval=1_000))
    assert [row.fields for row in found] == CONTACTS
    assert [row.number for row in found] == list(range(1, 1_201))
    assert orjson.loads(found[7].raw) == CONTACTS[7]


def _with_another_end(whole: bytes) -> bytes:
    """The last byte of the marker, which is random, is another."""
    return whole[:-1] + bytes([whole[-1] ^ 1])


def _with_meta(codec: bytes = b"null", schema: bytes = b"{}", blocks: bytes = b"") -> bytes:
    def part(value: bytes) -> bytes:
        return _long(len(value)) + value

    meta = _long(2) + part(b"avro.codec") + part(codec) + part(b"avro.schema") + part(schema) + _long(0)
    return b"Obj\x01" + meta + b"s" * 16 + blocks


def _long(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


REAL = orjson.dumps(DEFINITION)
BOMB = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
PACKED = BOMB.compress(bytes(MAX_BLOCK_BYTES + 1)) + BOMB.flush()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_with_meta(b"snappy", REAL), "only null and deflate"),
        (_with_meta(schema=b"{}"), "no schema that can be read"),
        (_with_meta(schema=b'{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}'), "no schema"),
        (_with_meta(schema=b'{"type":"record","name":"R","fields":[]}'), "lacks externalId"),
        (_with_meta(schema=REAL.replace(b'"phone"', b'"Phone"')), "'Phone' (is it phone?)"),
        (_with_meta(schema=REAL.replace(b'"phone"', b'"mobile"')), "lacks phone"),
        (_with_meta(b"deflate", REAL, _long(1) + _long(len(PACKED)) + PACKED + b"s" * 16), "larger than"),
        (_with_meta(b"deflate", REAL, _long(1) + _long(3) + b"\xff" * 3 + b"s" * 16), "cannot be unpacked"),
        (_with_meta(schema=REAL, blocks=_long(2**40) + _long(1) + b"x" + b"s" * 16), "cannot be in a block"),
        (_with_meta(schema=REAL, blocks=_long(1) + _long(2**40)), "a part has more than"),
        (_with_meta(schema=REAL, blocks=_long(1) + _long(-1)), "a part has more than"),
        (_with_meta(schema=REAL, blocks=_long(1) + _long(2) + b"\x00\x00" + b"s" * 16), "record 1 of a block"),
        (_with_meta(schema=REAL, blocks=b"\xff" * 11), "a number is too long"),
        (container(CONTACTS)[:-40], "it is cut off"),
        (_with_another_end(container(CONTACTS)), "does not end where it should"),
        (b"Obj\x01" + _long(10**6), "its head is too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_container_that_is_damaged_or_harmful_ends_it(tmp_path: Path, content: bytes, says: str) -> None:
    """Before anything large is read or unpacked."""
    assert says in refusal(tmp_path, content)


# -- the same each time


def test_chunks_are_the_same_each_time(tmp_path: Path) -> None:
    """Full ones, and a rest."""
    opened = file(tmp_path, HEADER + "a,,,true,false,\n" * (2 * CHUNK_ROWS + 1))
    first, second = list(opened.chunks()), list(opened.chunks())
    assert [len(chunk) for chunk in first] == [CHUNK_ROWS, CHUNK_ROWS, 1]
    assert first == second


def test_a_file_that_changed_ends_it(tmp_path: Path) -> None:
    """Another size or time is noticed before it is read."""
    opened = file(tmp_path, HEADER + "a,,,true,false,\n")
    with (tmp_path / "contacts").open("a") as writer:
        writer.write("b,,,true,false,\n")
    with pytest.raises(FatalError, match="was changed meanwhile"):
        list(opened.chunks())


def test_a_file_that_changed_in_secret_does_not_give_its_last_rows(tmp_path: Path) -> None:
    """Same size, same time, other content: what was sent of it stays incomplete."""
    opened = file(tmp_path, HEADER + "a,,,true,false,\n")
    path = tmp_path / "contacts"
    before = path.stat()
    path.write_text(HEADER + "b,,,true,false,\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found: list[list[FileRow]] = []
    with pytest.raises(FatalError, match="was changed meanwhile"):
        found += opened.chunks()
    assert found == []


def test_a_file_that_cannot_be_read_any_more_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed, or on a disk that fails half way: no outage of anybody else."""
    opened = file(tmp_path, HEADER + "a,,,true,false,\n")
    with monkeypatch.context() as patched:
        patched.setattr("consumer.adapters.contact_file.opened.csv_rows", _fails)
        with pytest.raises(FatalError, match="contacts cannot be read: Input/output error"):
            list(opened.chunks())
    (tmp_path / "contacts").unlink()
    with pytest.raises(FatalError, match="contacts cannot be read: No such file"):
        list(opened.chunks())


def _fails(*_: object) -> Iterator[FileRow]:
    yield FileRow(1, b"", {})
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe would be read only once; a file that is not there has its own words."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FatalError, match="cannot be a pipe"):
        ContactFile(tmp_path / "pipe", COLUMNS)
    with pytest.raises(FatalError, match="cannot be read: No such file"):
        ContactFile(tmp_path / "missing", COLUMNS)
