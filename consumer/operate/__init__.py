"""What operators ask beside the running consumer, a module for each command; `printing` is how they are answered.

- `dead_letters` reads what was given up, `listing` tells of it, `replaying` puts it back; `audit` reads what became of
  all else.
- `check` says whether all is ready, a `line` for each thing; `newest` of the records that are there; `explain` what one
  becomes.
- `load` wires the first fill.
"""
