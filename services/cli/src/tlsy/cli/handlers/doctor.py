"""tlsy doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from tlsy.cli.domain.contexts import SERVICES
from tlsy.cli.domain.errors import CommandError, RefusedError, UnreachableError
from tlsy.cli.handlers.command import command
from tlsy.cli.ports import Column, Terminal

if TYPE_CHECKING:
    from tlsy.cli.ports import Answer, Diagnosis

_COLUMNS: Final = (
    Column("CHECK", "check"),
    Column("STATE", "state"),
    Column("FINDING", "finding", fold=True),
    Column("WHAT TO DO", "next", fold=True),
)
_OLDEST_PYTHON: Final = (3, 11)
_LEAST_FREE: Final = 2 * 2**30
#: Tokens are good from a little before they are issued; beyond this they are refused.
_MOST_SKEW_S: Final = 5.0

Finding = dict[str, str]
State = Literal["OK", "WRONG", "UNKNOWN"]


@command("doctor")
async def doctor(terminal: Terminal) -> None:
    """Check this machine, the context's servers, credential and clock; each finding says what to do."""
    findings = [*_machine(terminal), *await _servers(terminal)]
    terminal.output.items(findings, _COLUMNS)
    bad = sum(finding["state"] != "OK" for finding in findings)
    if bad:
        raise RefusedError(f"{bad} of {len(findings)} checks are not OK.", "Do what each finding says.")


def _machine(terminal: Terminal) -> list[Finding]:
    diagnosis = terminal.diagnosis
    versions = diagnosis.versions()
    python = versions["python"]
    old = tuple(int(part) for part in python.split(".")[:2]) < _OLDEST_PYTHON
    findings = [
        _finding("python", "WRONG", python, "Install Python 3.11 or newer.")
        if old
        else _finding("python", "OK", python)
    ]
    ours = {name: version for name, version in versions.items() if name != "python"}
    told = ", ".join(f"{name} {version}" for name, version in ours.items())
    same = len(set(ours.values())) == 1
    findings.append(_finding("versions", "OK", f"tlsy {next(iter(ours.values()))}" if same else told))
    for check, find in (("disk", _disk), ("ports", _ports)):
        try:
            findings.append(find(diagnosis))
        except CommandError as error:
            findings.append(_finding(check, "WRONG", error.what, error.next_step))
    return findings


def _disk(diagnosis: Diagnosis) -> Finding:
    free = diagnosis.free_bytes()
    text = f"{free / 2**30:.1f} GiB free"
    if free < _LEAST_FREE:
        return _finding("disk", "WRONG", text, "Make room: databases and buffers need 2 GiB.")
    return _finding("disk", "OK", text)


def _ports(diagnosis: Diagnosis) -> Finding:
    diagnosis.bind_loopback()
    return _finding("ports", "OK", "loopback ports can be listened on")


async def _servers(terminal: Terminal) -> list[Finding]:
    try:
        context = terminal.session.context
    except CommandError as error:
        return [_finding("context", "WRONG", error.what, error.next_step)]
    findings = [_finding("context", "OK", context.name)]
    for service in SERVICES:
        try:
            answer = await terminal.diagnosis.ask(service)
        except CommandError as error:
            findings.append(_finding(service, "WRONG", error.what, error.next_step))
        else:
            findings.append(_of_service(service, answer))
    return [*findings, *await _identity(terminal)]


async def _identity(terminal: Terminal) -> list[Finding]:
    try:
        identity = await terminal.diagnosis.identity()
    except CommandError as error:
        state: State = "UNKNOWN" if isinstance(error, UnreachableError) else "WRONG"
        return [
            _finding("credential", state, error.what, error.next_step),
            _finding("clock", "UNKNOWN", "no token to compare with", "See what is said of the credential."),
        ]
    return [_finding("credential", "OK", identity.principal), _of_clock(identity.skew_s)]


def _of_clock(skew_s: float | None) -> Finding:
    if skew_s is None:
        return _finding(
            "clock", "UNKNOWN", "the token does not say when it was issued", "Upgrade the server."
        )
    text = f"{abs(skew_s):.2f} s {'behind' if skew_s > 0 else 'ahead of'} the servers"
    if abs(skew_s) > _MOST_SKEW_S:
        return _finding("clock", "WRONG", text, "Set the clock: run chronyd or systemd-timesyncd.")
    return _finding("clock", "OK", text)


def _of_service(service: str, answer: Answer) -> Finding:
    if not answer.serving:
        todo = "Its log says what it waits for; databases, Kafka and its peers must be there."
        return _finding(service, "WRONG", "reachable, takes no calls yet", todo)
    if answer.lacks:
        text = f"serving, but older than this command line: lacks {', '.join(answer.lacks)}"
        return _finding(service, "WRONG", text, "Upgrade the server, or use its version of tlsy.")
    return _finding(service, "OK", "serving")


def _finding(check: str, state: State, finding: str, todo: str = "") -> Finding:
    return {"check": check, "state": state, "finding": finding, "next": todo}
