"""What `.ci/` says of a run and of a machine: CI must not be green where tests were skipped, or could not begin."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NEEDED = ("bash", "dirname", "env", "grep", "mktemp", "rm", "sed", "sh", "tee", "test")
WITHIN_S = 30


def run(folder: Path, script: str, *arguments: str, **environ: str) -> tuple[int, str]:
    """Exit code and words of a script of `.ci/`, in a folder of its own, on a machine that has next to nothing."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name in NEEDED:
        (commands / name).symlink_to(shutil.which(name) or "missing")
    copy = Path(shutil.copy(PROJECT / ".ci" / script, folder.joinpath(".ci")))
    done = subprocess.run(  # noqa: S603 -- our own script
        [copy, *arguments],
        env={"PATH": str(commands), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    return done.returncode, done.stdout


def tool(path: Path, text: str = "") -> None:
    """A program that does this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the scripts are copied to."""
    (tmp_path / ".ci").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("closing", "code"),
    [
        ("===== 9 passed in 1.00s =====", 0),
        ("===== 9 passed, 1 skipped in 1.00s =====", 1),
        (r"\033[32m===== 9 passed, 1 skipped in 1.00s =====\033[0m", 1),
        ("", 1),
    ],
)
def test_ci_knows_that_nothing_was_skipped(folder: Path, closing: str, code: int) -> None:
    """By pytest's closing lines: where it finds none, it does not know."""
    tool(folder / "bin" / "make", f"""[ "$1" = test ] && printf '{closing}\\n'; exit 0""")
    assert run(folder, "run")[0] == code


def test_ci_asks_pytest_for_no_colours(folder: Path) -> None:
    """Whatever the environment asks for; other options stay."""
    tool(folder / "bin" / "make", 'echo "options: $PYTEST_ADDOPTS"')
    assert "options: -x --color=no\n" in run(folder, "run", PYTEST_ADDOPTS="-x")[1]


@pytest.mark.parametrize(
    ("there", "code"),
    [((), 1), ((".cache/bin/helm",), 0), (("bin/go",), 0)],
)
def test_without_go_the_chart_cannot_be_tested(folder: Path, there: tuple[str, ...], code: int) -> None:
    """Unless what Go would build is there; one line says so."""
    for path in there:
        tool(folder / path)
    found, words = run(folder, "setup-debian", "go")
    assert (found, words.startswith("missing on this machine: go "), words.count("\n")) == (code, bool(code), code)
