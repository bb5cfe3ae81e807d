from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from functools import partial
from importlib import metadata

import pytest

from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2


@pytest.fixture
def start(tlsy):
    async def run(*args, **options):
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tlsy.cli", *args,
            stdin=options.get("stdin", asyncio.subprocess.DEVNULL),
            stdout=options.get("stdout", asyncio.subprocess.PIPE),
            stderr=asyncio.subprocess.PIPE,
            # Buffered, as programs are where nobody sets that.
            env={
                **os.environ,
                "TLSY_CONFIG": str(tlsy.config),
                "PYTHONUNBUFFERED": "",
                **options.get("env", {}),
            },
        )  # fmt: skip

    return run


async def finished(process):
    # A program whose modules are not compiled yet takes long to start on a busy machine.
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    return process.returncode, (out or b"").decode(), err.decode()


async def test_help_loads_neither_grpc_nor_a_commands_module():
    script = (
        "import sys; sys.argv = ['tlsy', '--help']\n"
        "from tlsy.cli.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'google.protobuf', 'rich', 'asyncpg', 'yaml'} & sys.modules.keys()\n"
        "print(heavy, [m for m in sys.modules if m.startswith('tlsy.cli.handlers.')])\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, out, _ = await finished(process)
    assert out.splitlines()[-1] == "set() []"


async def processor_s(begin):
    """What a program takes of a processor, at best; the clock on the wall measures the others too."""
    taken_s = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        await finished(await begin())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken_s)


async def test_help_takes_less_than_300_ms(start):
    python = partial(asyncio.create_subprocess_exec, sys.executable, stderr=asyncio.subprocess.PIPE)
    nothing_s = await processor_s(partial(python, "-c", ""))
    # A machine that takes long to start Python at all has as much longer.
    assert await processor_s(partial(start, "--help")) < max(0.3, 12 * nothing_s)


async def test_a_pipe_gets_no_colours_and_nothing_is_cut(start, stand_in):
    user = identity_pb2.User(name="tenants/home/users/1", email="a@b.c", display_name="long " * 60)
    stand_in.answers["ListUsers"] = identity_pb2.ListUsersResponse(users=[user])
    _, out, err = await finished(await start("users", "list"))
    assert "\x1b" not in out + err
    assert out.splitlines()[1].count("long") == 60


async def test_a_reader_that_goes_away_ends_it_quietly(start, stand_in):
    users = [identity_pb2.User(name=f"tenants/home/users/{n}", email="a@b.c") for n in range(5000)]
    stand_in.answers["ListUsers"] = identity_pb2.ListUsersResponse(users=users)
    reading, writing = os.pipe()
    os.close(reading)
    process = await start("users", "list", "--limit", "5000", stdout=writing)
    os.close(writing)
    code, _, err = await finished(process)
    assert (code, err) == (-signal.SIGPIPE, "")


async def test_what_a_terminal_has_no_letters_for_is_shown_all_the_same(start, stand_in):
    user = identity_pb2.User(name="tenants/home/users/1", email="a@b.c", display_name="Zoé €")
    stand_in.answers["ListUsers"] = identity_pb2.ListUsersResponse(users=[user])
    latin = {"env": {"PYTHONIOENCODING": "ascii"}}
    code, out, _ = await finished(await start("users", "list", **latin))
    assert (code, "Zo? ?" in out) == (0, True)
    _, out, _ = await finished(await start("users", "list", "-o", "json", **latin))
    assert json.loads(out)[0]["displayName"] == "Zoé €"
    assert (await finished(await start("dead-letters", "list", "--help", **latin)))[0] == 0


async def test_an_argument_that_is_no_text_is_told(start):
    code, out, err = await finished(await start("events", "query", "--type", b"caf\xe9"))
    assert (code, out) == (2, "")
    assert "is no text in UTF-8" in err


async def test_wrong_usage_is_exit_code_2_with_where_help_is(start):
    code, _, err = await finished(await start("users", "lst"))
    assert code == 2
    assert "Try 'tlsy users -h' for help." in err
    assert "Traceback" not in err


async def test_an_unknown_choice_is_exit_code_2_with_those_there_are(start):
    for args in (["rules", "list", "--output", "yaml"], ["-o", "yaml", "rules", "list"]):
        code, out, err = await finished(await start(*args))
        assert (code, out) == (2, "")
        assert err.endswith("Invalid value for '--output' / '-o': 'yaml' is not one of 'table', 'json'.\n")


@pytest.mark.parametrize("option", ["--tenant", "--context"])
async def test_an_empty_name_is_not_the_one_in_use(start, stand_in, option):
    for args in (["rules", "list", option, ""], [option, "", "rules", "list"]):
        code, out, err = await finished(await start(*args))
        assert (code, out, stand_in.asked) == (2, "", [])
        assert f"'{option}': it is empty. Name one, or leave the option out." in err


async def test_an_interrupted_tail_ends_without_a_trace(start, stand_in):
    event = ingestion_pb2.Event(source="s", id="1", type="a.b")

    async def tail():
        while True:
            yield ingestion_pb2.TailEventsResponse(events=[event])
            await asyncio.sleep(0.01)

    stand_in.answers["TailEvents"] = lambda _: tail()
    process = await start("events", "tail", "-o", "json")
    async with asyncio.timeout(60):
        assert json.loads(await process.stdout.readline())["source"] == "s"
    process.send_signal(signal.SIGINT)
    code, _, err = await finished(process)
    assert (code, err) == (130, "")


