"""The house holds: imports go down, pure modules stay pure, names are single, things stay small."""

import ast
import configparser
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# from the ground up; a room imports from itself and from those to its left
ORDER = (
    *("ground", "sockets", "streams", "link", "carriers", "fleet", "process", "settings", "state"),
    *("trust", "systems", "cluster", "connect", "daemons", "ctl"),
)
# bytes and decisions: no reactor, no socket, no clock, and nothing that has one
PURE_NAMES = """
    access_control addressing alwayson_messages audit_chain audit_records away_ports backoff barrier
    cameo_admission cameo_facts cameo_outbox cameo_peers cameo_publications cameo_requests
    cameo_responders cameo_topics cccp_facts channel commands consent_messages data_opening deadlines
    declared device_records devices emo emo_choice emo_sockets emo_targets enroll enrolment errors facts
    first_bytes fleet frames free_ports grants handshake hellos holders http_connect keys kinds
    known_sources labels lease_rows lease_table leases legacy limits liveness localproxy mux networks
    node_lease node_records nonces numbers offer_messages origin outcomes own_links page_names path_signs
    penalties people pools proxy_choice proxy_header proxy_headers proxy_sessions rates reasons
    redis_scripts refusals refused_ports registration remote_sessions retries rfb_watching rt1 rt1_before
    rt1_ends rt1_offers rt1_recall rt1_services rt1_sessions send_scheduler serials service_state session_life
    strangers targets tickets trusted_proxies typed_lines user_tokens warm_pool websocket_wire window zmtp
    zmtp_messages
"""
PURE = frozenset(PURE_NAMES.split())
IMPURE = {"twisted", "zope", "OpenSSL", "socket", "ssl", "select", "time", "asyncio", "subprocess"}
FILES = sorted((ROOT / "revtunnel").rglob("*.py"))
FORBIDDEN_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "handler"}
FILE_LINES = 500
FUNCTION_LINES = 60
CLASS_METHODS = 30
INIT_LINES = 12


def module_name(path: Path) -> str:
    """The dotted name of a file of ours."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
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


@functools.cache
def imports(name: str) -> set[str]:
    """Everything a module imports, also inside functions."""
    path = MODULES[name]
    is_package = path.name == "__init__.py"
    return {found for node in ast.walk(tree(path)) for found in imported(node, name, is_package)}


MODULES = {module_name(path): path for path in FILES}


def is_init(path: Path) -> bool:
    """Whether a file is a package's own."""
    return path.stem == "__init__"


def room(name: str) -> str | None:
    """The room of one of our modules; None for the package itself and for strangers."""
    parts = name.split(".")
    return parts[1] if parts[0] == "revtunnel" and len(parts) > 1 and parts[1] in ORDER else None


def system(name: str) -> str | None:
    """The system a module is part of: emo, cccp, cameo, ..."""
    parts = name.split(".")
    return parts[2] if room(name) == "systems" and len(parts) > 2 else None


def runs_against(name: str, found: str) -> bool:
    """Whether one of our modules may not import the other: it is of a later room, or of another system."""
    own, other = room(name), room(found)
    if own is None or other is None or found not in MODULES:
        return False
    if own == other == "systems":
        return None not in (system(name), system(found)) and system(name) != system(found)
    return ORDER.index(other) > ORDER.index(own)


def test_imports_go_down() -> None:
    """A module imports from its own room and those before it; systems import nothing of each other."""
    found = {
        (name.removeprefix("revtunnel."), other.removeprefix("revtunnel."))
        for name in MODULES
        for other in imports(name)
        if runs_against(name, other)
    }
    assert found == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_know_no_reactor_no_socket_no_clock(name: str) -> None:
    """Bytes and decisions import no Twisted, OpenSSL, socket or clock, and only pure modules of ours."""
    path = next(path for path in FILES if path.stem == name)
    found = imports(module_name(path))
    foreign = sorted(each for each in found if each.split(".")[0] in IMPURE)
    ours = sorted(each for each in found if each in MODULES and MODULES[each].name != "__init__.py")
    assert foreign == []
    assert [each for each in ours if each.rpartition(".")[2] not in PURE] == []


def test_no_cycles() -> None:
    """No module of ours imports itself by way of others."""
    graph = {
        name: {found for found in imports(name) if found in MODULES and found != name} for name in MODULES
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
def test_files_classes_and_functions_stay_small(name: str) -> None:
    """A file has at most 500 lines, a class 30 methods, a function 60 lines."""
    path = MODULES[name]
    assert path.read_text(encoding="utf-8").count("\n") <= FILE_LINES
    nodes = [*ast.walk(tree(path))]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    too_long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES]
    assert too_long == []
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    assert [each.name for each in classes if methods(each) > CLASS_METHODS] == []


def methods(node: ast.ClassDef) -> int:
    """How many functions a class defines itself."""
    return sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_states_its_rule(name: str) -> None:
    """Every module begins with a docstring."""
    assert ast.get_docstring(tree(MODULES[name]))


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if room(name) and is_init(path)])
def test_a_room_says_what_it_is_for_and_hands_nothing_on(name: str) -> None:
    """A room's ``__init__`` is a docstring of a few lines, with its law or its way in, and nothing else."""
    body = tree(MODULES[name]).body
    assert len(body) == 1
    text = ast.get_docstring(tree(MODULES[name])) or ""
    assert "Law: " in text or "Way in: " in text
    assert text.count("\n") < INIT_LINES


def test_every_room_is_installed() -> None:
    """A folder that setup.cfg does not name is in the clone and in no wheel."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    named = settings["options"]["packages"].split()
    ours = {module_name(path) for path in FILES if path.name == "__init__.py"}
    assert ours - set(named) == set()


def test_plugin_folders_have_no_init() -> None:
    """An __init__.py there would replace Twisted's own on installation and take it away on removal."""
    assert sorted((ROOT / "twisted").rglob("__init__.py")) == []
