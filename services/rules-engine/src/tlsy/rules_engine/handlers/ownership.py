"""Which partitions, and so which tenants, this process owns, and at which epoch of the assignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tlsy.eventlog.ports import TopicPartition
    from tlsy.rules_engine.handlers.memory import Memories
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.catalog import TenantEntry


class Ownership:
    """See `tlsy.eventlog.consumer.PartitionOwnership`. Nothing is loaded here, and everything dropped."""

    def __init__(
        self,
        *,
        memories: Memories,
        partition_count: Callable[[], Awaitable[int]],
        partition_of: Callable[[TenantId, int], int],
        tenants: Callable[[], Iterator[TenantEntry]],
    ) -> None:
        self._memories = memories
        self._partition_count = partition_count
        self._partition_of = partition_of
        self._tenants = tenants
        self._count = 0
        self._epochs: dict[int, int] = {}

    async def on_assigned(self, partition: TopicPartition, epoch: int) -> None:
        """See the port. Raises LogUnavailable."""
        self._count = await self._partition_count()
        self._memories.lose_partition(partition.partition)
        self._epochs[partition.partition] = epoch

    async def on_revoked(self, partition: TopicPartition) -> None:
        """See the port."""
        self.lost(partition.partition)

    def lost(self, partition: int) -> None:
        """Another process owns it."""
        self._epochs.pop(partition, None)
        self._memories.lose_partition(partition)

    def epoch(self, partition: int) -> int | None:
        """Of the assignment to this process; None if the partition is another's."""
        return self._epochs.get(partition)

    def assignments(self) -> frozenset[tuple[int, int]]:
        """Partitions and their epochs."""
        return frozenset(self._epochs.items())

    def partition_of(self, tenant_id: TenantId) -> int | None:
        """The tenant's partition, if it is owned."""
        if not self._count:
            return None
        partition = self._partition_of(tenant_id, self._count)
        return partition if partition in self._epochs else None

    def tenants_of(self, partition: int) -> Iterator[TenantEntry]:
        """The tenants that the catalogue has in the partition."""
        for tenant in self._tenants():
            if self._partition_of(tenant.tenant_id, self._count) == partition:
                yield tenant
