"""IdentityService: one method, one handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.contracts.identity.v1 import identity_pb2_grpc
from tlsy.identity.domain.ids import UserId
from tlsy.identity.domain.users import UPDATABLE, UserChange
from tlsy.identity.handlers.create_api_key import CreateApiKeyCommand
from tlsy.identity.handlers.create_role_binding import CreateRoleBindingCommand
from tlsy.identity.handlers.create_user import CreateUserCommand
from tlsy.identity.handlers.log_in import LogInCommand
from tlsy.identity.handlers.set_password import SetPasswordCommand
from tlsy.identity.handlers.update_user import UpdateUserCommand
from tlsy.identity.rpc import mapping, names
from tlsy.rpc.call import current_call
from tlsy.rpc.errors import collected
from tlsy.rpc.masks import masked_fields
from tlsy.rpc.paging import MAX_PAGE_SIZE, Pages, page_size
from tlsy.rpc.resource_names import check_parent

if TYPE_CHECKING:
    import grpc

    from tlsy.identity.handlers.create_api_key import CreateApiKey
    from tlsy.identity.handlers.create_role_binding import CreateRoleBinding
    from tlsy.identity.handlers.create_user import CreateUser
    from tlsy.identity.handlers.delete_role_binding import DeleteRoleBinding
    from tlsy.identity.handlers.delete_user import DeleteUser
    from tlsy.identity.handlers.exchange_api_key import ExchangeApiKey
    from tlsy.identity.handlers.exchange_token import ExchangeToken
    from tlsy.identity.handlers.get_jwks import GetJwks
    from tlsy.identity.handlers.get_user import GetUser
    from tlsy.identity.handlers.list_api_keys import ListApiKeys
    from tlsy.identity.handlers.list_revocations import ListRevocations
    from tlsy.identity.handlers.list_role_bindings import ListRoleBindings
    from tlsy.identity.handlers.list_roles import ListRoles
    from tlsy.identity.handlers.list_users import ListUsers
    from tlsy.identity.handlers.log_in import LogIn
    from tlsy.identity.handlers.revoke_api_key import RevokeApiKey
    from tlsy.identity.handlers.rotate_signing_key import RotateSigningKey
    from tlsy.identity.handlers.set_password import SetPassword
    from tlsy.identity.handlers.update_user import UpdateUser

    _Listing = pb.ListUsersRequest | pb.ListRoleBindingsRequest | pb.ListApiKeysRequest
    from tlsy.rpc.errors import Violation

    Context = grpc.aio.ServicerContext[Any, Any]

_BY_ID: Final = (str,)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityHandlers:
    """A handler per method."""

    log_in: LogIn
    exchange_api_key: ExchangeApiKey
    exchange_token: ExchangeToken
    get_jwks: GetJwks
    rotate_signing_key: RotateSigningKey
    create_user: CreateUser
    get_user: GetUser
    list_users: ListUsers
    update_user: UpdateUser
    delete_user: DeleteUser
    set_password: SetPassword
    create_role_binding: CreateRoleBinding
    list_role_bindings: ListRoleBindings
    delete_role_binding: DeleteRoleBinding
    list_roles: ListRoles
    create_api_key: CreateApiKey
    list_api_keys: ListApiKeys
    revoke_api_key: RevokeApiKey
    list_revocations: ListRevocations


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Behind the interceptor: the call is authenticated, in its tenant, permitted and well-formed."""

    def __init__(self, handlers: IdentityHandlers) -> None:
        self._do = handlers

    async def LogIn(self, request: pb.LogInRequest, context: Context) -> pb.LogInResponse:
        """See the proto."""
        slug = names.slug(request.tenant, "tenant")
        done = await self._do.log_in.run(current_call(), LogInCommand(slug, request.email, request.password))
        return pb.LogInResponse(token=mapping.to_token(done.token), principal=done.principal)

    async def ExchangeApiKey(
        self, request: pb.ExchangeApiKeyRequest, context: Context
    ) -> pb.ExchangeApiKeyResponse:
        """See the proto."""
        done = await self._do.exchange_api_key.run(current_call(), request.api_key, tuple(request.audience))
        return pb.ExchangeApiKeyResponse(
            token=mapping.to_token(done.token), tenant=f"tenants/{done.slug}", principal=done.principal
        )

    async def ExchangeToken(
        self, request: pb.ExchangeTokenRequest, context: Context
    ) -> pb.ExchangeTokenResponse:
        """See the proto."""
        slug = names.slug(request.target_tenant, "target_tenant")
        done = await self._do.exchange_token.run(current_call(), slug, request.reason)
        return pb.ExchangeTokenResponse(token=mapping.to_token(done.token), roles=[done.role])

    async def GetJwks(self, request: pb.GetJwksRequest, context: Context) -> pb.GetJwksResponse:
        """See the proto."""
        jwks, version, cache_s = self._do.get_jwks.run()
        response = pb.GetJwksResponse(jwks=jwks, version=version)
        response.cache_for.FromMilliseconds(round(cache_s * 1000))
        return response

    async def RotateSigningKey(
        self, request: pb.RotateSigningKeyRequest, context: Context
    ) -> pb.RotateSigningKeyResponse:
        """See the proto."""
        done = await self._do.rotate_signing_key.run(current_call())
        return pb.RotateSigningKeyResponse(signing_kid=done.signing_kid, next_kid=done.next_kid)

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.User:
        """See the proto."""
        check_parent(request.parent)
        asked = request.user
        command = CreateUserCommand(
            email=asked.email,
            display_name=asked.display_name,
            locale=asked.locale,
            disabled=asked.disabled,
            password=request.password,
        )
        return mapping.to_user(await self._do.create_user.run(current_call(), command), _slug())

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.User:
        """See the proto."""
        user = await self._do.get_user.run(current_call(), names.user_id(request.name))
        return mapping.to_user(user, _slug())

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        """See the proto."""
        pages, after, size = _page(request)
        users, more = await self._do.list_users.run(current_call(), after, size)
        return pb.ListUsersResponse(
            users=[mapping.to_user(user, _slug()) for user in users],
            next_page_token=pages.token(names.cursor_of(users, more=more)),
        )

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.User:
        """See the proto."""
        user = await self._do.update_user.run(current_call(), _update(request))
        return mapping.to_user(user, _slug())

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Context) -> pb.DeleteUserResponse:
        """See the proto."""
        await self._do.delete_user.run(current_call(), names.user_id(request.name), request.etag)
        return pb.DeleteUserResponse()

    async def SetPassword(self, request: pb.SetPasswordRequest, context: Context) -> pb.SetPasswordResponse:
        """See the proto."""
        user_id = names.user_id(request.name)
        command = SetPasswordCommand(user_id, request.new_password, request.old_password)
        await self._do.set_password.run(current_call(), command)
        return pb.SetPasswordResponse()

    async def CreateRoleBinding(
        self, request: pb.CreateRoleBindingRequest, context: Context
    ) -> pb.RoleBinding:
        """See the proto."""
        check_parent(request.parent)
        command = _binding(request.role_binding)
        binding = await self._do.create_role_binding.run(current_call(), command)
        return mapping.to_role_binding(binding, _slug())

    async def ListRoleBindings(
        self, request: pb.ListRoleBindingsRequest, context: Context
    ) -> pb.ListRoleBindingsResponse:
        """See the proto."""
        pages, after, size = _page(request)
        of = names.principal_or_none(request.principal, "principal")
        found, more = await self._do.list_role_bindings.run(current_call(), of, after, size)
        return pb.ListRoleBindingsResponse(
            role_bindings=[mapping.to_role_binding(binding, _slug()) for binding in found],
            next_page_token=pages.token(names.cursor_of(found, more=more)),
        )

    async def DeleteRoleBinding(
        self, request: pb.DeleteRoleBindingRequest, context: Context
    ) -> pb.DeleteRoleBindingResponse:
        """See the proto."""
        await self._do.delete_role_binding.run(current_call(), names.binding_id(request.name))
        return pb.DeleteRoleBindingResponse()

    async def ListRoles(self, request: pb.ListRolesRequest, context: Context) -> pb.ListRolesResponse:
        """See the proto."""
        check_parent(request.parent)
        roles = self._do.list_roles.run(current_call())
        return pb.ListRolesResponse(roles=[mapping.to_role(role) for role in roles])

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Context
    ) -> pb.CreateApiKeyResponse:
        """See the proto."""
        check_parent(request.parent)
        command = CreateApiKeyCommand(request.display_name, request.role, mapping.expiry(request))
        made = await self._do.create_api_key.run(current_call(), command)
        return pb.CreateApiKeyResponse(api_key=mapping.to_api_key(made.key, _slug()), secret=made.secret)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        """See the proto."""
        pages, after, size = _page(request)
        keys, more = await self._do.list_api_keys.run(current_call(), after, size)
        return pb.ListApiKeysResponse(
            api_keys=[mapping.to_api_key(key, _slug()) for key in keys],
            next_page_token=pages.token(names.cursor_of(keys, more=more)),
        )

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.ApiKey:
        """See the proto."""
        key = await self._do.revoke_api_key.run(current_call(), names.key_id(request.name))
        return mapping.to_api_key(key, _slug())

    async def ListRevocations(
        self, request: pb.ListRevocationsRequest, context: Context
    ) -> pb.ListRevocationsResponse:
        """See the proto."""
        pages = Pages(current_call(), request)
        after = pages.place(request.page_token, (str, str), names.after_pair) or names.FIRST_PAIR
        found, more = await self._do.list_revocations.run(after, MAX_PAGE_SIZE)
        last = (str(found[-1].tenant_id), found[-1].principal) if more else None
        return pb.ListRevocationsResponse(
            revocations=[mapping.to_revocation(revocation) for revocation in found],
            next_page_token=pages.token(last),
        )


