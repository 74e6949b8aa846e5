"""Answers for what a list may be: the properties that a client sets of one, and keeps. Touches nothing."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from consumer.simulator.errors import ApiError, invalid_property, invalid_value

NAME_LENGTH_MAX = 64
COLUMNS_MAX = 50
COLUMN_LENGTH_MAX = 128
PHONE_COLUMNS_MAX = 10

Definition = dict[str, Any]

_READ_ONLY_FIELDS = frozenset({"id", "dateCreated", "dateModified", "importStatus", "size", "selfUri", "version"})
_FIELD_TYPES: Mapping[str, type] = {
    "name": str, "division": dict, "columnNames": list, "phoneColumns": list, "emailColumns": list,
    "whatsAppColumns": list, "previewModeColumnName": str, "previewModeAcceptedValues": list, "attemptLimits": dict,
    "automaticTimeZoneMapping": bool, "zipCodeColumnName": str, "columnDataTypeSpecifications": list,
    "trimWhitespace": bool, "retentionType": str, "retentionDays": int, "dateExpiration": str, "timeZone": str,
}  # fmt: skip
_RETENTION_TYPES = ("Never", "Today", "RetentionDays")
_RETENTION_FIELDS = {field: _FIELD_TYPES[field] for field in ("retentionType", "retentionDays", "timeZone")}

# What a list keeps for good, and how Genesys refuses to change it.
_FIXED_FIELDS: Mapping[str, tuple[str, str]] = {
    "columnNames": ("cannot.update.contact.column.names", "Contact column names are different"),
    "phoneColumns": ("cannot.update.phone.columns", "Phone number columns are different"),
    "emailColumns": ("cannot.update.email.columns", "Email columns are different"),
    "whatsAppColumns": ("cannot.update.whatsapp.columns", "WhatsApp columns are different"),
    "columnDataTypeSpecifications": (
        "cannot.update.column.data.type.specifications",
        "Column data type specifications are different",
    ),
    "automaticTimeZoneMapping": (
        "cannot.edit.automatic.time.zone.mapping.settings",
        "Automatic time zone mapping is different",
    ),
    "zipCodeColumnName": ("cannot.edit.automatic.time.zone.mapping.settings", "The zip code column is different"),
}


class _Channel(NamedTuple):
    """How one way to reach people is spelled in properties and codes."""

    field: str
    word: str
    absent: str


_CHANNELS = (
    _Channel("phoneColumns", "phone", "contact.columns.do.not.contain.phone.number.column"),
    _Channel("emailColumns", "email", "contact.columns.do.not.contain.email.column"),
    _Channel("whatsAppColumns", "whatsapp", "contact.columns.do.not.contain.whatsapp.column"),
)


def refused(code: str, message: str, field: str) -> ApiError:
    """What is wrong with a property."""
    return ApiError(400, code, message, field=field)


def checked_fields(body: object, types: Mapping[str, type]) -> Definition:
    """Return the fields of a list that a client may set, and has set.

    Raises:
        ApiError: It is no object, or has fields that no list has, or of another type.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "bad.request", "A list must be a JSON object.")
    unknown = body.keys() - _READ_ONLY_FIELDS - types.keys()
    if unknown:
        raise invalid_property(min(unknown))
    definition = {field: body[field] for field in types if body.get(field) is not None}
    for field, value in definition.items():
        if type(value) is not types[field]:
            raise invalid_value(field, f"of type {types[field].__name__}")
    return definition


def check_definition(body: object) -> Definition:
    """Return what a client may set of a new list.

    Raises:
        ApiError: The list may not be created so.
    """
    definition = checked_fields(body, _FIELD_TYPES)
    check_name(definition.get("name", ""))
    _check_columns(definition.get("columnNames", []))
    _check_channels(definition)
    _check_time_zones(definition)
    _check_specifications(definition)
    _check_retention(definition)
    return definition


def check_retention(body: Mapping[str, object]) -> Definition:
    """Return what a client may change in many lists at once.

    Raises:
        ApiError: It changes something else, or to what there is not.
    """
    # The schema is that of a whole list, and demands its columns.
    unknown = body.keys() - _RETENTION_FIELDS.keys() - {"columnNames"}
    if unknown:
        raise invalid_property(min(unknown))
    retention = {field: body[field] for field in body.keys() & _RETENTION_FIELDS.keys()}
    definition = checked_fields(retention, _RETENTION_FIELDS)
    _check_retention(definition)
    return definition


