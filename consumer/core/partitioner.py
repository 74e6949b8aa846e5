"""Which partition a key belongs to, as producers decide it; and by which of their ways a topic was filled.

Answers for the three hashes in use: murmur2 (the Java client, so Kafka Connect and Debezium), crc32 (librdkafka's
`consistent`, `consistent_random`) and fnv1a (librdkafka's `fnv1a`, Sarama). Touches nothing.
"""

import zlib
from collections.abc import Callable, Iterable

Partitioner = Callable[[bytes, int], int]
"""Key and number of partitions to the partition."""

_32_BITS = 0xFFFF_FFFF
_31_BITS = 0x7FFF_FFFF
_SIGN = 0x8000_0000
_MURMUR_SEED = 0x9747B28C
_MURMUR_FACTOR = 0x5BD1E995
_MURMUR_SHIFT = 24
_FNV_OFFSET = 0x811C9DC5
_FNV_PRIME = 0x01000193


def _murmur2(key: bytes, partitions: int) -> int:
    factor = _MURMUR_FACTOR
    hashed = _MURMUR_SEED ^ len(key)
    whole = len(key) & ~3
    for place in range(0, whole, 4):
        word = int.from_bytes(key[place : place + 4], "little") * factor & _32_BITS
        word = (word ^ word >> _MURMUR_SHIFT) * factor & _32_BITS
        hashed = (hashed * factor & _32_BITS) ^ word
    if whole < len(key):
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * factor & _32_BITS
    hashed = (hashed ^ hashed >> 13) * factor & _32_BITS
    return ((hashed ^ hashed >> 15) & _31_BITS) % partitions


def _crc32(key: bytes, partitions: int) -> int:
    return zlib.crc32(key) % partitions


def _fnv1a(key: bytes, partitions: int) -> int:
    hashed = _FNV_OFFSET
    for byte in key:
        hashed = (hashed ^ byte) * _FNV_PRIME & _32_BITS
    return (hashed if hashed < _SIGN else (1 << 32) - hashed) % partitions  # its absolute value as a signed number


PARTITIONERS: dict[str, Partitioner] = {"murmur2": _murmur2, "crc32": _crc32, "fnv1a": _fnv1a}
"""By the name that `--partitioner` takes."""


def fitting(samples: Iterable[tuple[bytes, int]], partitions: int) -> list[str]:
    """The partitioners that put every sample where it was found.

    Args:
        samples: Keys with the partitions in which they stand.
        partitions: Of the topic.
    """
    left = dict(PARTITIONERS)
    for key, partition in samples:
        left = {name: of for name, of in left.items() if of(key, partitions) == partition}
    return list(left)
