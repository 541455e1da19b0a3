"""Recorded bars served as if live: a folder of CSV or Parquet files and one clock for it."""

from plugins.replay.clock import Anchor, ReplayClock, dataset_id
from plugins.replay.instruments import InvalidInstruments
from plugins.replay.provider import ReplayProvider
from plugins.replay.recordings import NoRecordings, Recordings, Refusal, load

__all__ = [
    "Anchor",
    "InvalidInstruments",
    "NoRecordings",
    "Recordings",
    "Refusal",
    "ReplayClock",
    "ReplayProvider",
    "dataset_id",
    "load",
]
