"""What stands around a contact in a record, one module for each envelope; `choice` says which one a topic has.

- `native` is the project's own.
- `debezium` and `flattened` hold rows of a database; `position` orders them.
- `salesforce` holds what changed of an object.
- `outbox` and `dms` are what their names say.
- `schema` reads writers' schemas for all of them; `fitness` tells what of one does not suit a mapping.
"""
