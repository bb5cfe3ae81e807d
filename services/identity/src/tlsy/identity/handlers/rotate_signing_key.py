"""Rotation of the signing keys: by call, and by the clock."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsy.contracts.events import SIGNING_KEY_ROTATED
from tlsy.contracts.identity.events.v1 import events_pb2
from tlsy.identity.domain.signing import NotReady, Ring, RotationPlan, Slot, only, plan_rotation
from tlsy.rpc.errors import FailedPrecondition
from tlsy.tenancy.context import PLATFORM

if TYPE_CHECKING:
    from datetime import datetime

    from tlsy.identity.domain.signing import RotationPolicy, SigningKey
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import RevocationIndex, SigningKeys, Tokens
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


@dataclass(frozen=True, slots=True)
class Rotated:
    """The ring's two ends."""

    signing_kid: str
    next_kid: str


class RotateSigningKey:
    """Plans under the ring's row lock, so that of two replicas the second finds nothing left to do."""

    def __init__(
        self,
        tenancy: Tenancy,
        keys: SigningKeys,
        index: RevocationIndex,
        *,
        tokens: Tokens,
        effects: Effects,
        policy: RotationPolicy,
    ) -> None:
        self._tenancy = tenancy
        self._keys = keys
        self._index = index
        self._tokens = tokens
        self._effects = effects
        self._policy = policy

    async def run(self, call: Call) -> Rotated:
        """Make the next key the signing key now.

        Raises:
            FailedPrecondition: reason NEXT_KEY_TOO_NEW; metadata `ready_time`: when every verifier has it.
        """
        async with self._tenancy.control(PLATFORM, write=True) as tx:
            stored = await self._effects.replayed(tx, call)
            if stored is not None:
                return Rotated(**json.loads(stored))
            ring = await self._turn(tx, call)
            rotated = _ends(ring.keys)
            answer = {"signing_kid": rotated.signing_kid, "next_kid": rotated.next_kid}
            self._effects.remember(tx, call, json.dumps(answer).encode())
        self._tokens.adopt(ring)
        return rotated

    async def by_clock(self) -> None:
        """Do what is due, and forget revocations that no token can fall under any more."""
        async with self._tenancy.control(PLATFORM, write=True) as tx:
            ring = await self._turn(tx, None)
            await self._index.delete_expired(tx, self._effects.now())
        self._tokens.adopt(ring)

    async def refresh(self) -> None:
        """Read the ring as it is."""
        async with self._tenancy.control(PLATFORM, write=False) as tx:
            ring = await self._keys.read(tx)
        self._tokens.adopt(ring)

    async def _turn(self, tx: UnitOfWork, call: Call | None) -> Ring:
        """What is due by the clock, or what `call` asks for."""
        before = await self._keys.lock(tx)
        now = self._effects.now()
        plan = plan_rotation(before.keys, now, self._policy, forced=call is not None)
        if isinstance(plan, NotReady):
            ready = plan.ready_time.isoformat()
            raise FailedPrecondition(
                "NEXT_KEY_TOO_NEW",
                "Not every verifier knows the next key yet; rotate later.",
                metadata={"ready_time": ready},
            )
        if plan.empty:
            return before
        keys = await self._apply(tx, before.keys, plan, now)
        ring = Ring(keys, await self._keys.next_version(tx))
        signing = _ends(keys).signing_kid
        event = events_pb2.SigningKeyRotated(
            jwks=self._tokens.render(keys), signing_kid=signing, version=ring.version
        )
        self._effects.publish(tx, SIGNING_KEY_ROTATED, event)
        name, details = f"signingKeys/{signing}", {"changed": len(plan.changed)}
        if call is None:
            self._effects.audit_duty(tx, "rotate-signing-key", resource=name, details=details)
        else:
            self._effects.audit(tx, call, resource=name, details=details)
        return ring

    async def _apply(
        self, tx: UnitOfWork, keys: tuple[SigningKey, ...], plan: RotationPlan, now: datetime
    ) -> tuple[SigningKey, ...]:
        made = [self._tokens.make(slot, now) for slot in plan.make]
        changed = {key.kid: key for key in plan.changed}
        for kid in plan.deleted:
            await self._keys.delete(tx, kid)
        # Out of a slot before another key comes into it: each of the two slots holds at most one.
        for key in plan.changed:
            await self._keys.save(tx, key)
        for key in made:
            await self._keys.insert(tx, key)
        kept = [changed.get(key.kid, key) for key in keys if key.kid not in plan.deleted]
        return (*kept, *made)


def _ends(keys: tuple[SigningKey, ...]) -> Rotated:
    signing, upcoming = only(keys, Slot.SIGNING), only(keys, Slot.NEXT)
    return Rotated(signing.kid if signing else "", upcoming.kid if upcoming else "")
