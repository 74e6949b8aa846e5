"""A small disk of its own for the state directories, that can be filled up and freed again. Needs root, on Linux."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

SIZE_MB = 256
MIB = 2**20


class Disk:
    """A tmpfs at a folder; without the right to mount one it is a plain folder that never fills up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
        self.can_fill = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0  # noqa: S603

    def fill(self) -> bool:
        """Leave no room at all; whether that could be done."""
        if self.can_fill:
            with self._ballast.open("ab", buffering=0) as out:
                for piece in (bytes(MIB), bytes(4096)):
                    with suppress(OSError):  # that is the aim
                        while out.write(piece):
                            pass
        return self.can_fill

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount and delete everything."""
        if self.can_fill:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)  # noqa: S603, S607
        shutil.rmtree(self.folder, ignore_errors=True)
