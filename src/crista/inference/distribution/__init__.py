"""Distribution: a list of tasks carried out by one process or by many, on one machine or several, with the same outcome."""

from crista.inference.distribution.build import build_executor
from crista.inference.distribution.executor import Executor, SerialExecutor
from crista.inference.distribution.queues import job_script
from crista.inference.distribution.shards import shard_of

__all__ = ["Executor", "SerialExecutor", "build_executor", "job_script", "shard_of"]
