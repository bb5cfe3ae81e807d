from __future__ import annotations

from tlsy.broker.broker import Broker
from tlsy.broker.settings import Address, BrokerSettings

__all__ = ["Address", "Broker", "BrokerSettings"]
