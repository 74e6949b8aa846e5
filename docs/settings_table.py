#!/usr/bin/env python3
"""Prints docs/settings.md, from the rules in consumer/settings.py."""

import sys
from collections.abc import Iterator

from consumer.setting_values import Integer
from consumer.settings import rules

_HEAD = """\
# Settings

Generated from `consumer/settings.py` by `python docs/settings_table.py > docs/settings.md`; a test compares the two.

All settings are read and checked once, at start. If any is wrong, the program names every one that is, each with its
rule, and ends with exit code 2. A setting that is set to the empty text counts as not set.

## Where they come from

Environment variables come first, then the file of `--config FILE`, then the default.

The file is TOML. A setting has its name there in lower case, and tables are joined to it by an underscore: the key
`group_id` in the table `[kafka]` is `KAFKA_GROUP_ID`. Lists are joined by commas. Keys outside of a table stand before
the first table. A key that is no setting is an error.

```toml
state_dir = "/var/lib/genesys-consumer"

[kafka]
bootstrap_servers = "kafka-0.kafka:9092,kafka-1.kafka:9092"
source_topics = ["crm.contacts.changes"]
properties_file = "/etc/genesys-consumer/secrets/kafka.properties"

[genesys]
region = "eu-central-1"
contact_list = "CRM contacts"
attribute_columns = ["segment", "preferredLanguage=language"]
oauth_client_id_file = "/etc/genesys-consumer/secrets/client-id"
oauth_client_secret_file = "/etc/genesys-consumer/secrets/client-secret"

[batch]
linger_ms = 200
```

A secret may also come as a file: the variable with `_FILE` appended names it. White space around its content is
dropped, and a byte order mark before it. Where both are set in the same place, the variable itself wins. The
settings for which this holds say so below.

`OTEL_*` variables are those of the OpenTelemetry SDK, and are read from the environment alone. No trace leaves the
program unless `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set: see
[operations](operations.md#traces).

## All settings

| variable | default | meaning |
|---|---|---|
"""


def page() -> str:
    """The whole of docs/settings.md."""
    return _HEAD + "".join(_rows())


def _rows() -> Iterator[str]:
    for name, rule in rules().items():
        default = "**required**" if rule.default is None else f"`{rule.default}`" if rule.default else ""
        parse = rule.parse
        bounds = f"; from {parse.low} to {parse.high}" if isinstance(parse, Integer) else ""
        file = f"; also as `{name}_FILE`" if rule.secret else ""
        yield f"| `{name}` | {default} | {rule.help}{bounds}{file} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
