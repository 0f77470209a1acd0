"""The devices of a run: one device, all devices of this machine, or several machines."""

from trainers.devices.replicas import Replicas, StrategyError, check, create

__all__ = ["Replicas", "StrategyError", "check", "create"]
