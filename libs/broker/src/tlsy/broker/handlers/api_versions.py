from __future__ import annotations

from typing import TYPE_CHECKING

from kio.schema.api_versions.v0 import ApiVersionsResponse as OldestApiVersionsResponse
from kio.schema.api_versions.v0.response import ApiVersion as OldestApiVersion
from kio.schema.api_versions.v3 import ApiVersionsRequest, ApiVersionsResponse
from kio.schema.api_versions.v3.response import ApiVersion
from kio.schema.errors import ErrorCode
from kio.static.primitive import i16

from tlsy.broker.api import NO_THROTTLE, PRODUCE_KEY, Api, Caller

if TYPE_CHECKING:
    from collections.abc import Iterable


async def api_versions(
    apis: Iterable[Api], _request: ApiVersionsRequest, _caller: Caller
) -> ApiVersionsResponse:
    """Tell which APIs are offered, in which versions."""
    return ApiVersionsResponse(
        error_code=ErrorCode.none,
        api_keys=tuple(
            ApiVersion(
                api_key=i16(api.key),
                min_version=i16(_advertised_oldest(api)),
                max_version=i16(api.newest_version),
            )
            for api in apis
        ),
        throttle_time=NO_THROTTLE,
    )


def unsupported_version(apis: Iterable[Api]) -> OldestApiVersionsResponse:
    """The answer to a version of this API that is not known: the oldest form, which every client reads."""
    return OldestApiVersionsResponse(
        error_code=ErrorCode.unsupported_version,
        api_keys=tuple(
            OldestApiVersion(
                api_key=i16(api.key),
                min_version=i16(_advertised_oldest(api)),
                max_version=i16(api.newest_version),
            )
            for api in apis
        ),
    )


def _advertised_oldest(api: Api) -> int:
    # librdkafka compresses only if produce version 0 is advertised; Apache Kafka 4 does the same.
    return 0 if api.key == PRODUCE_KEY else api.oldest_version
