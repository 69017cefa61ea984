"""ASK: what the user wants, as frozen sections. No torch; only `load` touches the disk."""

from crista.config.base import Section
from crista.config.root import Config

__all__ = ["Config", "Section"]
