"""A new API key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tlsy.identity.domain.api_keys import (
    SECRET_BYTES,
    ApiKey,
    hash_secret,
    key_problems,
    prefix_of,
    render,
)
from tlsy.identity.domain.bindings import RoleBinding, role_problems
from tlsy.identity.domain.ids import BindingId, KeyId, PrincipalKind, PrincipalRef
from tlsy.identity.handlers.guards import check_may_act_as, check_onboarding, refuse_problems
from tlsy.rpc.errors import FailedPrecondition
from tlsy.rpc.permissions import ROLES
from tlsy.runtime.ids import PLATFORM_TENANT_ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import ApiKeys, Directories, RoleBindings
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

_LIMIT: Final = "api_keys"


@dataclass(frozen=True, slots=True)
class CreateApiKeyCommand:
    """`expire_time` None: never."""

    display_name: str
    role: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """The key, and the one sight of its secret."""

    key: ApiKey
    secret: str = field(repr=False)


class CreateApiKey:
    """Not idempotent: the secret is stored nowhere, so a repeated request could not be answered alike."""

    def __init__(
        self,
        tenancy: Tenancy,
        *,
        keys: ApiKeys,
        bindings: RoleBindings,
        directories: Directories,
        effects: Effects,
        random: Callable[[int], bytes],
    ) -> None:
        self._tenancy = tenancy
        self._keys = keys
        self._bindings = bindings
        self._directories = directories
        self._effects = effects
        self._random = random

    async def run(self, call: Call, command: CreateApiKeyCommand) -> CreatedKey:
        """The key, bound to its role in every module.

        Raises:
            PermissionDenied: reasons ROLE_ABOVE_CALLER, ONBOARDING_CLOSED.
            InvalidArgument: with everything that is wrong.
            FailedPrecondition: reason API_KEY_LIMIT.
        """
        tenant = call.required_tenant()
        # First: to reach for a role above one's own is a denial, whatever else is wrong.
        check_may_act_as(call, PrincipalKind.API_KEY, ROLES.keys() & {command.role})
        in_platform = tenant.tenant_id == PLATFORM_TENANT_ID
        problems = key_problems(command.display_name, command.expire_time, self._effects.now())
        problems += role_problems("role", command.role, ROLES, in_platform_tenant=in_platform)
        refuse_problems(problems)
        secret = self._random(SECRET_BYTES)
        key = ApiKey(
            id=KeyId(self._effects.new_id()),
            display_name=command.display_name,
            role=command.role,
            secret_hash=hash_secret(secret),
            prefix=prefix_of(secret),
            create_time=self._effects.now(),
            expire_time=command.expire_time,
            revoke_time=None,
            last_used_time=None,
        )
        await self._tenancy.run(tenant.tenant_id, lambda tx: self._store(tx, call, key), write=True)
        return CreatedKey(key, render(tenant.tenant_id, key.id, secret))

    async def _store(self, tx: UnitOfWork, call: Call, key: ApiKey) -> None:
        tenant = call.required_tenant()
        check_onboarding(call, await self._directories.lock(tx))
        limit = tenant.entitlements.get(_LIMIT)
        if limit is not None and await self._keys.count_usable(tx, key.create_time) >= limit:
            raise FailedPrecondition(
                "API_KEY_LIMIT", f"The tenant may have {limit} API keys.", metadata={"limit": str(limit)}
            )
        ref = PrincipalRef(PrincipalKind.API_KEY, key.id)
        await self._keys.insert(tx, key)
        await self._bindings.insert(
            tx,
            RoleBinding(
                id=BindingId(self._effects.new_id()),
                principal=ref,
                role=key.role,
                module="",
                create_time=key.create_time,
            ),
        )
        details = {"role": key.role, "prefix": key.prefix, "expires": key.expire_time is not None}
        self._effects.audit(tx, call, resource=ref.name(tenant.slug), details=details)
