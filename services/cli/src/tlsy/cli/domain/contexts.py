"""Contexts: which installation a command talks to, and as whom."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tlsy.cli.domain.errors import UsageError

SERVICES: Final = ("tenant-registry", "identity", "ingestion", "rules-engine")
_MEMBERS: Final = frozenset({"tenant", "address", "addresses", "api_key_file", "user", "tls", "start"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One installation and one identity in it.

    Attributes:
        name: within the contexts file.
        addresses: service to gRPC target ("host:port", "unix:/path"); "" is an edge that stands for all.
        tenant: slug that is acted on unless --tenant says otherwise; "" is the one of the credential.
        api_key_file: holds an API key alone; "" where one logs in by password.
        user: e-mail to log in with unless told otherwise; "" with an API key.
        tls: whether calls are encrypted.
        ca_file: PEM of the authorities to trust instead of the system's; "" for those.
        start: the command that starts its servers, to be told to who finds them stopped; "" if there is none.
        file: the contexts file in which it is in use; "" if it is not in use, or from no file.
    """

    name: str
    addresses: Mapping[str, str]
    tenant: str = ""
    api_key_file: str = ""
    user: str = ""
    tls: bool = False
    ca_file: str = ""
    start: str = ""
    file: str = ""

    def another(self) -> str:
        """The command that makes another identity in the same installation, as far as it is known."""
        known = self.file and any(target.startswith("unix:") for target in self.addresses.values())
        where = f"--from {shlex.quote(self.file)}" if known else "--address HOST:PORT"
        return f"tlsy context add NAME --user E-MAIL --default-tenant TENANT {where}"

    def address(self, service: str) -> str:
        """Where a service listens.

        Raises:
            UsageError: the context does not say.
        """
        target = self.addresses.get(service) or self.addresses.get("")
        if target is None:
            raise UsageError(
                f"Context {self.name} has no address of {service}.",
                f"Run: tlsy context add {self.name} --service-address {service}=host:port",
            )
        return target


@dataclass(frozen=True, slots=True)
class ContextsFile:
    """All contexts, the name of the one in use ("" if none is), and the file that they are not in yet."""

    current: str = ""
    contexts: Mapping[str, Context] = field(default_factory=dict)
    missing: str = ""

    def chosen(self, name: str) -> Context:
        """The named context, or the one in use.

        Raises:
            UsageError: there is none.
        """
        if self.missing:
            raise UsageError(
                f"There is no context: {self.missing} does not exist.",
                "Let TLSY_CONFIG name a contexts file (a suite on this machine writes context.yaml in its "
                "data directory), or run: tlsy context add NAME --address HOST:PORT (or --from FILE).",
            )
        wanted = name or self.current
        if not wanted:
            raise UsageError(
                "No context is in use.", "Run: tlsy context add NAME --address HOST:PORT (or --from FILE)."
            )
        if wanted not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise UsageError(f"There is no context {wanted}.", f"Choose one of: {known}.")
        return self.contexts[wanted]

    def with_context(self, context: Context) -> ContextsFile:
        """With this context, in use if it is the first one."""
        return ContextsFile(self.current or context.name, {**self.contexts, context.name: context})

    def without(self, name: str) -> ContextsFile:
        """Without the named context; if it was in use, none is."""
        gone = self.chosen(name).name
        left = {other: context for other, context in self.contexts.items() if other != gone}
        return ContextsFile("" if self.current == gone else self.current, left)

    def renamed(self, name: str, new_name: str) -> ContextsFile:
        """With another name for a context, in its place.

        Raises:
            UsageError: there is none, or the new name is taken.
        """
        old = self.chosen(name)
        if new_name in self.contexts:
            raise UsageError(
                f"There is a context {new_name}.", "Choose another name, or delete that one first."
            )
        contexts = [replace(c, name=new_name) if c is old else c for c in self.contexts.values()]
        current = new_name if self.current == old.name else self.current
        return ContextsFile(current, {context.name: context for context in contexts})

    def using(self, name: str) -> ContextsFile:
        """With the named context in use."""
        return replace(self, current=self.chosen(name).name)


def parse(document: Any, source: str) -> ContextsFile:
    """The contexts in a YAML document.

    Raises:
        UsageError: its details name everything that is wrong.
    """
    problems: list[str] = []
    top = _mapping(document if document is not None else {}, "(file)", problems)
    problems += [f"{member}: unknown member" for member in top.keys() - {"current", "contexts"}]
    contexts = {
        str(name): _context(str(name), value, problems)
        for name, value in _mapping(top.get("contexts") or {}, "contexts", problems).items()
    }
    current = str(top.get("current") or "")
    if current and current not in contexts:
        problems.append(f"current: there is no context {current}")
    if problems:
        raise UsageError(f"{source} has {len(problems)} problem(s).", "Correct the file.", problems)
    return ContextsFile(current, contexts)


def dump(file: ContextsFile) -> dict[str, Any]:
    """The YAML document that `parse` reads back."""
    return {"current": file.current, "contexts": {c.name: members_of(c) for c in file.contexts.values()}}


def members_of(context: Context) -> dict[str, Any]:
    """What the contexts file says of a context."""
    members: dict[str, Any] = {"tenant": context.tenant}
    if "" in context.addresses:
        members["address"] = context.addresses[""]
    members["addresses"] = {service: target for service, target in context.addresses.items() if service}
    members |= {"api_key_file": context.api_key_file, "user": context.user, "start": context.start}
    members = {name: value for name, value in members.items() if value}
    if context.tls:
        members["tls"] = {"ca_file": context.ca_file} if context.ca_file else {}
    return members


def _context(name: str, value: Any, problems: list[str]) -> Context:
    at = f"contexts.{name}"
    members = _mapping(value, at, problems)
    problems += [f"{at}.{member}: unknown member" for member in sorted(members.keys() - _MEMBERS)]
    addresses = {
        str(service): str(target)
        for service, target in _mapping(members.get("addresses") or {}, f"{at}.addresses", problems).items()
    }
    problems += [
        f"{at}.addresses.{service}: no such service; one of {', '.join(SERVICES)}"
        for service in sorted(addresses.keys() - set(SERVICES))
    ]
    if members.get("address"):
        addresses[""] = str(members["address"])
    if not addresses:
        problems.append(f"{at}: needs address or addresses")
    if members.get("user") and members.get("api_key_file"):
        problems.append(f"{at}: has both user and api_key_file; a context is one identity, make it two")
    tls = members.get("tls")
    settings = _mapping(tls, f"{at}.tls", problems) if tls is not None else {}
    problems += [f"{at}.tls.{member}: unknown member" for member in sorted(settings.keys() - {"ca_file"})]
    return Context(
        name=name,
        addresses=addresses,
        tenant=str(members.get("tenant") or ""),
        api_key_file=str(members.get("api_key_file") or ""),
        user=str(members.get("user") or ""),
        tls=tls is not None,
        ca_file=str(settings.get("ca_file") or ""),
        start=str(members.get("start") or ""),
    )


def _mapping(value: Any, at: str, problems: list[str]) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    problems.append(f"{at}: must be a mapping")
    return {}
