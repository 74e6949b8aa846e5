"""The first fill: a file of contacts through the same rules, store and audit as the stream. Knows no adapter.

- `run` is the whole, and the only place where its order of effects is written.
- `membership` makes sure that nobody else works for the group meanwhile.
- `placement` finds out in which partition the stream will look for a contact.
- `candidates` takes rows through the rules.
- `plan` decides of each row what becomes of it, before anything is done.
- `requests` makes the changes that a file cannot tell Genesys.
- `upload` sends the others as one file, and follows its import.
- `settle` makes the outcomes visible.
- `patience` tries again what fails for now.
"""
