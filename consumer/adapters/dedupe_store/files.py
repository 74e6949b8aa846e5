"""Files of the state directory: written whole or not at all, and those that name it and its pseudonyms.

Touches nothing but the paths that it is given, and in the state directory `lock`, `instance.json` and
`pseudonym.key`.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from consumer.errors import FatalError, TransientError

_KEY_BYTES = 32

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def file_errors() -> Iterator[None]:
    """What a failure of the file system becomes.

    Raises:
        TransientError: There is no space left.
        FatalError: Anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TransientError(f"no space left in the state directory: {error}") from error
        raise FatalError(f"STATE_DIR cannot be used: {error}") from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _durable_draft(directory: Path, content: bytes) -> Iterator[Path]:
    """A file of mode 0600 with this content, on disk, that becomes another's: rename or link it."""
    descriptor, name = tempfile.mkstemp(dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
        _sync_directory(directory)
    finally:
        Path(name).unlink(missing_ok=True)


def write_durably(path: Path, content: bytes) -> None:
    """Have a file hold this content, on disk, or what it held before."""
    with _durable_draft(path.parent, content) as draft:
        draft.replace(path)


def _created_once(path: Path, content: bytes) -> bytes:
    """The content of the file, which is created whole; of two processes that create it both get the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with _durable_draft(path.parent, content) as draft, contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    return path.read_bytes()


@contextlib.contextmanager
def occupied(state_dir: Path) -> Iterator[None]:
    """Keep other processes out of the state directory until the block is left: they would be the same instance.

    A file system that knows no locks keeps nobody out.

    Raises:
        TransientError: There is no space left.
        FatalError: Another process is there, or the directory cannot be used.
    """
    with file_errors():
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, state_dir)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, state_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        remedy = "stop that one, or give this one a STATE_DIR of its own"
        raise FatalError(f"STATE_DIR is used by another process: {state_dir}; {remedy}") from None
    except OSError as error:
        log.warning("state_directory_not_locked", error=str(error), remedy="see that each process has one of its own")


@file_errors()
def instance_id(state_dir: Path) -> str:
    """What names this state directory among those of the group: made once, kept in it."""
    path = state_dir / "instance.json"
    content = _created_once(path, json.dumps({"instance": str(uuid4())}).encode())
    try:
        return str(UUID(json.loads(content)["instance"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise FatalError(f"{path} is damaged: delete it, and a new one is made") from None


@file_errors()
def pseudonym_key(state_dir: Path) -> bytes:
    """Key of the pseudonyms: made at random once, kept in the state directory, readable by its owner alone.

    It is text, so that it may become the PSEUDONYM_KEY of all instances.
    """
    path = state_dir / "pseudonym.key"
    key = _created_once(path, secrets.token_hex(_KEY_BYTES).encode())
    if len(key) != 2 * _KEY_BYTES:
        raise FatalError(f"{path} is damaged: put it back, or set PSEUDONYM_KEY; a new key makes new pseudonyms")
    return key
