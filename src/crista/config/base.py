"""Section: the base of every part of the configuration.

One field = one default = one docstring = one range. The reference page, the JSON schema and `crista explain` are made from
the fields, so a fact about a key stands in one place only.
"""

from __future__ import annotations

import ast
import types
from pathlib import PurePath
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A frozen group of keys. In YAML the keys are in capitals, in Python the same names in lower case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        alias_generator=str.upper,
        validate_by_name=True,
        validate_by_alias=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_biapy_spellings(cls, values: Any) -> Any:
        """``(256, 256, 1)`` and ``1e-4`` as text, a scalar for a one-element list, and the reverse."""
        if not isinstance(values, dict):
            return values
        fields = {name.upper(): field for name, field in cls.model_fields.items()}
        return {
            key: coerce(value, fields[str(key).upper()].annotation) if str(key).upper() in fields else value
            for key, value in values.items()
        }


def plain(value: Any) -> Any:
    """`value` as YAML would give it: paths as text, numbers and arrays of NumPy as those of Python, a range as a list."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple | range):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def coerce(value: Any, annotation: Any) -> Any:
    """Bring `value` as people write it in YAML nearer to `annotation`; what does not fit is left for validation."""
    value = plain(value)
    options = _options(annotation)
    if any(isinstance(option, type) and issubclass(option, BaseModel) for option in options):
        return value
    takes_text = any(option is str or (get_origin(option) is not None and _is_text_literal(option)) for option in options)
    if isinstance(value, str) and not takes_text:
        value = _literal(value)
    sequences = [option for option in options if get_origin(option) in (tuple, list)]
    if sequences and value is not None and not isinstance(value, list | tuple):
        return [_element(value, sequences[0])]
    if sequences and isinstance(value, list | tuple):
        return [_element(item, sequences[0]) for item in value]
    if not sequences and isinstance(value, list | tuple) and len(value) == 1:
        return value[0]
    return value


def _options(annotation: Any) -> list[Any]:
    """The members of a union (one member if it is none), `Annotated` stripped."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return [option for member in get_args(annotation) for option in _options(member)]
    if hasattr(annotation, "__metadata__"):
        return _options(get_args(annotation)[0])
    return [annotation]


def _is_text_literal(option: Any) -> bool:
    return str(get_origin(option)).endswith("Literal") and any(isinstance(value, str) for value in get_args(option))


def _element(value: Any, sequence: Any) -> Any:
    arguments = [argument for argument in get_args(sequence) if argument is not Ellipsis]
    return coerce(value, arguments[0]) if arguments else value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
