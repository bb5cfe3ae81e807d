"""Every service has the same rooms, a handler per RPC, and an entry per event that it consumes."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import pytest

from tests.architecture.tree import ROOT, at, dotted, parse, services
from tlsy.contracts import events

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.descriptor import FileDescriptor

    from tests.architecture.tree import Distribution

ROOMS: Final = frozenset(
    {
        "__init__.py",
        "__main__.py",
        "py.typed",
        "app.py",
        "settings.py",
        "ports.py",
        "consumers.py",
        "domain",
        "handlers",
        "adapters",
        "rpc",
        "migrations",
    }
)
_SERVER_ROOMS: Final = frozenset({"rpc", "consumers.py", "migrations"})
#: Programs that serve nothing and own no tables have fewer rooms, none of them new.
FEWER: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    dict.fromkeys(("agent", "cli", "embedded"), ROOMS - _SERVER_ROOMS)
)
_MIGRATION: Final = re.compile(r"\d{4}_[a-z]+(_[a-z0-9]+)+\.py|__init__\.py")
#: Producers' records come in on a topic of their own; their message has no CloudEvents type.
_PRODUCED: Final = "on_produced_events"


def unknown_rooms(package: Path, allowed: Collection[str]) -> list[str]:
    """Files and folders of a package that no room is meant for."""
    entries = sorted(entry for entry in package.iterdir() if entry.name != "__pycache__")
    problems = [
        at(entry, 1, "is not one of the rooms of a service") for entry in entries if entry.name not in allowed
    ]
    for versions in package.glob("migrations/**/versions"):
        problems += [
            at(path, 1, "a migration is named NNNN_<verb>_<noun>.py")
            for path in sorted(versions.glob("*.py"))
            if not _MIGRATION.fullmatch(path.name)
        ]
    return problems


def snake_case(name: str) -> str:
    """CreateApiKey -> create_api_key."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def rpcs_of(module: str) -> Iterator[str]:
    """The methods in the descriptors of the service whose package is `tlsy.<name>`."""
    try:
        stubs = importlib.import_module(module.replace("tlsy.", "tlsy.contracts.") + ".v1")
    except ModuleNotFoundError:
        return
    for info in pkgutil.iter_modules(stubs.__path__):
        if info.name.endswith("_pb2"):
            descriptor: FileDescriptor = importlib.import_module(f"{stubs.__name__}.{info.name}").DESCRIPTOR
            for service in descriptor.services_by_name.values():
                yield from (method.name for method in service.methods)


def missing_handlers(package: Path, rpcs: Sequence[str]) -> list[str]:
    """RPCs without a file of their own in handlers/."""
    return [
        at(path, 1, f"is missing: the handler of {rpc}")
        for rpc in rpcs
        if not (path := package / "handlers" / f"{snake_case(rpc)}.py").is_file()
    ]


def handler_name(event_type: str) -> str:
    """tlsy.billing.invoice.finalized.v1 -> on_invoice_finalized."""
    noun, verb = event_type.split(".")[2:4]
    return f"on_{noun}_{verb}".replace("-", "_")


def _types_named_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                value = getattr(events, name, None)
                if isinstance(value, str) and value in events.EVENTS:
                    yield value


def unwired_events(package: Path) -> list[str]:
    """Consumed events without a handler, and handlers of events that consumers.py does not name."""
    consumers = package / "consumers.py"
    handlers = {path.stem: path for path in sorted((package / "handlers").glob("on_*.py"))}
    tree = parse(consumers) if consumers.is_file() else ast.Module([], [])
    known = {handler_name(event_type) for event_type in events.EVENTS} | {_PRODUCED}
    named = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for text in (node.module or "", *(alias.name for alias in node.names))
        for part in text.split(".")
    }
    problems = [
        at(path, 1, "no event has this name; on_<noun>_<past-verb>.py")
        for name, path in handlers.items()
        if name not in known
    ]
    problems += [
        at(path, 1, "consumers.py has no entry for it")
        for name, path in handlers.items()
        if name in known and name not in named
    ]
    problems += [
        at(consumers, 1, f"handlers/{handler_name(event_type)}.py is missing")
        for event_type in sorted(set(_types_named_in(tree)))
        if handler_name(event_type) not in handlers
    ]
    return problems


def reaches_into_services(package: Path) -> list[str]:
    """Imports by which the embedded host knows more of a service than how it is built and set."""
    known = {service.module for service in services()} - {"tlsy.embedded"}
    return [
        at(path, line, f"{name}: only app, settings, migrations")
        for path in sorted(package.rglob("*.py"))
        for line, name in _imports(path)
        if ".".join(name.split(".")[:2]) in known
        and name.split(".")[2:3] not in (["app"], ["settings"], ["migrations"])
    ]


