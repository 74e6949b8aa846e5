"""How many files the process may have open. Touches the process' own limit of that.

Each partition has a database of some seven files. The limit that a shell or a container runtime gives, often 1,024, is
for programs that use `select`; none here does, and the hard limit is what the administrator allows.
"""

import resource
from contextlib import suppress


def allow_all() -> None:
    """Have the process open as many files as it is allowed to ask for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have a lower limit than the one they tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
