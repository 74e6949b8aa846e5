"""Compares the contact list in Genesys with what was delivered, and mends it on request.

- `run` is the whole, and the only place where the order of its steps is written.
- `delivered` gathers what was delivered, `compare` holds an export against it, `findings` keeps what differs.
- `source` reads the source topics again; `mend` brings the list into step; `report` is what is told.
"""
