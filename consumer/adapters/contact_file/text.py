"""Lines of a text file: UTF-8, of bounded length, and each with its number for whoever has to look.

Touches nothing. Raises nothing but `FatalError`: where a line does not end, or is not text, nobody knows what follows.
"""

from collections.abc import Iterable, Iterator

from consumer.errors import FatalError

MAX_RECORD_BYTES = 1_000_000
"""Longest line, and longest row of several lines: what a record of a source topic may have, too."""

BOM = b"\xef\xbb\xbf"


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file with their ends, whichever pieces it comes in; without a byte order mark.

    Raises:
        FatalError: A line is too long.
    """
    number, rest = 1, b""
    for chunk in _without_bom(chunks):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if len(line) > MAX_RECORD_BYTES:
                raise too_long(number)
            yield line + b"\n"
            number += 1
        if len(rest) > MAX_RECORD_BYTES:
            raise too_long(number)
    if rest:
        yield rest


def _without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    first = True
    for chunk in chunks:
        yield chunk.removeprefix(BOM) if first else chunk
        first = False


def text(line: bytes, number: int) -> str:
    """A line as text.

    Raises:
        FatalError: It is not UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError:
        pass
    # After the handler: the foreign error holds the line, and would travel along as the context of ours.
    raise FatalError(f"line {number:,} is not UTF-8: convert the file, for example with `iconv -t UTF-8 -f LATIN1`")


def too_long(number: int) -> FatalError:
    """The error of a row that does not end where rows end."""
    hint = "is a quotation mark not closed?"
    return FatalError(f"the row that begins at line {number:,} is longer than {MAX_RECORD_BYTES:,} bytes: {hint}")
