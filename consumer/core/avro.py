"""Reads Avro with the writer's schema, and refuses what could hurt.

Answers for what bytes of a record may ask for: they are input from outside, and fastavro trusts them too. It wraps
integers that do not fit, and raises whatever its C code meets; all that is wrong with the bytes is a `DecodeError` that
quotes nothing of them. What the schema may be is told in `avro_schema`. No reader's schema is used: there are no
defaults that records could share. Touches nothing else.
"""

import io
from typing import cast

from fastavro import schemaless_reader
from fastavro._read_py import read_data
from fastavro.io.binary_decoder import BinaryDecoder
from fastavro.types import AvroMessage, DictSchema

from consumer.core.avro_schema import hardened, loaded, readable_bytes
from consumer.errors import undecodable

_VARINT_BYTES = 10
_MORE_FOLLOWS = 0x80
_LONG_RUN = b"\x80" * (_VARINT_BYTES - 1)
"""The shortest run of bytes with the high bit set that an integer of more than 64 bits can begin with."""

_HIGH_BITS = bytes(128) + b"\x80" * 128

_MAX_STRICT_INTEGERS = 100_000
"""Integers that are read in Python, lengths and indexes among them, which takes a microsecond each."""


class WriterSchema:
    """A writer's schema, ready to read what was written with it.

    Records are read with this schema alone, and logical types are left as the integers and bytes that carry them.

    Args:
        text: The schema as JSON.

    Attributes:
        definition: The schema as the writer published it, if `parsable` leaves it so.

    Raises:
        DecodeError: It is not an Avro schema of a record, or reading with it could hurt.
    """

    def __init__(self, text: str) -> None:
        self.definition = loaded(text)
        schema = hardened(self.definition)
        self._schema = cast("DictSchema", schema) | {"__fastavro_parsed": True, "__named_schemas": {}}
        self._max_bytes = readable_bytes(schema)

    def read(self, payload: bytes) -> dict[str, object]:
        """The fields of the record, which must take up the whole payload.

        Raises:
            DecodeError: The payload was not written with this schema.
        """
        if len(payload) > self._max_bytes:
            raise undecodable(
                f"{len(payload):,} bytes could take up too much memory: {self._max_bytes:,} are read at most"
            )
        stream = io.BytesIO(payload)
        try:
            if _has_long_run(payload):
                fields = self._read_strictly(stream)
            else:
                fields = schemaless_reader(stream, self._schema, None)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # fastavro raises what its C code happens to meet
            cause = type(error).__name__
        else:
            if stream.tell() != len(payload):
                raise undecodable(f"{len(payload) - stream.tell():,} bytes follow the record")
            return cast("dict[str, object]", fields)
        # Not inside the handler: the foreign error quotes the data, and would travel along as the context of ours.
        raise undecodable(f"the body does not fit its schema: {cause}")

    def read_each(self, block: bytes, count: int) -> list[dict[str, object]]:
        """The fields of so many records, which must take up the whole block.

        Raises:
            DecodeError: The block does not hold them.
        """
        if count > len(block):  # records without a width could be asked for by the billion
            raise undecodable(f"{count:,} records cannot be in a block of {len(block):,} bytes")
        stream = io.BytesIO(block)
        strictly = _has_long_run(block)
        records: list[dict[str, object]] = []
        try:
            for _ in range(count):
                read = self._read_strictly(stream) if strictly else schemaless_reader(stream, self._schema, None)
                records.append(cast("dict[str, object]", read))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            cause = type(error).__name__
        else:
            if stream.tell() == len(block):
                return records
            cause = "bytes are left over"
        raise undecodable(f"record {len(records) + 1:,} of a block does not fit its schema: {cause}")

    def _read_strictly(self, stream: io.BytesIO) -> AvroMessage:
        """As the library reads in C, at three times the cost, for what might hold an integer of more than 64 bits."""
        decoder = _BoundedDecoder(stream)  # type: ignore[no-untyped-call]
        return cast("AvroMessage", read_data(decoder, self._schema, {}))  # type: ignore[no-untyped-call]


class _BoundedDecoder(BinaryDecoder):
    """fastavro's decoder in Python, with integers that neither wrap, as those of the one in C, nor grow for ever."""

    integers = 0

    def read_long(self) -> int:  # type: ignore[explicit-override]  # typing.override is of Python 3.12
        self.integers += 1
        if self.integers > _MAX_STRICT_INTEGERS:
            raise OverflowError
        number = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte: int = self.fo.read(1)[0]
            number |= (byte & ~_MORE_FOLLOWS) << shift
            if byte < _MORE_FOLLOWS:
                if number >> 64:
                    break
                return (number >> 1) ^ -(number & 1)
        raise OverflowError

    read_int = read_long


def _has_long_run(payload: bytes) -> bool:
    """Whether as many bytes with the high bit set follow each other as in an integer that does not fit 64 bits.

    Such a run cannot slip through a grid as narrow as itself, and most payloads end there.
    """
    grid = payload[len(_LONG_RUN) - 1 :: len(_LONG_RUN)]
    return not grid.isascii() and _LONG_RUN in payload.translate(_HIGH_BITS)