async def test_a_pipe_is_sent_as_it_comes(start, stand_in):
    """A line does not wait for a batch to fill, nor for the pipe to end."""
    stand_in.answers["IngestEvents"] = lambda request: ingestion_pb2.IngestEventsResponse(
        outcomes=[ingestion_pb2.OUTCOME_ACCEPTED] * len(request.events)
    )
    process = await start("events", "send", "-o", "json", stdin=asyncio.subprocess.PIPE)
    for count in (1, 2):
        process.stdin.write(b'{"type": "a.b"}\n')
        async with asyncio.timeout(60):
            while stand_in.methods().count("IngestEvents") < count:
                await asyncio.sleep(0.01)
    process.stdin.close()
    code, out, err = await finished(process)
    assert (code, err, json.loads(out)[0]["events"]) == (0, "", 2)


async def test_waiting_for_a_pipe_is_interrupted_without_a_trace(start, stand_in):
    stand_in.answers["IngestEvents"] = lambda request: ingestion_pb2.IngestEventsResponse(
        outcomes=[ingestion_pb2.OUTCOME_ACCEPTED] * len(request.events)
    )
    process = await start("events", "send", stdin=asyncio.subprocess.PIPE)
    process.stdin.write(b'{"type": "a.b"}\n')
    async with asyncio.timeout(60):
        while "IngestEvents" not in stand_in.methods():
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        code, err = await process.wait(), (await process.stderr.read()).decode()
    assert code == 130
    assert "Go on from line" in err
    assert "Traceback" not in err
    assert "Fatal" not in err


@pytest.mark.parametrize("loading", ["typer", "tlsy.cli.handlers.events"])
async def test_a_completion_that_is_interrupted_while_modules_are_loaded_ends_quietly(loading):
    script = (
        "import os, signal, sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {loading!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from tlsy.cli.__main__ import main; main()"
    )
    environ = {"_TLSY_COMPLETE": "complete_bash", "COMP_WORDS": "tlsy events ", "COMP_CWORD": "2"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environ},
    )  # fmt: skip
    assert await finished(process) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("args", [["doctor"], ["context", "list"], ["whoami", "-o", "json"]])
async def test_an_output_that_takes_no_more_is_told(start, args):
    full = os.open("/dev/full", os.O_WRONLY)
    process = await start(*args, stdout=full)
    os.close(full)
    code, _, err = await finished(process)
    assert (code, len(err.splitlines())) == (2, 2)
    assert "Standard output takes no more" in err


async def test_a_services_key_whose_public_half_could_not_be_told_is_not_kept(start, tmp_path):
    full = os.open("/dev/full", os.O_WRONLY)
    process = await start("service-key", tmp_path / "any.jwk", "-o", "json", stdout=full)
    os.close(full)
    code, _, err = await finished(process)
    assert (code, "Standard output takes no more" in err) == (2, True)
    assert not (tmp_path / "any.jwk").exists()


@pytest.mark.parametrize("target", ["/dev/full", ""])
async def test_a_secret_that_could_not_be_shown_is_told_with_what_to_revoke(tlsy, stand_in, target):
    stand_in.answers["CreateApiKey"] = identity_pb2.CreateApiKeyResponse(
        api_key=identity_pb2.ApiKey(name="tenants/home/apiKeys/k7"), secret="tlsy_s"
    )
    # What a shell does with 1>/dev/full and with 1>&-.
    shell = ("sh", "-c", f'exec "$0" -m tlsy.cli keys create agent 1>{target or "&-"}', sys.executable)
    process = await asyncio.create_subprocess_exec(
        *shell, stderr=asyncio.subprocess.PIPE, env={**os.environ, "TLSY_CONFIG": str(tlsy.config)}
    )
    code, _, err = await finished(process)
    happened, then = err.splitlines()
    assert (code, "The key was made, and its secret is lost." in happened) == (2, True)
    assert "tlsy keys revoke k7" in then


COMPLETION = {"_TLSY_COMPLETE": "complete_bash", "COMP_WORDS": "tlsy tenants get ", "COMP_CWORD": "3"}


@pytest.mark.parametrize(
    ("args", "environ", "expected"), [(["context", "list"], {}, ["IN", "USE"]), ([], COMPLETION, [])]
)
async def test_what_libraries_would_still_end_is_not_waited_for(tlsy, args, environ, expected):
    script = "import atexit; atexit.register(print, 'late'); from tlsy.cli.__main__ import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *args,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TLSY_CONFIG": str(tlsy.config), **environ},
    )  # fmt: skip
    code, out, err = await finished(process)
    assert (code, out.split()[:2], err) == (0, expected, "")
    assert "late" not in out


async def test_what_libraries_log_is_not_mixed_with_what_is_told(start):
    place = ("--brokers", "127.0.0.1:1", "--topic", "tlsy.ingestion", "--group", "rules-engine")
    code, _, err = await finished(await start("dead-letters", "list", *place))
    assert (code, [line.split(":")[0] for line in err.splitlines()]) == (3, ["error", "next"])


async def test_the_version_is_said_and_nothing_else_asked_for(start):
    code, out, err = await finished(await start("--version"))
    assert (code, out, err) == (0, f"{metadata.version('tlsy-cli')}\n", "")
