"""Registry: from the class of a configuration to the function that builds the object it describes.

Keys are classes, so there is no name to misspell and no chain of comparisons to extend: a new architecture, loss,
augmentation or optimizer is one config class and one registered builder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Built = TypeVar("Built")
Builder = TypeVar("Builder", bound=Callable[..., Any])


class Registry(Generic[Built]):
    """Builders of one kind of object, keyed by the class of their configuration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[type, Callable[..., Built]] = {}

    def register(self, config_class: type) -> Callable[[Builder], Builder]:
        """Decorator: the function below builds from instances of `config_class`."""

        def decorate(builder: Builder) -> Builder:
            if config_class in self._builders:
                raise ValueError(f"{self.kind} {config_class.__name__} is registered twice")
            self._builders[config_class] = builder
            return builder

        return decorate

    def build(self, config: object, **context: Any) -> Built:
        """Build the object that `config` describes; `context` is what only the caller knows (channels, ndim…)."""
        builder = self._builders.get(type(config))
        if builder is None:
            known = ", ".join(sorted(key.__name__ for key in self._builders))
            raise TypeError(f"no {self.kind} is registered for {type(config).__name__}; registered: {known}")
        return builder(config, **context)

    def __contains__(self, config_class: object) -> bool:
        return config_class in self._builders

    def __iter__(self) -> Iterator[type]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)
