"""What operators ask beside the running consumer, a module for each command; `printing` is how they are answered.

- `dead_letters` and `audit` read what the consumer wrote, and put letters back.
- `check` says whether all is ready, a `line` for each thing; `newest` of the records that are there; `explain` what one
  becomes.
- `load` wires the first fill.
"""
