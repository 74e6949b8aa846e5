"""Mappings and the schemas that are registered for topics: what is sure to be a mistake, and what is not."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

import pytest

from consumer.errors import DecodeError, SourceUnavailable
from consumer.formats import SchemaKind, SchemaName, SchemaReference
from consumer.model import Reason
from consumer.operate.check import _columns, _mapping, _mappings
from consumer.pipeline.mapping_check import VERSIONS, Finding, Fit, look, unmatched
from consumer.pipeline.readers import envelopes_of
from tests.envelopes import COLUMNS, record_type
from tests.lives import settings

TOPIC = "crm.customers"
TABLE = 'phone = "phone"\nconsent = { value = true }\ndo_not_call = { value = false }\nexternal_id = "id"\n'


def row(*without: str, **more: object) -> str:
    """The schema of a row, without some columns."""
    columns: dict[str, object] = {**COLUMNS, **more}
    return json.dumps(record_type("Row", {name: kind for name, kind in columns.items() if name not in without}))


Versions = Sequence[str | DecodeError]


class Schemas:
    """What is registered for topics, the latest first; by name what a schemas directory has."""

    def __init__(self, versions: Mapping[str, Versions], named: Mapping[str, str]) -> None:
        self._versions = versions
        self._named = {SchemaName(SchemaKind.TOPIC, topic): text for topic, text in named.items()}
        self.taken = 0

    async def fetch(self, reference: SchemaReference) -> str | None:
        return self._named.get(reference) if isinstance(reference, SchemaName) else None

    async def of_topic(self, topic: str) -> AsyncGenerator[str | DecodeError, None]:
        for text in self._versions.get(topic, ()):
            self.taken += 1
            yield text


class Unreachable(Schemas):
    """A registry that is down."""

    async def of_topic(self, topic: str) -> AsyncGenerator[str | DecodeError, None]:
        for text in self._versions.get(topic, ()):
            yield text
        raise SourceUnavailable("schema registry: it is down")


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    """A mapping of the topic, to which a test may append."""
    path = tmp_path / "mapping.toml"
    path.write_text(f'["{TOPIC}"]\n{TABLE}')
    return path


def found(mapping: Path, schemas: Schemas, **changed: str) -> list[Finding]:
    """What is found of the source topics."""
    environ = {"kafka_source_topics": TOPIC, "source_envelope": "flattened", "source_mapping": str(mapping), **changed}
    chosen = settings(**environ)
    return asyncio.run(look(chosen, envelopes_of(chosen), schemas))


def fits(mapping: Path, *versions: str | DecodeError) -> Finding:
    """What is found of the topic with these versions."""
    (finding,) = found(mapping, Schemas({TOPIC: versions}, {}))
    return finding


def test_a_latest_schema_that_fits_is_enough(mapping: Path) -> None:
    """What came before it is not asked for."""
    schemas = Schemas({TOPIC: [row(), row("phone")]}, {})
    assert found(mapping, schemas) == [Finding(TOPIC, Fit.FITS)]
    assert schemas.taken == 1


def test_a_mapping_that_fits_no_version_is_a_mistake(mapping: Path) -> None:
    """What is told is what the latest one lacks."""
    finding = fits(mapping, row("phone"), row("phone", "id"))
    detail = "the schema has none of the fields that SOURCE_MAPPING names for phone (phone)"
    assert finding == Finding(TOPIC, Fit.UNFIT, (detail,))


def test_a_mapping_that_fitted_before_was_outgrown(mapping: Path) -> None:
    """Records of the earlier version may still come: whoever registers a schema does not stop the consumer."""
    assert fits(mapping, row("phone"), row("phone"), row()).fit is Fit.REJECTS


def test_so_many_versions_are_looked_at(mapping: Path) -> None:
    """A start does not read the history of years."""
    assert fits(mapping, *[row("phone")] * VERSIONS, row()).fit is Fit.UNFIT
    assert fits(mapping, *[row("phone")] * (VERSIONS - 1), row()).fit is Fit.REJECTS


def test_a_removed_column_is_no_mistake(mapping: Path) -> None:
    """An optional one counts as unchanged, and is named."""
    mapping.write_text(mapping.read_text() + 'email = "email"\n')
    assert fits(mapping, row("email"), row()) == Finding(TOPIC, Fit.FITS, ("email (email)",))


def test_an_optional_field_that_no_version_has_is_one(mapping: Path) -> None:
    """Versions that cannot be read do not tell."""
    mapping.write_text(mapping.read_text() + 'email = "e-mail"\nversion = "v"\n')
    finding = fits(mapping, row(), row("phone"), row(v="long"))
    assert finding == Finding(TOPIC, Fit.LACKS, ("email (e-mail)",))


def test_a_mapping_for_many_topics_may_name_more_than_one_has(mapping: Path) -> None:
    """It was not written for this one."""
    mapping.write_text(f'[default]\n{TABLE}email = "e-mail"\n')
    assert fits(mapping, row(), row()) == Finding(TOPIC, Fit.FITS, ("email (e-mail)",))


def test_what_only_some_records_are_rejected_for_is_no_proof(mapping: Path) -> None:
    """It is told all the same, together with what all are rejected for."""
    mapping.write_text(mapping.read_text() + 'version = "v"\n')
    doubt = f"[{TOPIC}] version: v is float, not int or long or string"
    nullable = json.dumps(record_type("Row", {**COLUMNS, "v": ["null", "float"]}))
    assert fits(mapping, nullable) == Finding(TOPIC, Fit.REJECTS, (doubt,))
    assert fits(mapping, row(v="float")) == Finding(TOPIC, Fit.UNFIT, (doubt,))


def test_mappings_by_record_leave_it_open_what_a_topic_holds(mapping: Path) -> None:
    """Records of other schemas may be read, so nothing is stopped."""
    other = TABLE.replace('"phone"', '"mobile"')
    mapping.write_text(f"[Other]\n{TABLE}\n[Row]\n{other}")
    assert fits(mapping, row()).fit is Fit.REJECTS


@pytest.mark.parametrize("text", ["{", '"string"', '{"type": "array", "items": "string"}'])
def test_what_is_no_schema_of_a_record_does_not_fit(mapping: Path, text: str) -> None:
    """Nor is one that is not Avro."""
    assert fits(mapping, text).fit is Fit.UNFIT
    protobuf = DecodeError((Reason.NOT_DECODABLE,), "schema topic:crm.customers is PROTOBUF, not Avro")
    assert fits(mapping, protobuf) == Finding(TOPIC, Fit.UNFIT, (protobuf.detail,))


def test_nothing_is_known_without_a_schema_or_a_registry(mapping: Path) -> None:
    """Neither stops anything."""
    assert fits(mapping) == Finding(TOPIC, Fit.NO_SCHEMA)
    (finding,) = found(mapping, Unreachable({}, {}))
    assert finding == Finding(TOPIC, Fit.NOT_KNOWN, ("schema registry: it is down",))


@pytest.mark.parametrize(
    ("framing", "fit"),
    [
        ("apicurio", Fit.UNFIT),
        ("auto", Fit.UNFIT),
        ("bare", Fit.FITS),
        ("json", None),
        ("glue", None),
        ("single-object", None),
    ],
)
def test_the_framing_tells_where_schemas_are(mapping: Path, framing: str, fit: Fit | None) -> None:
    """A bare record has the schema that the directory names; others are not registered for topics."""
    schemas = Schemas({TOPIC: [row("phone")]}, {TOPIC: row()})
    assert [finding.fit for finding in found(mapping, schemas, source_framing=framing)] == ([fit] if fit else [])


def test_a_bare_topic_has_one_schema(mapping: Path) -> None:
    """If it does not fit, nothing can be read; without one nothing is known."""
    schemas = Schemas({}, {TOPIC: row("phone")})
    (finding,) = found(mapping, schemas, source_framing="bare")
    assert finding.fit is Fit.UNFIT
    (finding,) = found(mapping, Schemas({}, {}), source_framing="bare")
    assert finding.fit is Fit.NO_SCHEMA


def test_every_topic_is_looked_at(mapping: Path) -> None:
    """With its own envelope."""
    topics = {"kafka_source_topics": f"{TOPIC},other", "source_envelope": f"{TOPIC}=flattened,debezium"}
    findings = found(mapping, Schemas({TOPIC: [row()], "other": [row()]}, {}), **topics)
    assert [(finding.topic, finding.fit) for finding in findings] == [(TOPIC, Fit.FITS), ("other", Fit.UNFIT)]


@pytest.mark.parametrize("fit", Fit)
def test_check_has_a_line_for_each(fit: Fit) -> None:
    """✗ with what to do, where something is to be done or not known."""
    line = _mapping(Finding(TOPIC, fit, ("phone (mobile)",)))
    assert line.what == f"mapping {TOPIC}"
    assert line.holds is (fit in {Fit.FITS, Fit.NO_SCHEMA})
    assert ("phone (mobile)" in line.detail) is (fit is not Fit.NO_SCHEMA)


def test_a_null_that_may_grant_has_a_line_of_its_own(mapping: Path) -> None:
    """The schema does not tell whether the converter keeps nulls, so it is no fault; nor does it hide one."""
    mapping.write_text(mapping.read_text().replace("{ value = true }", '"ok"'))
    granting = {"ok": [{"type": "boolean", "connect.default": True}, "null"]}
    told = f"[{TOPIC}] consent: ok may be null, and its default is true: drop the column's default"
    assert fits(mapping, row(**granting)) == Finding(TOPIC, Fit.FITS, (), (told,))
    assert fits(mapping, row(**granting, phone="long")).granted == (told,)
    chosen = settings(kafka_source_topics=TOPIC, source_envelope="flattened", source_mapping=str(mapping))
    schemas = Schemas({TOPIC: [row(**granting)]}, {})
    first, line = asyncio.run(_mappings(chosen, envelopes_of(chosen), schemas))
    assert (first.what, first.mark) == (f"mapping {TOPIC}", "✓")
    assert (line.what, line.mark) == (f"nulls of {TOPIC}", "–")  # noqa: RUF001 -- the mark is that dash
    assert told in line.detail


NAMELESS = TABLE.replace('external_id = "id"', "")
CITY = 'attributes = { city = "city" }\n'
NOWHERE = f"SOURCE_MAPPING: [{TOPIC}] attributes: GENESYS_ATTRIBUTE_COLUMNS has no city: it goes nowhere"
EMPTY = "GENESYS_ATTRIBUTE_COLUMNS: no mapping has an attribute {}: the column stays empty for everybody"


@pytest.mark.parametrize(
    ("more", "columns", "envelope", "told"),
    [
        (CITY, "city=Town", "flattened", []),
        (CITY, "", "flattened", [NOWHERE]),
        (CITY, "Town=city,segment", "flattened", [NOWHERE, EMPTY.format("Town"), EMPTY.format("segment")]),
        ("", "segment", "flattened,other=native", []),
        ("", "firstName,segment", f"{TOPIC}=flattened,salesforce", [EMPTY.format("segment")]),
        (f"[default]\n{NAMELESS}", "firstName", f"{TOPIC}=flattened,salesforce", [EMPTY.format("firstName")]),
    ],
    ids=["both", "no columns", "other names", "native events tell any", "ready-made", "no ready-made"],
)
def test_attributes_and_columns_have_each_other(
    mapping: Path, more: str, columns: str, envelope: str, told: list[str]
) -> None:
    """With a slip in one of them the column would be empty for everybody, and nobody would know why."""
    mapping.write_text(mapping.read_text() + more)
    environ = {"kafka_source_topics": f"{TOPIC},other", "source_envelope": envelope, "source_mapping": str(mapping)}
    chosen = settings(**environ, genesys_attribute_columns=columns)
    assert unmatched(chosen, envelopes_of(chosen)) == told
    lines = list(_columns(chosen, envelopes_of(chosen)))
    assert [f"{line.what}: {line.detail}" for line in lines] == told
    assert all(line.holds and not line.sure for line in lines)
