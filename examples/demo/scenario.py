"""The steps of the demonstration, from an empty machine to incidents that open and resolve."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
import yaml

from examples.demo.processes import ROOT, DemoError
from examples.demo.sessions import eventually
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules_pb
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from examples.demo.faults import DoorPort
    from examples.demo.processes import Processes, Running
    from examples.demo.sessions import Principals, Session

    Apply = Callable[[Path], Awaitable[tuple[int | None, str]]]

TENANTS: Final = ROOT / "examples" / "tenants"
RULES: Final = ROOT / "examples" / "rules"
CERTIFICATE_RULE: Final = "certificate-ends-soon"
PORT_RULE: Final = "port-closed"
_APPLY_TIMEOUT_S: Final = 300.0
#: What a busy machine may need for what takes an idle one a second.
_STEP_TIMEOUT_S: Final = 45.0
#: How `tlsy` ends when a server does not answer.
_UNREACHABLE: Final = 3
_POLL_S: Final = 0.1


@dataclass(slots=True)
class Tenant:
    """A tenant of the demonstration, and who acts in it."""

    slug: str
    display_name: str
    mode: str
    tenant_id: str
    administrator: Session
    agent: Session
    incidents: dict[str, rules_pb.Incident] = field(default_factory=dict)
    stored: int = 0
    rate_per_s: float = 0.0

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"tenants/{self.slug}"


async def tlsy_apply(cli_config: Path) -> tuple[int | None, str]:
    """Runs the command; how it ended, and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tlsy.cli", "--context", "embedded", "apply", "-f", str(TENANTS)),
        env={"TLSY_CONFIG": str(cli_config), "PATH": "", "HOME": str(cli_config.parent)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Who presses Ctrl-C stops the demonstration, which ends it.
        start_new_session=True,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode(errors="replace")


async def apply_manifests(
    processes: Processes,
    platform: Session,
    say: Callable[[str], None],
    within_s: float = _APPLY_TIMEOUT_S,
    apply: Apply = tlsy_apply,
) -> None:
    """What kubectl would do: `tlsy apply -f examples/tenants`; again, while the machine is too slow for it.

    Args:
        processes: have the suite's contexts file.
        platform: lists the tenants meanwhile.
        say: is told which are made.
        within_s: how long that may take.
        apply: runs the command once.

    Raises:
        DemoError: the command failed, and the message is what it said; or it took too long.
    """
    telling = asyncio.create_task(_tell_what_is_made(platform, say))
    try:
        async with asyncio.timeout(within_s):
            while (broken := processes.broken()) is None:
                code, said = await apply(processes.data / "suite" / "context.yaml")
                if code == 0:
                    return
                if code != _UNREACHABLE:
                    raise DemoError(f"tlsy apply failed:\n{said}")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise DemoError(
            f"Applying the tenants took more than {within_s:.0f} s (this machine is busy?); "
            f"what is done stays: make demo again\nThe suite's log is {processes.logs / 'suite.log'}"
        ) from None
    finally:
        telling.cancel()
    raise DemoError(broken)


async def _tell_what_is_made(platform: Session, say: Callable[[str], None]) -> None:
    names, told = slugs(), set[str]()
    while True:
        with suppress(grpc.aio.AioRpcError):
            request = tenant_registry_pb2.ListTenantsRequest(page_size=1000)
            for tenant in (await platform.registry.ListTenants(request)).tenants:
                slug = tenant.name.removeprefix("tenants/")
                if tenant.state == tenant_pb2.TENANT_STATE_PROVISIONING and slug in set(names) - told:
                    told.add(slug)
                    say(f"Making {tenant.display_name}, tenant {names.index(slug) + 1} of {len(names)}")
        await asyncio.sleep(_POLL_S * 5)


def slugs() -> list[str]:
    """The tenants of the manifests, parents first."""
    found = []
    for path in sorted(TENANTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            found += [document["metadata"]["name"]] if document["kind"] == "Tenant" else []
    return found


async def onboard(slug: str, platform: Session, principals: Principals) -> Tenant:
    """An administrator, an agent's key and the rules."""
    entry = await platform.registry.GetTenant(tenant_registry_pb2.GetTenantRequest(name=f"tenants/{slug}"))
    administrator = await principals.administrator(slug, platform)
    await principals.agent_key(slug, administrator)
    tenant = Tenant(
        slug=slug,
        display_name=entry.display_name,
        mode=tenant_pb2.IsolationMode.Name(entry.isolation_mode).removeprefix("ISOLATION_MODE_"),
        tenant_id=entry.tenant_id,
        administrator=administrator,
        agent=principals.agent(slug),
    )
    await asyncio.gather(*(publish(tenant, path.stem, path.read_bytes()) for path in RULES.glob("*.json")))
    return tenant


async def publish(tenant: Tenant, rule: str, document: bytes) -> rules_pb.Rule:
    """Makes the document the rule's live version."""
    request = rules_pb.PublishRuleRequest(name=f"{tenant.name}/rules/{rule}", document=document)
    return await eventually(lambda: tenant.administrator.rules.PublishRule(request))


async def start_agent(
    tenant: Tenant, running: Running, processes: Processes, key_file: Path, ports: Mapping[str, int]
) -> None:
    """An agent of the tenant on this host, which also watches the two faults."""
    await processes.start_agent(
        tenant.slug,
        {
            "endpoints": {name: running.services[name] for name in ("identity", "ingestion")},
            "api_key_file": str(key_file),
            "buffer": {"directory": str(processes.data / "agents" / tenant.slug)},
            "source": f"agent/{tenant.slug}",
            "site": "this-host",
            "labels": {"canary": tenant.slug},
            "interval_s": 1.0,
            "tcp": [{"name": "till", "host": "127.0.0.1", "port": ports["tcp"], "timeout_s": 0.5}],
            "tls": [{"name": "shop", "host": "127.0.0.1", "port": ports["tls"], "timeout_s": 0.5}],
        },
    )


async def refresh(tenant: Tenant, previous_s: float) -> None:
    """Reads what the tenant has now: its events of the month and its incidents."""
    usage, page = await asyncio.gather(
        tenant.administrator.ingestion.GetIngestUsage(
            ingestion_pb2.GetIngestUsageRequest(parent=tenant.name)
        ),
        tenant.administrator.rules.ListIncidents(
            rules_pb.ListIncidentsRequest(parent=tenant.name, page_size=200)
        ),
    )
    tenant.rate_per_s = (usage.accepted - tenant.stored) / previous_s if tenant.stored else 0.0
    tenant.stored = usage.accepted
    tenant.incidents = {incident.name: incident for incident in page.incidents}


async def until(what: str, holds: Callable[[], Awaitable[bool]], processes: Processes) -> None:
    """Waits until something holds.

    Raises:
        DemoError: a process ended meanwhile, or it did not hold in time.
    """
    began_s = time.monotonic()
    while time.monotonic() - began_s < _STEP_TIMEOUT_S:
        if await holds():
            return
        broken = processes.broken()
        if broken:
            raise DemoError(broken)
        await asyncio.sleep(_POLL_S)
    raise DemoError(f"{what}: not within {_STEP_TIMEOUT_S:.0f} s")


async def has_incident(tenant: Tenant, rule: str, *states: rules_pb.IncidentState.ValueType) -> bool:
    """Whether the tenant has an incident of the rule in one of these states."""
    page = await tenant.administrator.rules.ListIncidents(
        rules_pb.ListIncidentsRequest(
            parent=tenant.name, rule=f"{tenant.name}/rules/{rule}", states=states, page_size=10
        )
    )
    return bool(page.incidents)


async def break_and_mend(
    tenants: list[Tenant], door: DoorPort, processes: Processes, say: Callable[[str], None]
) -> None:
    """The certificate and the closed port open incidents everywhere; the port's resolve when it opens.

    Meanwhile the first tenant's administrator takes the port in hand.
    """

    async def all_have(rule: str, *states: rules_pb.IncidentState.ValueType) -> bool:
        return all(await asyncio.gather(*(has_incident(tenant, rule, *states) for tenant in tenants)))

    async def none_has(rule: str, *states: rules_pb.IncidentState.ValueType) -> bool:
        return not any(await asyncio.gather(*(has_incident(tenant, rule, *states) for tenant in tenants)))

    going_on = (rules_pb.INCIDENT_STATE_OPEN, rules_pb.INCIDENT_STATE_ACKNOWLEDGED)
    # On data of an earlier run the port may have been closed when it ended.
    await until("the open port is noticed", lambda: none_has(PORT_RULE, *going_on), processes)
    await until("the certificate is noticed", lambda: all_have(CERTIFICATE_RULE, *going_on), processes)
    await door.close()
    await until("the closed port is noticed", lambda: all_have(PORT_RULE, *going_on), processes)
    await acknowledge(tenants[0], PORT_RULE)
    say(f"{tenants[0].display_name}'s administrator has acknowledged the closed port")
    await door.open()
    await until("the open port is noticed", lambda: none_has(PORT_RULE, *going_on), processes)


async def acknowledge(tenant: Tenant, rule: str) -> None:
    """The administrator takes the open incident of the rule in hand."""
    page = await tenant.administrator.rules.ListIncidents(
        rules_pb.ListIncidentsRequest(
            parent=tenant.name,
            rule=f"{tenant.name}/rules/{rule}",
            states=[rules_pb.INCIDENT_STATE_OPEN],
        )
    )
    request = rules_pb.AcknowledgeIncidentRequest(name=page.incidents[0].name, note="looking at it")
    await tenant.administrator.rules.AcknowledgeIncident(request)


async def roll_back(tenant: Tenant, processes: Processes, say: Callable[[str], None]) -> float:
    """Publishes a version that fires for nothing, rolls back, and measures until the old one fires: ms.

    Raises:
        DemoError: the roll-back did not take effect.
    """
    rule = "demo-roll-back"
    fires = {
        "schema": "tlsy.rule/1",
        "name": rule,
        "match": {"type": "demo.signal", "unseen": True},
        "when": {"gt": [{"field": "value"}, 10]},
        "incident": {"severity": "info", "summary": "Signal {value}"},
    }
    silent = {**fires, "when": {"gt": [{"field": "value"}, 1e9]}}
    first = await publish(tenant, rule, json.dumps(fires).encode())
    await publish(tenant, rule, json.dumps(silent).encode())
    fired = rules_pb.INCIDENT_STATE_OPEN

    async def quiet() -> bool:
        return not await has_incident(tenant, rule, fired)

    await until("the new version fires for nothing", quiet, processes)
    before = time.monotonic()
    restored = await tenant.administrator.rules.RollbackRule(
        rules_pb.RollbackRuleRequest(name=f"{tenant.name}/rules/{rule}")
    )
    if restored.live_version != first.live_version:
        raise DemoError("the roll-back did not restore the version before")
    await send(tenant, 1, type_="demo.signal", value=11.0)
    await until("the rolled-back rule fires", lambda: has_incident(tenant, rule, fired), processes)
    rolled_back_ms = (time.monotonic() - before) * 1000
    say(f"A rule was rolled back: its version before fired after {rolled_back_ms:.0f} ms")
    # Nothing of it is left to look like news in the next demonstration.
    await send(tenant, 1, type_="demo.signal", value=0.0)
    await until("the signal ends", quiet, processes)
    return rolled_back_ms


async def send(
    tenant: Tenant, count: int, *, type_: str, value: float, twice: bool = False
) -> list[ingestion_pb2.Outcome.ValueType]:
    """Sends events as the tenant's agent, with `twice` the same batch again; the last outcomes."""
    now_us = time.time_ns() // 1000
    request = ingestion_pb2.IngestEventsRequest(
        parent=tenant.name,
        events=[
            ingestion_pb2.Event(
                source="demo",
                id=f"{now_us}-{number}",
                time_us=now_us + number,
                type=type_,
                value=value,
                labels={"canary": tenant.slug},
            )
            for number in range(count)
        ],
    )
    answer = await tenant.agent.ingestion.IngestEvents(request)
    if twice:
        answer = await tenant.agent.ingestion.IngestEvents(request)
    return list(answer.outcomes)
