"""The house holds: imports go down, the lower floors know no Twisted, names are single, things stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ["wire", "core", "net", "services"]  # from the ground up
FILES = sorted((ROOT / "revtunnel").rglob("*.py"))
FORBIDDEN_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "handler"}
FILE_LINES = 500
FUNCTION_LINES = 60


def module_name(path: Path) -> str:
    """The dotted name of a file of ours."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names that one import statement asks for, relative ones made absolute."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = module.split(".")[: None if is_package else -1] if node.level else []
        base = base[: len(base) - node.level + 1] if node.level else []
        start = ".".join([*base, *([node.module] if node.module else [])])
        yield start
        yield from (f"{start}.{alias.name}" for alias in node.names)


def imports(path: Path) -> set[str]:
    """Everything a file imports, also inside functions."""
    is_package = path.name == "__init__.py"
    name = module_name(path)
    return {found for node in ast.walk(tree(path)) for found in imported(node, name, is_package)}


MODULES = {module_name(path): path for path in FILES}
IMPORTS = {name: imports(path) for name, path in MODULES.items()}


def floor(name: str) -> int | None:
    """The floor of one of our modules; None for the package itself and for strangers."""
    parts = name.split(".")
    return (
        FLOORS.index(parts[1]) if parts[0] == "revtunnel" and len(parts) > 1 and parts[1] in FLOORS else None
    )


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    """A module imports from its own floor and those below it."""
    own = floor(name)
    above = sorted(
        found for found in IMPORTS[name] if own is not None and (at := floor(found)) is not None and at > own
    )
    assert above == []


@pytest.mark.parametrize("name", [name for name in MODULES if floor(name) in (0, 1)])
def test_wire_and_core_know_no_twisted(name: str) -> None:
    """Bytes and decisions need no reactor, so their files import neither Twisted nor zope."""
    foreign = sorted(
        found for found in IMPORTS[name] if found.split(".")[0] in ("twisted", "zope", "OpenSSL")
    )
    assert foreign == []


def test_no_cycles() -> None:
    """No module of ours imports itself by way of others."""
    graph = {
        name: {found for found in IMPORTS[name] if found in MODULES and found != name} for name in MODULES
    }
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_names_are_single_and_say_something() -> None:
    """No two modules share a name, and none is named after nothing in particular."""
    names = [path.stem for path in FILES if path.name != "__init__.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert sorted(FORBIDDEN_NAMES.intersection(names)) == []


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_small(name: str) -> None:
    """A file has at most 500 lines, a function at most 60."""
    path = MODULES[name]
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= FILE_LINES
    functions = [
        node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    too_long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES]
    assert too_long == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_states_its_rule(name: str) -> None:
    """Every module begins with a docstring."""
    assert ast.get_docstring(tree(MODULES[name]))


def test_plugin_folders_have_no_init() -> None:
    """An __init__.py there would replace Twisted's own on installation and take it away on removal."""
    assert sorted((ROOT / "twisted").rglob("__init__.py")) == []
