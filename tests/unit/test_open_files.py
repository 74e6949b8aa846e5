"""As many files as the administrator allows may be open, whatever the shell says."""

import subprocess
import sys

_ASKED = """
import resource
from consumer.adapters import open_files

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
open_files.allow_all()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""


def test_the_process_may_open_as_many_files_as_it_is_allowed_to_ask_for() -> None:
    """In a process of its own, since the limit is the process'."""
    told = subprocess.run([sys.executable, "-c", _ASKED], capture_output=True, text=True, check=True)  # noqa: S603  # ours
    assert told.stdout.strip() == "True"
