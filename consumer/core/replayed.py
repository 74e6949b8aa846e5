"""Which dead letters were replayed: a bit for each offset, kept in pieces that fit a compacted topic.

Answers for the keys and values of those pieces. A replay that is filtered or limited leaves letters out between those
that it takes, so an offset up to which all is done would say too little; a million letters are 128 kB here. The id of
the dead letter topic is part of each key: offsets of a topic that was made anew mean other letters. Touches nothing.
"""

from collections.abc import Mapping

PIECE_OFFSETS = 4096
"""Offsets of a piece, 512 bytes."""


class Replayed:
    """The replayed letters of one dead letter topic.

    Args:
        topic_id: What tells the topic from another one of its name.
    """

    def __init__(self, topic_id: str) -> None:
        self._topic_id = topic_id
        self._pieces: dict[tuple[int, int], bytearray] = {}
        self._changed: dict[tuple[int, int], None] = {}
        self._outdated: dict[bytes, None] = {}

    def __contains__(self, letter: tuple[int, int]) -> bool:
        """Whether the letter at this partition and offset was replayed."""
        piece, byte, bit = _place(*letter)
        found = self._pieces.get(piece)
        return found is not None and bool(found[byte] & bit)

    def add(self, partition: int, offset: int) -> None:
        """Remember a letter; `take_changes` tells of it."""
        piece, byte, bit = _place(partition, offset)
        self._pieces.setdefault(piece, bytearray(PIECE_OFFSETS // 8))[byte] |= bit
        self._changed[piece] = None

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take in what `take_changes` gave, in its order; a piece of another topic is to be removed."""
        topic_id, _, place = key.decode(errors="replace").rpartition(":")
        if value is None:
            self._outdated.pop(key, None)
        elif topic_id == self._topic_id and len(value) == PIECE_OFFSETS // 8:
            partition, _, number = place.partition("/")
            self._pieces[int(partition), int(number)] = bytearray(value)
        else:
            self._outdated[key] = None

    def forget_before(self, first_offsets: Mapping[int, int]) -> None:
        """Have the pieces removed of which the topic has no letter any more, by the first offset of each partition."""
        for piece in list(self._pieces):
            partition, number = piece
            if (number + 1) * PIECE_OFFSETS <= first_offsets.get(partition, 0):
                del self._pieces[piece]
                self._outdated[self._key(piece)] = None

    def take_changes(self) -> list[tuple[bytes, bytes | None]]:
        """Keys and values that make the topic say what this says; None removes. Later calls tell what changed since."""
        removed: list[tuple[bytes, bytes | None]] = [(key, None) for key in self._outdated]
        kept = [(self._key(piece), bytes(self._pieces[piece])) for piece in self._changed]
        self._outdated, self._changed = {}, {}
        return [*removed, *kept]

    def _key(self, piece: tuple[int, int]) -> bytes:
        partition, number = piece
        return f"{self._topic_id}:{partition}/{number}".encode()


def _place(partition: int, offset: int) -> tuple[tuple[int, int], int, int]:
    """Piece, byte in it, bit in that."""
    number, within = divmod(offset, PIECE_OFFSETS)
    return (partition, number), within // 8, 1 << within % 8