def composed_elsewhere(package: Path) -> list[str]:
    """Imports of app.py by a room of the same service: only __main__.py starts it."""
    return [
        at(path, line, "only __main__.py imports app.py")
        for path in sorted(package.rglob("*.py"))
        if path.name not in {"__main__.py", "app.py"}
        for line, name in _imports(path)
        if name == f"tlsy.{package.name}.app"
    ]


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of each import; in `from tlsy.x import y` the names count as modules."""
    for node in ast.walk(parse(path)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                whole = module.count(".") == 1
                found = [f"{module}.{alias.name}" for alias in names] if whole else [module]
                yield from ((node.lineno, name) for name in found)


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
class TestService:
    def test_has_only_the_known_rooms(self, service: Distribution) -> None:
        assert unknown_rooms(service.package, FEWER.get(service.name, ROOMS)) == []

    def test_has_a_handler_per_rpc(self, service: Distribution) -> None:
        assert missing_handlers(service.package, list(rpcs_of(service.module))) == []

    def test_has_a_handler_and_an_entry_per_consumed_event(self, service: Distribution) -> None:
        assert unwired_events(service.package) == []

    def test_is_started_by_its_main_file_only(self, service: Distribution) -> None:
        assert composed_elsewhere(service.package) == []


def test_the_embedded_host_knows_only_how_services_are_built_and_set() -> None:
    assert reaches_into_services(ROOT / "services" / "embedded" / "src") == []


def test_the_descriptors_of_a_service_are_found() -> None:
    assert "IngestEvents" in list(rpcs_of("tlsy.ingestion"))


class TestSampleThatBreaksIt:
    def test_a_room_of_another_name_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "services.py").touch()
        assert unknown_rooms(tmp_path, ROOMS) == ["services.py:1: is not one of the rooms of a service"]

    def test_a_program_without_a_server_has_no_rpc_room(self, tmp_path: Path) -> None:
        (tmp_path / "rpc").mkdir()
        assert len(unknown_rooms(tmp_path, FEWER["agent"])) == 1

    def test_a_migration_without_a_verb_is_found(self, tmp_path: Path) -> None:
        versions = tmp_path / "migrations" / "tenant" / "versions"
        versions.mkdir(parents=True)
        (versions / "0001_users.py").touch()
        (versions / "0002_create_users.py").touch()
        assert [problem.split(":")[0] for problem in unknown_rooms(tmp_path, ROOMS)] == ["0001_users.py"]

    def test_an_rpc_without_a_handler_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "handlers").mkdir()
        (tmp_path / "handlers" / "get_jwks.py").touch()
        assert missing_handlers(tmp_path, ["GetJwks", "CreateApiKey"]) == [
            "create_api_key.py:1: is missing: the handler of CreateApiKey"
        ]

    def test_a_handler_that_no_consumer_names_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "handlers").mkdir()
        (tmp_path / "handlers" / "on_incident_changed.py").touch()
        (tmp_path / "consumers.py").write_text("")
        assert unwired_events(tmp_path) == ["on_incident_changed.py:1: consumers.py has no entry for it"]

    def test_a_handler_of_an_unknown_event_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "handlers").mkdir()
        (tmp_path / "handlers" / "on_weather_changed.py").touch()
        assert "no event has this name" in unwired_events(tmp_path)[0]

    def test_a_consumed_event_without_a_handler_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "consumers.py").write_text(
            "from tlsy.contracts.events import RULE_CHANGED\nx = RULE_CHANGED\n"
        )
        assert unwired_events(tmp_path) == ["consumers.py:1: handlers/on_rule_changed.py is missing"]

    def test_a_host_that_reaches_into_a_service_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "app.py").write_text(
            "from tlsy.identity.handlers import log_in\n"
            "from tlsy.identity import domain\n"
            "import tlsy.identity.app\n"
        )
        assert len(reaches_into_services(tmp_path)) == len(["handlers", "domain"])

    def test_a_room_that_imports_the_composition_root_is_found(self, tmp_path: Path) -> None:
        package = tmp_path / "billing"
        package.mkdir()
        (package / "consumers.py").write_text("from tlsy.billing.app import build\n")
        assert composed_elsewhere(package) == ["consumers.py:1: only __main__.py imports app.py"]


def test_every_known_event_gives_its_handler_a_name() -> None:
    assert handler_name(events.SIGNING_KEY_ROTATED) == "on_signing_key_rotated"
    assert handler_name(events.audit_recorded("tenant-registry")) == "on_audit_recorded"


def test_dotted_names_are_read_from_the_syntax_tree() -> None:
    assert dotted(ast.parse("a.b.c", mode="eval").body) == "a.b.c"
