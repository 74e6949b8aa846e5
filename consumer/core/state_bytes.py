"""The state of a contact as bytes, as it stands in the store and in the changelog: `schemas/dedupe_state.avsc`.

Touches nothing else. The long form has an epoch and an imprint too.
"""

import struct

from consumer.errors import FatalError
from consumer.model import Flag, State

_STATE = struct.Struct(">BB32sqqqq")
_EPOCH = struct.Struct(">I")
IMPRINT_BYTES = 16
_FORMAT, _LONG_FORMAT = 2, 3
_SIZES = {_FORMAT: _STATE.size, _LONG_FORMAT: _STATE.size + _EPOCH.size + IMPRINT_BYTES}
_NO_IMPRINT = bytes(IMPRINT_BYTES)
_HAS_VERSION, _VERSIONED, _DELETED, _BLOCKED, _WITHDRAWN, _CALLABLE, _CONCURRENT, _GRANTED = 1, 2, 4, 8, 16, 32, 64, 128

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
    version = state.version or 0
    packed = _STATE.pack(format_, flags, state.fingerprint, version, state.occurred_at, state.offset, settled_ms)
    return packed if format_ == _FORMAT else packed + _EPOCH.pack(state.epoch) + (state.imprint or _NO_IMPRINT)


def decode(raw: bytes) -> State:
    """Read what `encode` wrote.

    Raises:
        FatalError: The bytes are of another format.
    """
    flags, fingerprint, version, occurred_at, offset, _ = _unpacked(raw)
    (epoch,) = _EPOCH.unpack_from(raw, _STATE.size) if raw[0] == _LONG_FORMAT else (0,)
    imprint = raw[_STATE.size + _EPOCH.size :]
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
    )


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
