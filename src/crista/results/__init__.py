"""SHOW: the run folder, tables, charts, drawings and the report."""

from crista.results.run_folder import RunFolder

__all__ = ["RunFolder"]
