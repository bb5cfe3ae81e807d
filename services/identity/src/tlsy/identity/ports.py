"""What the handlers need from outside. A `tx` has entered the tenant, or the platform's scope, at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from uuid import UUID

    from tlsy.identity.domain.api_keys import ApiKey
    from tlsy.identity.domain.bindings import DirectoryFacts, RoleBinding
    from tlsy.identity.domain.ids import BindingId, KeyId, PrincipalRef, UserId
    from tlsy.identity.domain.lockout import Attempts
    from tlsy.identity.domain.revocations import IndexedRevocation, Revocation
    from tlsy.identity.domain.signing import Ring, SigningKey, Slot
    from tlsy.identity.domain.users import User
    from tlsy.rpc.tokens import TokenClaims
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The directory knows this user and the proof was right.

    Attributes:
        proof: the stored hash that the password was checked against; it must still be the stored one when the
            log-in takes effect.
        rehashed: to be stored instead of it, or None.
    """

    user_id: UserId
    proof: str
    rehashed: str | None


@dataclass(frozen=True, slots=True)
class NotAuthenticated:
    """Why not, for the audit log alone, and of whom, where that is known."""

    cause: str
    user_id: UserId | None


class Directory(Protocol):
    """Where a tenant's people are known: the embedded directory, or an identity provider of the tenant."""

    async def authenticate(
        self, tenant: TenantEntry, email: str, password: str
    ) -> Authenticated | NotAuthenticated:
        """Check the proof, which takes as long for a user who is not there as for a wrong password.

        Attempts are counted and limited here; who acts on a success takes it off the count.

        Raises:
            PasswordsBusy: nothing was counted or checked.
        """

    async def untried(self, tenant: TenantEntry, email: str) -> bool:
        """Whether this is a user for whom no wrong password was tried lately."""


class PasswordsBusy(Exception):  # noqa: N818  read as a fact
    """More passwords at once than may wait. Try again."""


