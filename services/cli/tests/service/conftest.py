from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from tlsy.cli.adapters.command_line import Program, command_line
from tlsy.cli.adapters.session import DESCRIPTORS
from tlsy.cli.app import Process, complete, execute
from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.rpc.errors import STATUS_KEY, ServiceError


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that came in: its method, its message, the token that came with it."""

    method: str
    request: object
    token: str


def token_of(tenant, issued_at=None, roles=(("operator", "supervision"),)):
    """Shaped as a JSON web token; nobody here verifies it."""
    issued_at = issued_at or time.time()
    claims = {
        "slug": tenant,
        "iat": issued_at,
        "exp": issued_at + 600,
        "roles": roles,
    }
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{body}.{tenant}"


class StandIn:
    """All four services on one socket.

    An answer is a message, an error, or a function of the request that gives one, a coroutine function too; a
    list is used up one by one. A method without an answer gives an empty message. A stream ends with
    `ends_with`, if there is one.
    """

    def __init__(self, target):
        self.target = target
        self.asked = []
        self.answers = {"ExchangeApiKey": self._exchange_key, "ExchangeToken": self._exchange_token}
        self.clock_ahead_s = 0.0
        self.lifetime_s = 600
        self.role_below = "client-admin"
        self.ends_with = None
        self.health = health.HealthServicer()
        self._server = None

    def methods(self):
        return [asked.method for asked in self.asked]

    def only(self, method):
        (found,) = [asked for asked in self.asked if asked.method == method]
        return found

    async def up(self, *, services=tuple(DESCRIPTORS)):
        self._server = aio.server()
        for name in services:
            descriptor = DESCRIPTORS[name]
            handlers = {method.name: self._handler(method) for method in descriptor.methods}
            self._server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(descriptor.full_name, handlers)]
            )
            await self.health.set(descriptor.full_name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        reflection.enable_server_reflection([DESCRIPTORS[n].full_name for n in services], self._server)
        self._server.add_insecure_port(self.target)
        await self._server.start()

    async def down(self):
        if self._server is not None:
            await self._server.stop(0)

    def _handler(self, method):
        request_type, response_type = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        async def unary(request, context):
            return await self._answer(method.name, request, context, response_type)

        async def stream(request, context):
            answers = await self._answer(method.name, request, context, list)
            if isinstance(answers, list):
                answers = _each(answers)
            async for answer in answers:
                yield answer
            if self.ends_with is not None:
                await _abort(context, self.ends_with)

        kind = grpc.unary_stream_rpc_method_handler if method.server_streaming else None
        make = kind or grpc.unary_unary_rpc_method_handler
        return make(
            stream if method.server_streaming else unary,
            request_deserializer=request_type.FromString,
            response_serializer=response_type.SerializeToString,
        )

    async def _answer(self, name, request, context, empty):
        bearer = dict(context.invocation_metadata()).get("authorization", "")
        self.asked.append(Asked(name, request, bearer.removeprefix("Bearer ").rsplit(".", 1)[-1]))
        answer = self.answers.get(name)
        if isinstance(answer, list) and not DESCRIPTOR_STREAMS.get(name):
            answer = answer.pop(0) if answer else None
        if callable(answer):
            answer = answer(request)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, ServiceError):
            await _abort(context, answer)
        return empty() if answer is None else answer

    def _exchange_key(self, request):
        answer = identity_pb2.ExchangeApiKeyResponse(
            tenant="tenants/home", principal="tenants/home/apiKeys/1"
        )
        answer.token.access_token = token_of("home", time.time() + self.clock_ahead_s)
        answer.token.expires_in.FromSeconds(self.lifetime_s)
        return answer

    def logged_in(self, request):
        """An answer to LogIn."""
        answer = identity_pb2.LogInResponse(principal=f"{request.tenant}/users/1")
        answer.token.access_token = token_of("acme", time.time() + self.clock_ahead_s)
        answer.token.expires_in.FromSeconds(600)
        return answer

    def _exchange_token(self, request):
        answer = identity_pb2.ExchangeTokenResponse(roles=[self.role_below])
        answer.token.access_token = token_of(
            request.target_tenant.removeprefix("tenants/"), roles=[[self.role_below, None]]
        )
        answer.token.expires_in.FromSeconds(600)
        return answer


async def _abort(context, error):
    status = error.to_status("tlsy.stand-in").SerializeToString()
    await context.abort(error.code, error.message, ((STATUS_KEY, status),))


async def _each(answers):
    for answer in answers:
        yield answer


DESCRIPTOR_STREAMS = {
    method.name: method.server_streaming for each in DESCRIPTORS.values() for method in each.methods
}


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class _Screen(io.StringIO):
    def isatty(self):
        return True


class CommandLine:
    """Runs `tlsy` as a person would, with a contexts file and a standard input of the test's own."""

    def __init__(self, folder):
        self.config = folder / "config.yaml"
        self.folder = folder
        self.environ = {"TLSY_CONFIG": str(self.config)}
        self.home = Path.home

    def context(self, **members):
        document = {"current": "c", "contexts": {"c": members}}
        self.config.write_text(json.dumps(document))

    async def __call__(self, *args, stdin="", screen=False):
        out, err = io.StringIO(), _Screen() if screen else io.StringIO()
        typed = io.TextIOWrapper(io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()))
        process = Process(environ=self.environ, home=self.home, stdin=typed, out=out, err=err)
        program = Program(partial(execute, process), partial(complete, process))
        run = partial(command_line(), args=args, prog_name="tlsy", obj=program)
        code = await asyncio.to_thread(partial(run, standalone_mode=False))
        return Result(code or 0, out.getvalue(), err.getvalue())


@pytest.fixture
async def stand_in(tmp_path):
    server = StandIn(f"unix:{tmp_path}/s")
    await server.up()
    yield server
    await server.down()


@pytest.fixture
def tlsy(stand_in, tmp_path):
    """The command line with an API key of tenant "home"."""
    (tmp_path / "key").write_text("tlsy_key\n")
    line = CommandLine(tmp_path)
    line.context(address=stand_in.target, api_key_file="key")
    return line
