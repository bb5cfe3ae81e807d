"""The contracts are whole: each RPC says its rules, each permission has a role, each event a producer."""

from __future__ import annotations

import ast
import filecmp
import importlib
import pkgutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import tlsy.contracts
from tests.architecture.tree import ROOT, distributions, parse, python_files
from tlsy.contracts import events
from tlsy.contracts.options.v1 import options_pb2
from tlsy.rpc.permissions import ROLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.descriptor import MethodDescriptor

    from tests.architecture.tree import Distribution

STUBS: Final = ROOT / "libs" / "contracts" / "src" / "tlsy" / "contracts"
_PUBLIC: Final = options_pb2.SCOPE_PUBLIC


def methods() -> Iterator[MethodDescriptor]:
    """Every RPC of the product, from the descriptors."""
    for info in pkgutil.walk_packages(tlsy.contracts.__path__, "tlsy.contracts."):
        if info.name.endswith("_pb2"):
            descriptor = importlib.import_module(info.name).DESCRIPTOR
            for service in descriptor.services_by_name.values():
                yield from service.methods


def rules_of(method: MethodDescriptor) -> options_pb2.Rules:
    """What the interceptor enforces before the method's handler runs."""
    return method.GetOptions().Extensions[options_pb2.rules]


def wrong_rules(name: str, rules: options_pb2.Rules) -> list[str]:
    """What a method's rules leave open."""
    problems = []
    if rules.scope == options_pb2.SCOPE_UNSPECIFIED:
        problems.append(f"{name}: no scope")
    if rules.audit == options_pb2.AUDIT_UNSPECIFIED:
        problems.append(f"{name}: no audit level")
    if bool(rules.permission) == (rules.scope == _PUBLIC):
        problems.append(f"{name}: a permission is needed exactly where the scope is not PUBLIC")
    return problems


def granted_to_nobody(permissions: Collection[str], roles: Mapping[str, Collection[str]]) -> list[str]:
    """Permissions that an RPC asks for and no role has."""
    granted = {permission for each in roles.values() for permission in each}
    return sorted(set(permissions) - granted)


def without_producer(types: Sequence[str], dists: Sequence[Distribution]) -> list[str]:
    """Event types that no code names for writing.

    An event of a service is produced where the service's own code, consumers.py aside, names its constant;
    audit records and usage facts where a lib or the service calls the function that makes their type.
    """
    constants = {value: name for name, value in vars(events).items() if isinstance(value, str)}
    named: dict[str, set[str]] = {each.name: set(_names_in(each)) for each in dists}
    libs = set().union(
        *(named[each.name] for each in dists if each.kind == "libs" and each.name != "contracts")
    )
    problems = []
    for event_type in types:
        service = event_type.split(".")[1]
        if event_type in constants:
            found = constants[event_type] in named.get(service, set())
        else:
            function = "_".join(event_type.split(".")[2:4])
            found = function in libs | named.get(service, set())
        if not found:
            problems.append(event_type)
    return problems


def _names_in(dist: Distribution) -> Iterator[str]:
    for path in python_files(dist.package):
        if path.name != "consumers.py":
            for node in ast.walk(parse(path)):
                match node:
                    case ast.Name(id=name) | ast.Attribute(attr=name):
                        yield name


def test_every_rpc_declares_scope_permission_and_audit() -> None:
    found = list(methods())
    assert len(found) > len(events.SERVICES)
    assert [problem for method in found for problem in wrong_rules(method.full_name, rules_of(method))] == []


def test_every_permission_is_granted_by_a_role() -> None:
    asked = {rules_of(method).permission for method in methods()} - {""}
    assert granted_to_nobody(asked, ROLES) == []


def test_every_event_type_has_a_producer() -> None:
    assert without_producer(list(events.EVENTS), distributions()) == []


def test_every_event_message_is_registered() -> None:
    registered = {message.DESCRIPTOR.full_name for message in events.EVENTS.values()}
    # Not an event between services but what a tenant's producers put on the ingest topic.
    registered.add("tlsy.ingestion.events.v1.ProducedEvents")
    declared = {
        message.full_name
        for name in pkgutil.walk_packages(tlsy.contracts.__path__, "tlsy.contracts.")
        if ".events.v1." in name.name and name.name.endswith("_pb2")
        for message in importlib.import_module(name.name).DESCRIPTOR.message_types_by_name.values()
    }
    assert declared == registered


def test_the_committed_stubs_are_what_the_protos_give(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, ROOT / "libs" / "contracts" / "generate.py", tmp_path], check=True, timeout=60
    )
    assert different_stubs(tmp_path, STUBS) == [], "run `make contracts`"


def different_stubs(fresh: Path, committed: Path) -> list[str]:
    """Generated files that are missing, stale or left over in the committed tree."""

    def generated(root: Path) -> set[str]:
        return {
            str(path.relative_to(root)) for path in root.rglob("*_pb2*.py*") if path.suffix in {".py", ".pyi"}
        }

    both = generated(fresh) & generated(committed)
    _, changed, errors = filecmp.cmpfiles(fresh, committed, both, shallow=False)
    return sorted({*changed, *errors, *(generated(fresh) ^ generated(committed))})


def test_stale_missing_and_left_over_stubs_are_found(tmp_path: Path) -> None:
    fresh, committed = tmp_path / "fresh", tmp_path / "committed"
    for folder, names in ((fresh, "same new stale"), (committed, "same old stale")):
        folder.mkdir()
        for name in names.split():
            content = folder.name if name == "stale" else name
            (folder / f"{name}_pb2.py").write_text(content)
    assert different_stubs(fresh, committed) == ["new_pb2.py", "old_pb2.py", "stale_pb2.py"]


@pytest.mark.parametrize(
    "rules",
    [
        options_pb2.Rules(),
        options_pb2.Rules(scope=options_pb2.SCOPE_TENANT, permission="a.b"),
        options_pb2.Rules(audit=options_pb2.AUDIT_FULL, permission="a.b"),
        options_pb2.Rules(scope=options_pb2.SCOPE_TENANT, audit=options_pb2.AUDIT_NONE),
        options_pb2.Rules(scope=_PUBLIC, audit=options_pb2.AUDIT_NONE, permission="a.b"),
    ],
)
def test_an_rpc_that_leaves_a_rule_open_is_found(rules: options_pb2.Rules) -> None:
    assert wrong_rules("X", rules)


def test_an_rpc_without_any_rules_is_read_as_open() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="sample.proto", syntax="proto3")
    file.message_type.add(name="M")
    file.service.add(name="S").method.add(name="Do", input_type="M", output_type="M")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    method = pool.FindServiceByName("S").methods_by_name["Do"]
    assert message_factory.GetMessageClass(method.input_type)
    assert len(wrong_rules("S.Do", rules_of(method))) == len(["scope", "audit", "permission"])


def test_a_permission_of_no_role_is_found() -> None:
    assert granted_to_nobody(["a.read", "a.write"], {"viewer": frozenset({"a.read"})}) == ["a.write"]


def test_an_event_that_nobody_writes_is_found() -> None:
    types = [events.INCIDENT_CHANGED, events.audit_recorded("billing")]
    assert without_producer(types, []) == types
