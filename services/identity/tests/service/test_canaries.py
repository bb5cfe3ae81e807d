from __future__ import annotations

import re
from typing import Any

import grpc
import pytest

from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.testkit.logs import recorded_logs

pytestmark = pytest.mark.asyncio(loop_scope="session")
EMAIL = "canary.email@example.org"
NAME = "Canary Displayname"
FIRST, SECOND, WRONG = "canary password one", "canary password two", "canary password wrong"


async def everything(suite, logged: str) -> str:
    """Every text that the service wrote anywhere but in its answers."""
    written = [logged]
    places = {suite.installation.control, *(e.placement for e in suite.tenants.values() if e.placement)}
    for place in places:
        async with suite.administrator(place) as connection:
            tables = await connection.fetch(
                "select format('%I.%I', schemaname, tablename) as name from pg_tables"
                " where schemaname not in ('pg_catalog', 'information_schema')"
            )
            for table in tables:
                rows = await connection.fetch(f"select t::text as row from {table['name']} t")
                written += [row["row"] for row in rows]
    text = "\n".join(written)
    return text + "\n".join(_decoded(found) for found in re.findall(r"\\+x([0-9a-f]+)", text))


def _decoded(digits: str) -> str:
    return bytes.fromhex(digits[: len(digits) // 2 * 2]).decode("utf-8", errors="replace")


async def use_everything(suite, tenant: str) -> str:
    """Every way in which personal data and secrets come in, good and refused; the API key's secret."""
    parent = f"tenants/{suite.tenants[tenant].slug}"
    stub = suite.stub(await suite.into(tenant))
    create = pb.CreateUserRequest(
        parent=parent,
        user=pb.User(email=EMAIL, display_name=NAME),
        password=FIRST,
        request_id="01890000-0000-7000-8000-00000000000a",
    )
    user = await stub.CreateUser(create)
    await _refused(stub.CreateUser(pb.CreateUserRequest(parent=parent, user=pb.User(email=EMAIL))))
    await suite.log_in(suite.tenants[tenant].slug, EMAIL, FIRST)
    await _refused(suite.log_in(suite.tenants[tenant].slug, EMAIL, WRONG))
    await stub.SetPassword(pb.SetPasswordRequest(name=user.name, new_password=SECOND))
    key = pb.CreateApiKeyRequest(parent=parent, display_name="agent", role="agent")
    secret = (await stub.CreateApiKey(key)).secret
    await suite.key_token(secret)
    await _refused(suite.key_token(secret + "0"))
    await stub.DeleteUser(pb.DeleteUserRequest(name=user.name))
    return str(secret).split("_")[3]


async def _refused(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    text = f"{caught.value.details()} {caught.value.trailing_metadata()}"
    assert "anary" not in text


@pytest.mark.parametrize("tenant", ["shared", "schema", "dedicated"])
async def test_no_secret_and_no_personal_data_is_written_in_clear(suite, tenant) -> None:
    with recorded_logs(level="debug") as lines:
        secret = await use_everything(suite, tenant)
    text = await everything(suite, lines.text)
    assert "CreateUser" in text
    for canary in (EMAIL, EMAIL.upper(), NAME, FIRST, SECOND, WRONG, secret):
        assert canary not in text
