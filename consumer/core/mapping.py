"""Mappings at work: the tables of `mapping_tables`, bound to what the rows of one writer's schema have.

Answers for two steps: a mapping is bound, and then rows are read (`BoundMapping.event`). Paths are looked up when a
mapping is bound, not for each row: `mapping_places` reads them, and `mapping_values` says what stands there. Touches
nothing else.

A row may hold `UNCHANGED`, for what it does not tell; then the event is partial.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

from msgspec.structs import replace

from consumer.core.mapping_places import (
    Getter,
    Resolve,
    Row,
    converted,
    getter_of,
    in_any,
    names_around,
    nothing,
    then,
    told_around,
    untold,
)
from consumer.core.mapping_tables import BY_KEY, FLAGS, REQUIRED, ContactMapping, Path, Source, as_key, shown
from consumer.core.mapping_values import as_change_type, as_identifier, as_named_by_key, as_text, as_time, as_version
from consumer.errors import DecodeError
from consumer.model import UNCHANGED, ChangeEvent, ChangeType, LogPlace, Reason, Record

When = tuple[int, int | None, LogPlace | None, str]
"""Time of a change, milliseconds since the epoch, its version, and where it stands in the source's log.

The last is what is wrong with them, without contact data, "" mostly: then the time is Kafka's.
"""


class BoundMapping:
    """A mapping that knows where rows of one schema hold what it needs.

    Args:
        mapping: What is wanted.
        resolve: Where it stands.
        loose: Rows have no schema: of several places the first counts that a row has.
        sparse: Rows tell only what changed, so constants are not told, nor is what is not mapped.
        whole: Each row tells all there is: what it has no place for, the contact does not have.
        deletes: Rows may be those of deletes, which need the external id alone, and may tell no more.

    Raises:
        DecodeError: The rows lack the external id; or the phone number or a flag, and can neither delete nor withdraw
            without it. It names all that they lack. Otherwise it is raised of each row that does neither.
    """

    def __init__(
        self,
        mapping: ContactMapping,
        resolve: Resolve,
        *,
        loose: bool = False,
        sparse: bool = False,
        whole: bool = False,
        deletes: bool = False,
    ) -> None:
        missing = nothing if whole else untold
        bind = partial(getter_of, resolve=resolve, loose=loose, sparse=sparse)
        sources = mapping.sources
        self._around = names_around([*sources.values(), *mapping.attributes.values()])
        bound = {name: bind(source) for name, source in sources.items()}
        self._lacking = _lacking(sources, bound, deletes=deletes)
        ids = sources.get("external_id", Source())
        identifier = as_named_by_key if BY_KEY in ids.paths else as_identifier
        self._external_id = self._deleted_id = then(bound.get("external_id"), identifier)
        if deletes and (loose or _tells_nothing(sources, bound)):
            self._deleted_id = then(bind(replace(ids, paths=ids.paths[:1])), identifier)
        self._beside_ids = [in_any(path) for path in _columns(sources)] if loose else []
        self._change_type = then(bound.get("change_type"), as_change_type)
        self._occurred_at = then(bound.get("occurred_at"), as_time)
        self._version = then(bound.get("version"), as_version)
        bound.setdefault("email", bind(Source()))
        flags = [bound[name] or untold for name in FLAGS]
        self._fields = [bound["phone"] or untold, bound["email"] or missing, *flags]
        self._attributes = [
            (name, converted(bind(source) or missing, as_text)) for name, source in mapping.attributes.items()
        ]
        self._only = mapping.only
        self._scope = bind(Source(mapping.only.paths)) if mapping.only else None

    def row(self, row: Row, record: Record) -> Row:
        """The row, with what stands around it if the mapping asks for that."""
        return row | {name: told_around(name, record) for name in self._around} if self._around else row

    def counts(self, row: Row) -> bool:
        """Whether the row is one of those that the mapping is for, as far as it tells."""
        value = UNCHANGED if self._scope is None else self._scope(row)
        return self._only is None or value is UNCHANGED or as_key(value) in self._only.values

    def is_told_gone(self, row: Row) -> bool:
        """Whether the row deletes and does not say whether it is one of those: a delete may come with the ids alone."""
        with suppress(DecodeError):
            silent = self._scope is not None and self._scope(row) is None
            return silent and self.change_type(row) is ChangeType.DELETE
        return False

    def external_id(self, row: Row) -> object:
        """Whom the row is about; None where the mapping does not say."""
        return None if self._external_id is None else self._external_id(row)

    def deleted_id(self, row: Row) -> object:
        """Whom the row of a delete is about; None where that is not sure.

        Of a row that may hold ids alone nobody knows which others its table has: of several places the first counts.
        """
        if any(get(row) is not None for get in self._beside_ids):
            return self.external_id(row)
        return None if self._deleted_id is None else self._deleted_id(row)

    def change_type(self, row: Row) -> ChangeType:
        """What the row says happened; an update where the mapping does not say."""
        return ChangeType.UPDATE if self._change_type is None else cast("ChangeType", self._change_type(row))

    def when(
        self, row: Row, occurred_at: int, version: int | None, log: LogPlace | None = None, flaw: str = ""
    ) -> When:
        """Time and version of the row, where the mapping names them; otherwise those given, as is the place."""
        if self._version is not None:
            try:
                version = cast("int | None", self._version(row))
            except DecodeError as error:
                return occurred_at, None, log, error.detail
        if self._occurred_at is not None:
            try:
                told = cast("int | None", self._occurred_at(row))
            except DecodeError as error:
                return occurred_at, version, log, error.detail
            occurred_at = occurred_at if told is None else told
        return occurred_at, version, log, flaw

    def when_gone(self, when: When) -> When:
        """Time and version of a delete whose row tells no column: no position stands beside versions of the mapping."""
        occurred_at, version, log, flaw = when
        return occurred_at, version if self._version is None else None, log, flaw

    def event(self, change_type: ChangeType, external_id: object, row: Row, when: When) -> ChangeEvent | None:
        """The change event of a row; None when it tells nothing of what is mapped.

        A create tells all there is: what it does not tell, the contact does not have. An attribute that is no text is a
        flaw of the event, and not its end, as is what is wrong with its time: the flags are told all the same.

        Raises:
            DecodeError: Rows lack the phone number or a flag, and this one does not withdraw.
        """
        if self._lacking:
            return self.withdrawal(change_type, external_id, row, when, self._lacking)
        phone, email, consent, do_not_call = fields = [get(row) for get in self._fields]
        try:
            attributes = {name: get(row) for name, get in self._attributes}
        except DecodeError as error:
            return _flawed(change_type, external_id, when, fields, error.detail)
        if (
            phone is UNCHANGED
            or email is UNCHANGED
            or consent is UNCHANGED
            or do_not_call is UNCHANGED
            or UNCHANGED in attributes.values()
        ):
            return (_whole if change_type is ChangeType.CREATE else _partial)(
                change_type, external_id, when, fields, attributes
            )
        occurred_at, version, log, flaw = when
        told = cast("dict[str, str]", attributes)
        return ChangeEvent(
            change_type, external_id, occurred_at, version, phone, email, consent, do_not_call, told, log=log, flaw=flaw
        )

    def withdrawal(
        self, change_type: ChangeType, external_id: object, row: Row, when: When, error: DecodeError
    ) -> ChangeEvent:
        """What a row that cannot be carried out withdraws all the same: the error is the flaw of the event.

        Raises:
            DecodeError: That error, where each flag that the row tells lets the person be called.
        """
        *_, consent, do_not_call = fields = [get(row) for get in self._fields]
        if (consent is True or consent is UNCHANGED) and (do_not_call is False or do_not_call is UNCHANGED):
            raise error.with_traceback(None)
        return _flawed(change_type, external_id, when, fields, error.detail)


_Fields = Sequence[object]
"""Phone, e-mail, consent and do-not-call."""

_NOTHING: _Fields = (None, None, None, None)


def _whole(
    change_type: ChangeType, external_id: object, when: When, fields: _Fields, attributes: dict[str, object]
) -> ChangeEvent:
    texts = {name: cast("str", _told(value) or "") for name, value in attributes.items()}
    return _made(change_type, external_id, when, [_told(value) for value in fields], texts)


def _told(value: object) -> object:
    return None if value is UNCHANGED else value


def _flawed(change_type: ChangeType, external_id: object, when: When, fields: _Fields, flaw: str) -> ChangeEvent:
    return replace(_made(change_type, external_id, when, fields, {}, partial=UNCHANGED in fields), flaw=flaw)


def _partial(
    change_type: ChangeType, external_id: object, when: When, fields: _Fields, attributes: dict[str, object]
) -> ChangeEvent | None:
    told = {name: cast("str", value) for name, value in attributes.items() if value is not UNCHANGED}
    if not told and all(value is UNCHANGED for value in fields):
        return None
    return _made(change_type, external_id, when, fields, told, partial=True)


def _made(
    change_type: ChangeType,
    external_id: object,
    when: When,
    fields: _Fields,
    attributes: dict[str, str],
    *,
    partial: bool = False,
) -> ChangeEvent:
    occurred_at, version, log, flaw = when
    phone, email, consent, do_not_call = fields
    return ChangeEvent(
        *(change_type, external_id, occurred_at, version, phone, email, consent, do_not_call, attributes),
        *(partial, log, None, flaw),
    )


def deletion(external_id: object, when: When) -> ChangeEvent:
    """The change event of a contact that is gone; where it is not told when, it may be there again."""
    if when[-1]:
        return gap(external_id, when)
    return _made(ChangeType.DELETE, external_id, when, _NOTHING, {})


def gap(external_id: object, when: When) -> ChangeEvent:
    """The change event of a contact that changed nobody knows how: no consent, and not known whether not to call."""
    fields = (UNCHANGED, UNCHANGED, False, None)
    return _made(ChangeType.GAP, external_id, when, fields, {}, partial=True)


def unknown(detail: str) -> DecodeError:
    """The error of every record of a schema that is not one of change events."""
    return DecodeError((Reason.ENVELOPE_UNKNOWN,), detail)


def lacks(sources: Mapping[str, Source], names: Sequence[str]) -> str:
    """What is wrong with a schema that has none of the places of these fields."""
    named = ", ".join(f"{name} ({shown(sources[name].paths)})" for name in names)
    return f"the schema has none of the fields that SOURCE_MAPPING names for {named}"


def _lacking(sources: Mapping[str, Source], bound: Mapping[str, Getter | None], *, deletes: bool) -> DecodeError | None:
    """The error of rows that lack what a contact needs and do not withdraw; None where they lack nothing.

    Raises:
        DecodeError: That error, where none of the rows can name anybody, or none can delete or withdraw.
    """
    names = [name for name in ("external_id", *REQUIRED) if name in bound and bound[name] is None]
    if not names:
        return None
    error = unknown(lacks(sources, names))
    withdraws = any(sources[name].paths and bound[name] for name in FLAGS)
    if "external_id" in names or not (deletes or withdraws or bound.get("change_type")):
        raise error
    return error


def _tells_nothing(sources: Mapping[str, Source], bound: Mapping[str, Getter | None]) -> bool:
    """Whether rows have no place at all for what is read from rows of a contact."""
    needed = [bound[name] for name in REQUIRED if sources[name].paths]
    return bool(needed) and not any(needed)


def _columns(sources: Mapping[str, Source]) -> list[Path]:
    """Where rows hold what is read from rows of a contact."""
    return [path for name in REQUIRED for path in sources[name].paths if not path[0].startswith("@")]
