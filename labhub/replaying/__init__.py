"""Replay: what was recorded becomes live channels again, at its own pace or another."""

from labhub.replaying.replay import Replay, ReplayStatus, replay

__all__ = ["Replay", "ReplayStatus", "replay"]
