"""Working fakes of every port, shipped with the package so that anyone can test against them."""

from pipeline.testing.manual_clock import ManualClock as ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore as MemoryTaskStore
