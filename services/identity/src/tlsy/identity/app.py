"""Wires the service; the only module that knows every class."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.eventlog.consumer import Consumer
from tlsy.eventlog.dead_letters import DeadLetters
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.identity.adapters.argon2 import Argon2Passwords
from tlsy.identity.adapters.embedded_directory import EmbeddedDirectory
from tlsy.identity.adapters.key_ring import KeyRing
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.api_keys import PostgresApiKeys
from tlsy.identity.adapters.postgres.control import PostgresRevocationIndex, PostgresSigningKeys
from tlsy.identity.adapters.postgres.directories import PostgresDirectories
from tlsy.identity.adapters.postgres.role_bindings import PostgresRoleBindings
from tlsy.identity.adapters.postgres.users import PostgresUsers
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.adapters.secret_file import OwnerOnlyFile
from tlsy.identity.consumers import GROUP, SUBSCRIBED, routes
from tlsy.identity.domain.lockout import LockoutPolicy
from tlsy.identity.domain.signing import RotationPolicy
from tlsy.identity.handlers.bootstrap import Bootstrap, FirstAdministrator
from tlsy.identity.handlers.budgets import Budgets, ExchangeLimits
from tlsy.identity.handlers.create_api_key import CreateApiKey
from tlsy.identity.handlers.create_role_binding import CreateRoleBinding
from tlsy.identity.handlers.create_user import CreateUser
from tlsy.identity.handlers.delete_role_binding import DeleteRoleBinding
from tlsy.identity.handlers.delete_user import DeleteUser
from tlsy.identity.handlers.duties import BootstrapOnce, KeepSigningKeys
from tlsy.identity.handlers.effects import Effects
from tlsy.identity.handlers.exchange_api_key import ExchangeApiKey
from tlsy.identity.handlers.exchange_token import ExchangeToken
from tlsy.identity.handlers.get_jwks import GetJwks
from tlsy.identity.handlers.get_user import GetUser
from tlsy.identity.handlers.indexing import IndexRevocations
from tlsy.identity.handlers.issuing import Issuer
from tlsy.identity.handlers.list_api_keys import ListApiKeys
from tlsy.identity.handlers.list_revocations import ListRevocations
from tlsy.identity.handlers.list_role_bindings import ListRoleBindings
from tlsy.identity.handlers.list_roles import ListRoles
from tlsy.identity.handlers.list_users import ListUsers
from tlsy.identity.handlers.log_in import LogIn
from tlsy.identity.handlers.on_principal_revoked import OnPrincipalRevoked
from tlsy.identity.handlers.revoke_api_key import RevokeApiKey
from tlsy.identity.handlers.rotate_signing_key import RotateSigningKey
from tlsy.identity.handlers.set_password import SetPassword
from tlsy.identity.handlers.update_user import UpdateUser
from tlsy.identity.rpc.servicer import IdentityHandlers, IdentityServicer
from tlsy.identity.settings import Argon2Cost, read_keys
from tlsy.rpc.assembly import assemble
from tlsy.rpc.server import Served
from tlsy.rpc.tokens import MAX_LIFETIME_S
from tlsy.runtime.service import Part, Task

if TYPE_CHECKING:
    from tlsy.identity.settings import IdentitySettings
    from tlsy.rpc.assembly import Assembly
    from tlsy.runtime.host import Host
    from tlsy.runtime.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adapters:
    users: PostgresUsers
    bindings: PostgresRoleBindings
    keys: PostgresApiKeys
    directories: PostgresDirectories
    signing_keys: PostgresSigningKeys
    index: PostgresRevocationIndex
    passwords: Argon2Passwords
    directory: EmbeddedDirectory
    ring: KeyRing
    lookup: LookupHash


def build(settings: IdentitySettings, host: Host) -> Service:
    """The service; nothing is started or connected. SettingsInvalid: the keys file cannot be used."""
    assembly = assemble(host, "identity")
    adapters = _adapters(settings, host, assembly)
    indexing = IndexRevocations(assembly.tenancy, adapters.index)
    effects = Effects(
        adapters.directories,
        assembly.audit,
        indexing,
        keyed=adapters.lookup,
        clock=host.clock,
        ids=host.ids,
        # Not the settings': a token may have been issued when they said more.
        longest_token=timedelta(seconds=MAX_LIFETIME_S),
    )
    rotate = RotateSigningKey(
        assembly.tenancy,
        adapters.signing_keys,
        adapters.index,
        tokens=adapters.ring,
        effects=effects,
        policy=_rotation_policy(settings),
    )
    keep = KeepSigningKeys(rotate, host.clock, refresh_s=settings.ring_refresh_s, works=host.works)
    first = BootstrapOnce(_bootstrap(settings, host, assembly, adapters, effects), host.clock)
    handlers = _handlers(settings, host, assembly, adapters, effects=effects, rotate=rotate)
    return assembly.supervisor(
        [
            Served(
                identity_pb2.DESCRIPTOR.services_by_name["IdentityService"],
                identity_pb2_grpc.add_IdentityServiceServicer_to_server,
                IdentityServicer(handlers),
            )
        ],
        parts=[Part(adapters.passwords), Part(Task("signing-keys", keep.run))],
        workers=[
            Part(_consumer(assembly, indexing)),
            Part(Task("bootstrap", first.run), needs=(adapters.passwords.name,)),
        ],
        checks=(adapters.ring.missing,),
    )


def _adapters(settings: IdentitySettings, host: Host, assembly: Assembly) -> _Adapters:
    statements = read_statements()
    keys = read_keys(settings.keys_file)
    sealer = Sealer(keys.sealing, keys.current, host.random)
    lookup = LookupHash(keys.lookup)
    users = PostgresUsers(statements, sealer, lookup)
    passwords = Argon2Passwords(
        Argon2Cost(
            memory_kib=settings.argon2_memory_kib,
            passes=settings.argon2_passes,
            concurrency=settings.argon2_concurrency,
            queue=settings.argon2_queue,
        ),
        host.random,
    )
    lockout = LockoutPolicy(
        max_failures=settings.max_failures,
        window_s=settings.failure_window_s,
        lock_s=settings.lock_s,
        max_lock_s=settings.max_lock_s,
    )
    return _Adapters(
        users=users,
        bindings=PostgresRoleBindings(statements),
        keys=PostgresApiKeys(statements),
        directories=PostgresDirectories(statements),
        signing_keys=PostgresSigningKeys(statements),
        index=PostgresRevocationIndex(statements),
        passwords=passwords,
        directory=EmbeddedDirectory(assembly.tenancy, users, passwords, host.clock, lockout),
        ring=KeyRing(sealer),
        lookup=lookup,
    )


def _longest_token_s(settings: IdentitySettings) -> int:
    return max(settings.user_token_s, settings.key_token_s, settings.exchanged_token_s)


def _rotation_policy(settings: IdentitySettings) -> RotationPolicy:
    return RotationPolicy(
        period_s=settings.signing_period_s,
        cache_s=settings.jwks_cache_s,
        refresh_s=settings.ring_refresh_s,
        token_s=_longest_token_s(settings),
        leeway_s=settings.clock_leeway_s,
        keep_retired_s=settings.keep_retired_s,
    )


def _consumer(assembly: Assembly, indexing: IndexRevocations) -> Consumer:
    clock = assembly.host.clock
    return Consumer(
        GROUP,
        SUBSCRIBED,
        package=assembly.package,
        reader=lambda: KafkaGroupReader(assembly.host.brokers, GROUP, SUBSCRIBED, GROUP),
        routes=routes(OnPrincipalRevoked(indexing)),
        transactions=assembly.tenancy,
        dead_letters=DeadLetters(GROUP, assembly.producer, assembly.inspector, clock),
        clock=clock,
        jitter=assembly.jitter,
        metrics=assembly.metrics,
        ready=assembly.catalog.wait_ready,
    )


def _bootstrap(
    settings: IdentitySettings, host: Host, assembly: Assembly, adapters: _Adapters, effects: Effects
) -> Bootstrap:
    file = settings.bootstrap_key_file
    return Bootstrap(
        assembly.tenancy,
        users=adapters.users,
        keys=adapters.keys,
        bindings=adapters.bindings,
        directories=adapters.directories,
        passwords=adapters.passwords,
        effects=effects,
        random=host.random,
        first=FirstAdministrator(
            settings.bootstrap_admin_email,
            settings.bootstrap_admin_password.get_secret_value(),
            None if file is None else OwnerOnlyFile(file),
        ),
    )


def _handlers(
    settings: IdentitySettings,
    host: Host,
    assembly: Assembly,
    adapters: _Adapters,
    *,
    effects: Effects,
    rotate: RotateSigningKey,
) -> IdentityHandlers:
    tenancy, users, keys = assembly.tenancy, adapters.users, adapters.keys
    bindings, directories = adapters.bindings, adapters.directories
    passwords, directory = adapters.passwords, adapters.directory
    issuer = Issuer(adapters.ring, host.clock, host.ids)
    return IdentityHandlers(
        log_in=_log_in(settings, assembly, adapters, effects, issuer),
        exchange_api_key=ExchangeApiKey(
            tenancy,
            keys=keys,
            bindings=bindings,
            directories=directories,
            limits=_exchange_limits(settings, host),
            denials=assembly.denials,
            effects=effects,
            issuer=issuer,
            lifetime=timedelta(seconds=settings.key_token_s),
        ),
        exchange_token=ExchangeToken(
            tenancy, directories, effects, issuer, timedelta(seconds=settings.exchanged_token_s)
        ),
        get_jwks=GetJwks(adapters.ring, settings.jwks_cache_s),
        rotate_signing_key=rotate,
        create_user=CreateUser(tenancy, users, directories, passwords, effects),
        get_user=GetUser(tenancy, users, directories),
        list_users=ListUsers(tenancy, users, directories),
        update_user=UpdateUser(tenancy, users, bindings, directories, effects),
        delete_user=DeleteUser(tenancy, users, bindings, directories, effects),
        set_password=SetPassword(
            tenancy,
            users,
            bindings=bindings,
            directories=directories,
            directory=directory,
            passwords=passwords,
            effects=effects,
        ),
        create_role_binding=CreateRoleBinding(
            tenancy, users=users, keys=keys, bindings=bindings, directories=directories, effects=effects
        ),
        list_role_bindings=ListRoleBindings(tenancy, bindings, directories),
        delete_role_binding=DeleteRoleBinding(
            tenancy, users=users, keys=keys, bindings=bindings, directories=directories, effects=effects
        ),
        list_roles=ListRoles(),
        create_api_key=CreateApiKey(
            tenancy,
            keys=keys,
            bindings=bindings,
            directories=directories,
            effects=effects,
            random=host.random,
        ),
        list_api_keys=ListApiKeys(tenancy, keys, directories),
        revoke_api_key=RevokeApiKey(tenancy, keys, bindings, directories, effects),
        list_revocations=ListRevocations(tenancy, adapters.index, host.clock),
    )


def _exchange_limits(settings: IdentitySettings, host: Host) -> ExchangeLimits:
    return ExchangeLimits(
        Budgets(host.clock, size=settings.key_exchanges, per_s=settings.key_exchanges_per_s),
        Budgets(host.clock, size=settings.refused_exchanges, per_s=settings.refused_exchanges_per_s),
    )


def _log_in(
    settings: IdentitySettings, assembly: Assembly, adapters: _Adapters, effects: Effects, issuer: Issuer
) -> LogIn:
    return LogIn(
        assembly.tenancy,
        adapters.directory,
        users=adapters.users,
        bindings=adapters.bindings,
        directories=adapters.directories,
        passwords=adapters.passwords,
        failures=Budgets(
            assembly.host.clock, size=settings.tenant_failures, per_s=settings.tenant_failures_per_s
        ),
        denials=assembly.denials,
        effects=effects,
        issuer=issuer,
        lifetime=timedelta(seconds=settings.user_token_s),
    )