class PasswordPlace(Protocol):
    """A place among the few whose passwords are hashed: there is room for whatever is asked here."""

    async def hash(self, password: str) -> str:
        """What to store."""

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether it is the one; against None it is not, and takes as long."""


class Passwords(Protocol):
    """Slow hashes of passwords, a few at a time."""

    def place(self, slug: str) -> AbstractContextManager[PasswordPlace]:
        """For the block, of this tenant, be it there or not: who is refused does not learn which.

        Entering it raises PasswordsBusy if as many as may wait do already, or half as many of this tenant.
        """

    async def pretend(self) -> None:
        """Take about as long as the last check of a password did, and check none."""

    def outdated(self, stored: str) -> bool:
        """Whether it should be hashed again at the next log-in."""


class Tokens(Protocol):
    """The ring of signing keys as this process knows it."""

    @property
    def signing_kid(self) -> str:
        """The key that `issue` signs with; Unavailable while the ring has never been read."""

    def issue(self, claims: TokenClaims) -> str:
        """The signed token; its key id must be `signing_kid`."""

    def jwks(self) -> tuple[str, int]:
        """RFC 7517 JSON of every key that verifies, or will, and the ring's version.

        Unavailable while the ring was never read.
        """

    def make(self, slot: Slot, now: datetime) -> SigningKey:
        """A new key pair with its private part sealed; the caller stores it."""

    def render(self, keys: Sequence[SigningKey]) -> str:
        """The JWKS of such a ring."""

    def adopt(self, ring: Ring) -> None:
        """Use this ring from now on; without a signing key, or older than the one in use, it is left."""


class KeyedHash(Protocol):
    """A hash under a key that is nowhere in a database."""

    def __call__(self, tenant_id: UUID, text: str, /) -> bytes:
        """32 bytes, different in each tenant."""


class Users(Protocol):
    """Users of one tenant."""

    async def insert(self, tx: UnitOfWork, user: User) -> bool:
        """False: another user of the tenant has this e-mail address."""

    async def get(self, tx: UnitOfWork, user_id: UserId) -> User | None:
        """The user as committed."""

    async def lock(self, tx: UnitOfWork, user_id: UserId) -> User | None:
        """The user, whom nobody else changes before this transaction ends."""

    async def by_email(self, tx: UnitOfWork, email: str) -> User | None:
        """The user as committed, by any spelling of the address."""

    async def lock_by_email(self, tx: UnitOfWork, email: str) -> User | None:
        """As `lock`, by any spelling of the address."""

    async def page(self, tx: UnitOfWork, after: UUID, limit: int) -> list[User]:
        """At most `limit` users, in the order of their creation."""

    async def save(self, tx: UnitOfWork, user: User) -> None:
        """Everything but the e-mail address and the log-in time."""

    async def save_attempts(self, tx: UnitOfWork, user_id: UserId, attempts: Attempts) -> None:
        """Only the count of wrong passwords; the version stays."""

    async def record_log_in(
        self, tx: UnitOfWork, user_id: UserId, now: datetime, rehashed: str | None
    ) -> None:
        """A right password: wrong ones are forgotten; `rehashed` replaces the hash if given.

        The log-in time that is kept is of the latest clock that issued a token: a revocation covers it.
        """

    async def delete(self, tx: UnitOfWork, user_id: UserId) -> None:
        """The row and the personal data in it."""

    async def count(self, tx: UnitOfWork) -> int:
        """All users, disabled ones too."""


class RoleBindings(Protocol):
    """Roles of one tenant."""

    async def insert(self, tx: UnitOfWork, binding: RoleBinding) -> bool:
        """False: the principal has this role in this module already."""

    async def get(self, tx: UnitOfWork, binding_id: BindingId) -> RoleBinding | None:
        """One binding."""

    async def of(self, tx: UnitOfWork, principal: PrincipalRef) -> list[RoleBinding]:
        """All roles of one principal."""

    async def page(
        self, tx: UnitOfWork, principal: PrincipalRef | None, after: UUID, limit: int
    ) -> list[RoleBinding]:
        """At most `limit` bindings, of one principal or of all, in the order of their creation."""

    async def delete(self, tx: UnitOfWork, binding_id: BindingId) -> None:
        """Take one role away."""

    async def delete_of(self, tx: UnitOfWork, principal: PrincipalRef) -> None:
        """Take all roles of a principal away."""

    async def administrators(self, tx: UnitOfWork, role: str) -> list[PrincipalRef]:
        """Users, not disabled, who hold `role` in every module; at most 100."""


class ApiKeys(Protocol):
    """API keys of one tenant."""

    async def insert(self, tx: UnitOfWork, key: ApiKey) -> None:
        """A key with an id of its own."""

    async def lock(self, tx: UnitOfWork, key_id: KeyId) -> ApiKey | None:
        """The key, which nobody else changes or exchanges before this transaction ends."""

    async def page(self, tx: UnitOfWork, after: UUID, limit: int) -> list[ApiKey]:
        """At most `limit` keys, revoked ones too, in the order of their creation."""

    async def revoke(self, tx: UnitOfWork, key_id: KeyId, now: datetime) -> None:
        """For good."""

    async def record_issue(self, tx: UnitOfWork, key_id: KeyId, now: datetime, *, news: bool) -> None:
        """When its last token was issued, by the latest clock that issued one; a use only if that is news."""

    async def count_usable(self, tx: UnitOfWork, now: datetime) -> int:
        """Keys neither revoked nor expired: what the limit of keys counts."""


class Directories(Protocol):
    """What is kept once per tenant, and whose tokens ended there."""

    async def lock(self, tx: UnitOfWork) -> DirectoryFacts:
        """Until the transaction ends nobody else counts, changes or removes principals of the tenant."""

    async def read(self, tx: UnitOfWork) -> DirectoryFacts:
        """The facts as committed."""

    async def mark_first_admin_log_in(self, tx: UnitOfWork, now: datetime) -> None:
        """Onboarding is over, for good; only the first call writes."""

    async def mark_bootstrapped(self, tx: UnitOfWork, now: datetime) -> None:
        """The first administrator is made, for good. Under `lock`."""

    async def put_revocation(self, tx: UnitOfWork, revocation: Revocation) -> None:
        """Keep the later one per principal."""


class SigningKeys(Protocol):
    """The installation's signing keys. In the platform's scope."""

    async def lock(self, tx: UnitOfWork) -> Ring:
        """All keys; until the transaction ends nobody else changes the ring."""

    async def read(self, tx: UnitOfWork) -> Ring:
        """All keys, retired ones too, oldest first."""

    async def next_version(self, tx: UnitOfWork) -> int:
        """Of the ring as this transaction leaves it. Under `lock`."""

    async def insert(self, tx: UnitOfWork, key: SigningKey) -> None:
        """A new key. Under `lock`."""

    async def save(self, tx: UnitOfWork, key: SigningKey) -> None:
        """Another slot and its times. Under `lock`."""

    async def delete(self, tx: UnitOfWork, kid: str) -> None:
        """Forget a key. Under `lock`."""


class RevocationIndex(Protocol):
    """Revocations of all tenants. In the platform's scope."""

    async def put(self, tx: UnitOfWork, revocation: IndexedRevocation) -> None:
        """Keep the later one per principal: safe to repeat, and in any order."""

    async def page(
        self, tx: UnitOfWork, after: tuple[UUID, str], now: datetime, limit: int
    ) -> list[IndexedRevocation]:
        """At most `limit` that a valid token could still fall under, by tenant and principal."""

    async def delete_expired(self, tx: UnitOfWork, now: datetime) -> None:
        """Those that no valid token can fall under."""


class SecretFile(Protocol):
    """Where the first administrator's key is left for an operator, readable by its owner alone.

    Who finds the file finds a key that works. Both raise OSError.
    """

    def prepare(self, secret: str) -> None:
        """Store the secret durably beside the file; what was prepared before is replaced."""

    def publish(self) -> None:
        """Let what was prepared become the file; nothing prepared, nothing done."""
