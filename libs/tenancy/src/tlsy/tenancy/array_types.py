"""PostgreSQL's own types of arrays, as its driver would otherwise look each of them up on every connection.

The driver knows their elements. For an array it asks the catalogue, with a query that takes the server longer
than most transactions, and a service with a pool per database makes connections all the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tlsy.tenancy.database import Connection


#: Of an array: its OID, its element's, and the element's name. Source: pg_type.dat; an OID below 10000 is the
#: same in every database and release. text[] the driver knows.
_ARRAYS: Final = (
    (1000, 16, "bool"),
    (1001, 17, "bytea"),
    (1005, 21, "int2"),
    (1007, 23, "int4"),
    (1016, 20, "int8"),
    (1022, 701, "float8"),
    (1182, 1082, "date"),
    (1185, 1184, "timestamptz"),
    (2951, 2950, "uuid"),
)


def know_arrays(connection: Connection) -> None:
    """Nothing is asked of the server."""
    connection.get_settings().register_data_types(_as_answered(*array) for array in _ARRAYS)


def _as_answered(oid: int, element_oid: int, element: str) -> dict[str, Any]:
    """A row as the driver's own query answers it."""
    return {
        "oid": oid,
        "ns": "pg_catalog",
        "name": f"_{element}",
        "kind": b"b",
        "basetype": None,
        "elemtype": element_oid,
        "elemdelim": ",",
        "range_subtype": None,
        "attrtypoids": None,
        "attrnames": None,
    }