def _page(request: _Listing) -> tuple[Pages, UUID, int]:
    """The page tokens of a listing by id, where it goes on, and how much of it is asked for."""
    check_parent(request.parent)
    pages = Pages(current_call(), request)
    after = pages.place(request.page_token, _BY_ID, UUID) or names.FIRST
    return pages, after, page_size(request.page_size)


def _binding(asked: pb.RoleBinding) -> CreateRoleBindingCommand:
    wrong: list[Violation] = []
    principal = collected(
        lambda: names.principal(asked.principal, "role_binding.principal"), names.NOBODY, wrong
    )
    return CreateRoleBindingCommand(principal, asked.role, asked.module, wrong)


def _update(request: pb.UpdateUserRequest) -> UpdateUserCommand:
    asked = request.user
    wrong: list[Violation] = []
    nobody = UserId(names.FIRST)
    return UpdateUserCommand(
        user_id=collected(lambda: names.user_id(asked.name, "user.name"), nobody, wrong),
        change=UserChange(display_name=asked.display_name, disabled=asked.disabled, locale=asked.locale),
        mask=masked_fields(request.update_mask, asked, UPDATABLE, wrong),
        etag=asked.etag,
        violations=wrong,
    )


def _slug() -> str:
    return current_call().required_tenant().slug