def check_name(name: str) -> None:
    """Refuse a name that no list can have."""
    if not name.strip():
        raise refused("name.cannot.be.blank", "The name cannot be blank.", "name")
    if len(name) > NAME_LENGTH_MAX:
        raise refused("name.length.exceeded", f"The name is longer than {NAME_LENGTH_MAX} characters.", "name")


def _check_columns(columns: Sequence[object]) -> None:
    field = "columnNames"
    if not columns:
        raise refused("no.contact.columns.defined", "The contact list has no columns.", field)
    if len(columns) > COLUMNS_MAX:
        raise refused("contact.columns.limit.exceeded", f"There are more than {COLUMNS_MAX} columns.", field)
    for column in columns:
        if not isinstance(column, str) or not column or "\\" in column:
            raise invalid_value(field, "names without special characters")
        if len(column) > COLUMN_LENGTH_MAX:
            message = f"A column name is longer than {COLUMN_LENGTH_MAX} characters."
            raise refused("contact.column.length.limit.exceeded", message, field)
    if len(set(columns)) < len(columns):
        raise refused("not.unique.contact.columns", "The column names are not unique.", field)


def _check_channels(definition: Definition) -> None:
    if not any(definition.get(channel.field) for channel in _CHANNELS):
        message = "The contact list needs a phone, email or WhatsApp column."
        raise refused("contact.list.both.phone.email.column.empty", message, "phoneColumns")
    for channel in _CHANNELS:
        _check_channel(channel, definition.get(channel.field, []), definition["columnNames"])
    if len(definition.get("phoneColumns", [])) > PHONE_COLUMNS_MAX:
        message = f"There are more than {PHONE_COLUMNS_MAX} phone columns."
        raise refused("phone.columns.limit.exceeded", message, "phoneColumns")


def _check_channel(channel: _Channel, entries: Sequence[object], columns: Sequence[str]) -> None:
    names = []
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("columnName", "type")):
            message = "A contact column needs a columnName and a type."
            raise refused(f"invalid.contact.{channel.word}.column", message, channel.field)
        names.append(entry["columnName"])
    if not set(names) <= set(columns):
        raise refused(channel.absent, "A contact column is not among the columns.", channel.field)
    if len(set(names)) < len(names):
        raise refused(f"not.unique.{channel.word}.columns", "The contact columns are not unique.", channel.field)


def _check_time_zones(definition: Definition) -> None:
    automatic = definition.get("automaticTimeZoneMapping", False)
    zip_column = definition.get("zipCodeColumnName")
    if zip_column is not None and not automatic:
        code = "cannot.have.zip.code.column.without.automatic.time.zone.mapping"
        raise refused(code, "A zip code column needs automatic time zone mapping.", "zipCodeColumnName")
    if zip_column is not None and zip_column not in definition["columnNames"]:
        raise refused("invalid.zip.code.column", "The zip code column is not a column.", "zipCodeColumnName")
    if automatic and any("callableTimeColumn" in entry for entry in definition.get("phoneColumns", [])):
        code = "cannot.have.callable.time.column.with.automatic.time.zone.mapping"
        raise refused(code, "A callable time column excludes automatic time zone mapping.", "phoneColumns")


def _check_specifications(definition: Definition) -> None:
    field = "columnDataTypeSpecifications"
    specifications = definition.get(field)
    if not specifications:
        return
    if not all(isinstance(specification, dict) for specification in specifications):
        raise invalid_value(field, "an array of objects")
    specified = {specification.get("columnName") for specification in specifications}
    columns = set(definition["columnNames"])
    if specified - columns:
        code = "column.data.type.specification.column.name.not.found"
        raise refused(code, "A data type specification names no column.", field)
    if columns - specified:
        code = "missing.column.data.type.specification.in.contact.list"
        raise refused(code, "A column has no data type specification.", field)


def _check_retention(definition: Definition) -> None:
    if definition.get("retentionType", _RETENTION_TYPES[0]) not in _RETENTION_TYPES:
        raise invalid_value("retentionType", f"one of {', '.join(_RETENTION_TYPES)}")


def check_fixed(known: Definition, given: Mapping[str, Any]) -> None:
    """Refuse to change what a list keeps for good."""
    for field, (code, difference) in _FIXED_FIELDS.items():
        # Nothing, an empty list and false are all the absence of a property.
        if (known.get(field) or None) != (given.get(field) or None):
            message = f"An attempt was made to update a ContactList in an invalid way. Details: {difference}"
            raise refused(code, message, field)
