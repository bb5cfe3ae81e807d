"""The end of an API key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

from tlsy.identity.domain.ids import KeyId, PrincipalKind, PrincipalRef
from tlsy.identity.domain.revocations import Cause
from tlsy.identity.handlers.guards import check_may_act_as, check_onboarding
from tlsy.rpc.errors import NotFound

if TYPE_CHECKING:
    from tlsy.identity.domain.api_keys import ApiKey
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import ApiKeys, Directories, RoleBindings
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class RevokeApiKey:
    """Not exchanged from the commit on, and its tokens refused everywhere; repeating it changes nothing."""

    def __init__(
        self,
        tenancy: Tenancy,
        keys: ApiKeys,
        bindings: RoleBindings,
        directories: Directories,
        effects: Effects,
    ) -> None:
        self._tenancy = tenancy
        self._keys = keys
        self._bindings = bindings
        self._directories = directories
        self._effects = effects

    async def run(self, call: Call, key_id: KeyId) -> ApiKey:
        """The key, revoked.

        Raises:
            NotFound: reason API_KEY_NOT_FOUND.
            PermissionDenied: reasons ROLE_ABOVE_CALLER, ONBOARDING_CLOSED.
        """

        async def act(tx: UnitOfWork) -> ApiKey:
            stored = await self._effects.replayed(tx, call)
            if stored is not None:
                return _found(await self._keys.lock(tx, KeyId(UUID(bytes=stored))))
            check_onboarding(call, await self._directories.lock(tx))
            key = _found(await self._keys.lock(tx, key_id))
            self._effects.remember(tx, call, key.id.bytes)
            if key.revoke_time is not None:
                return key
            return await self._revoke(tx, call, key)

        return await self._tenancy.run(call.required_tenant().tenant_id, act, write=True)

    async def _revoke(self, tx: UnitOfWork, call: Call, key: ApiKey) -> ApiKey:
        ref = PrincipalRef(PrincipalKind.API_KEY, key.id)
        held = await self._bindings.of(tx, ref)
        check_may_act_as(call, ref.kind, (binding.role for binding in held))
        now = self._effects.now()
        await self._keys.revoke(tx, key.id, now)
        name = ref.name(call.required_tenant().slug)
        await self._effects.revoke(tx, name, Cause.KEY, last_issued=key.last_issued_time)
        self._effects.audit(tx, call, resource=name)
        return replace(key, revoke_time=now)


def _found(key: ApiKey | None) -> ApiKey:
    if key is None:
        raise NotFound("API_KEY_NOT_FOUND", "There is no such API key.")
    return key
