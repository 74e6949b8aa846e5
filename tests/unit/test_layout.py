"""How the code is laid out, as far as import-linter cannot know it by itself: what its lists name, and names."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2]
CONSUMER = PROJECT / "consumer"
CORE = CONSUMER / "core"
SHARED = {"worker"}
"""What several adapters use; it is of no outside system."""


def listed(contract: str) -> set[str]:
    """The modules that a contract of independence names."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (modules,) = [each["modules"] for each in contracts if each["name"] == contract]
    return {module.rpartition(".")[2] for module in modules}


def modules_of(package: Path) -> set[str]:
    """Modules and packages in a package."""
    return {each.stem for each in package.iterdir() if each.suffix == ".py" or each.is_dir()} - {
        "__init__",
        "__pycache__",
    }


def used_within(package: Path) -> set[str]:
    """Modules of a package that others of it import."""
    name = re.escape(".".join(package.relative_to(PROJECT).parts))
    imports = re.compile(rf"^\s*from {name}(?:\.(\w+)[\w.]* import| import (.+))", re.MULTILINE)
    return {
        module
        for file in package.rglob("*.py")
        for one, several in imports.findall(file.read_text(encoding="utf-8"))
        for module in ([one] if one else re.findall(r"\w+", several))
        if module != file.relative_to(package).parts[0].removesuffix(".py")
    }


def test_adapters_that_must_not_know_each_other_are_all_of_them() -> None:
    """A new one is named as well, or it may import the others unnoticed."""
    assert listed("Adapters do not know each other") == modules_of(CONSUMER / "adapters") - SHARED


def test_stages_that_must_not_know_each_other_are_all_of_them() -> None:
    """A module of the core is a stage, or something that others of the core use."""
    assert listed("Core stages do not know each other") == modules_of(CORE) - used_within(CORE)


def test_no_module_is_a_drawer_for_everything() -> None:
    """A name says what a module answers for."""
    drawers = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}
    assert {path.stem for path in CONSUMER.rglob("*.py")} & drawers == set()
