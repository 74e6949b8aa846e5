"""The state of a contact as bytes, as it stands in the store and in the changelog: `schemas/dedupe_state.avsc`.

Touches nothing else. The long form has an epoch and an imprint too, the longest also the places of flags.
"""

import struct

from consumer.errors import FatalError
from consumer.model import Flag, Place, State

_STATE = struct.Struct(">BB32sqqqq")
_EPOCH = struct.Struct(">I")
_PLACE = struct.Struct(">BqqqI")
IMPRINT_BYTES = 16
_FORMAT, _LONG_FORMAT, _LONGEST_FORMAT = 2, 3, 4
_LONG_SIZE = _STATE.size + _EPOCH.size + IMPRINT_BYTES
_SIZES = {_FORMAT: _STATE.size, _LONG_FORMAT: _LONG_SIZE, _LONGEST_FORMAT: _LONG_SIZE + 2 * _PLACE.size}
_NO_IMPRINT = bytes(IMPRINT_BYTES)
_HAS_VERSION, _VERSIONED, _DELETED, _BLOCKED, _WITHDRAWN, _CALLABLE, _CONCURRENT, _GRANTED = 1, 2, 4, 8, 16, 32, 64, 128
_IS_PLACE = 128
_NO_PLACE = bytes(_PLACE.size)

_WHETHER_CALLABLE: dict[tuple[bool | None, Flag | None], int] = {
    (None, None): 0,
    (True, None): _CALLABLE,
    (False, None): _WITHDRAWN,
    (False, Flag.DO_NOT_CALL): _WITHDRAWN | _GRANTED,
    (False, Flag.CONSENT): _GRANTED,  # who reads it without knowing of it does not know whether the contact is callable
}
_OF_FLAGS = {flags: known for known, flags in _WHETHER_CALLABLE.items()}


def encode(state: State, settled_ms: int) -> bytes:
    """The state as it stands in the store and in the changelog, with the time at which it was settled."""
    flags = (state.version is not None) * _HAS_VERSION | state.versioned * _VERSIONED
    flags |= state.deleted * _DELETED | state.blocked * _BLOCKED
    flags |= state.concurrent * _CONCURRENT | _WHETHER_CALLABLE[state.callable, state.granted]
    format_ = _LONG_FORMAT if state.epoch or state.imprint else _FORMAT
    if state.consent_at or state.do_not_call_at:
        format_ = _LONGEST_FORMAT
    version = state.version or 0
    packed = _STATE.pack(format_, flags, state.fingerprint, version, state.occurred_at, state.offset, settled_ms)
    if format_ == _FORMAT:
        return packed
    packed += _EPOCH.pack(state.epoch) + (state.imprint or _NO_IMPRINT)
    if format_ == _LONG_FORMAT:
        return packed
    return packed + _encoded_place(state.consent_at) + _encoded_place(state.do_not_call_at)


def _encoded_place(place: Place | None) -> bytes:
    if place is None:
        return _NO_PLACE
    flags = _IS_PLACE | (place.version is not None) * _HAS_VERSION
    flags |= place.versioned * _VERSIONED | place.concurrent * _CONCURRENT
    return _PLACE.pack(flags, place.version or 0, place.occurred_at, place.offset, place.epoch)


def decode(raw: bytes) -> State:
    """Read what `encode` wrote.

    Raises:
        FatalError: The bytes are of another format.
    """
    flags, fingerprint, version, occurred_at, offset, _ = _unpacked(raw)
    (epoch,) = _EPOCH.unpack_from(raw, _STATE.size) if raw[0] != _FORMAT else (0,)
    imprint = raw[_STATE.size + _EPOCH.size : _LONG_SIZE]
    consent_at, do_not_call_at = _decoded_places(raw) if raw[0] == _LONGEST_FORMAT else (None, None)
    callable_, granted = _OF_FLAGS.get(flags & (_WITHDRAWN | _CALLABLE | _GRANTED), (None, None))
    return State(
        fingerprint,
        version if flags & _HAS_VERSION else None,
        bool(flags & _VERSIONED),
        occurred_at,
        offset,
        bool(flags & _DELETED),
        bool(flags & _BLOCKED),
        epoch,
        callable_,
        imprint if imprint != _NO_IMPRINT else b"",
        bool(flags & _CONCURRENT),
        granted,
        consent_at,
        do_not_call_at,
    )


def _decoded_places(raw: bytes) -> list[Place | None]:
    return [
        Place(
            version if flags & _HAS_VERSION else None,
            bool(flags & _VERSIONED),
            occurred_at,
            offset,
            epoch,
            bool(flags & _CONCURRENT),
        )
        if flags
        else None
        for flags, version, occurred_at, offset, epoch in _PLACE.iter_unpack(raw[_LONG_SIZE:])
    ]


def settled_ms(raw: bytes) -> int:
    """When the state in these bytes was settled, milliseconds since the epoch, UTC.

    Raises:
        FatalError: The bytes are of another format.
    """
    return _unpacked(raw)[-1]


def _unpacked(raw: bytes) -> tuple[int, bytes, int, int, int, int]:
    """Flags, fingerprint, version, time, offset, time of settling."""
    if not raw or len(raw) != _SIZES.get(raw[0]):
        raise FatalError(f"dedupe state of an unknown format ({len(raw)} bytes), as a newer program may write it")
    _, flags, fingerprint, version, occurred_at, offset, settled = _STATE.unpack_from(raw)
    return flags, fingerprint, version, occurred_at, offset, settled
