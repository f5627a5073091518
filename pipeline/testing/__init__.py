"""Working in-memory twins of every port, shipped so that anyone can test against them."""

from pipeline.testing.clock import ManualClock as ManualClock
from pipeline.testing.store import MemoryTaskStore as MemoryTaskStore
