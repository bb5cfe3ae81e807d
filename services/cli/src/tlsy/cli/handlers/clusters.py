"""tlsy clusters."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.names import cluster_name, country_name
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.completion import one_of
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.handlers.tenants import chosen
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2

_COLUMNS: Final = (
    Column("NAME", "name", last=1),
    Column("COUNTRY", "country", last=1),
    Column("REGION", "region", spare=2),
    Column("KIND", "kind", spare=3),
    Column("TENANTS", "tenantCount"),
    Column("MOST", "maxTenants", spare=1),
    Column("CORDONED", "cordoned"),
)

Id = Annotated[str, typer.Argument(metavar="CLUSTER", help="The cluster's id.")]
NewId = Annotated[str, typer.Argument(metavar="NEW_CLUSTER", help="Its id.")]


@command("list")
async def list_clusters(terminal: Terminal, *, limit: Limit = 1000) -> None:
    """PostgreSQL servers for tenants."""
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.ListClustersRequest()
    clusters = await paged(registry.ListClusters, request, "clusters", limit, terminal.output)
    terminal.output.items(clusters, _COLUMNS)


@command("create")
async def create_cluster(
    terminal: Terminal,
    cluster: NewId,
    *,
    country: Annotated[str, typer.Option(help="Where its disks are.")],
    region: Annotated[str, typer.Option(help="For people.")] = "",
    kind: Annotated[
        str,
        typer.Option(
            help="SHARED, or DEDICATED: only databases of their own.",
            autocompletion=one_of(tenant_pb2.ClusterKind.DESCRIPTOR),
        ),
    ] = "SHARED",
    secret_ref: Annotated[str, typer.Option(help="Where services find its address.")] = "",
    max_tenants: Annotated[int, typer.Option(min=0, help="0: unlimited.")] = 0,
) -> None:
    """Add a PostgreSQL server."""
    wanted = tenant_pb2.Cluster(
        name=cluster_name(cluster),
        country=country_name(country),
        region=region,
        kind=chosen(tenant_pb2.ClusterKind.DESCRIPTOR, kind),
        secret_ref=secret_ref,
        max_tenants=max_tenants,
    )
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.CreateClusterRequest(cluster=wanted)
    terminal.output.item(await registry.CreateCluster(request))


@command("update")
async def update_cluster(
    terminal: Terminal,
    cluster: Id,
    *,
    max_tenants: Annotated[int | None, typer.Option(min=0, help="0: unlimited.")] = None,
    cordon: Annotated[
        bool | None, typer.Option("--cordon/--uncordon", help="Whether it takes no new tenant.")
    ] = None,
) -> None:
    """Change how many tenants a cluster takes."""
    request = tenant_registry_pb2.UpdateClusterRequest(cluster=tenant_pb2.Cluster(name=cluster_name(cluster)))
    if max_tenants is not None:
        request.cluster.max_tenants = max_tenants
        request.update_mask.paths.append("max_tenants")
    if cordon is not None:
        request.cluster.cordoned = cordon
        request.update_mask.paths.append("cordoned")
    if not request.update_mask.paths:
        raise UsageError("Nothing to change was given.", "Give --max-tenants, --cordon or --uncordon.")
    registry = await terminal.session.registry()
    terminal.output.item(await registry.UpdateCluster(request))
