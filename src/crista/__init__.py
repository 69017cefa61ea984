"""crista: semantic segmentation for microscopy.

The folders, in the order that data flow:

    config          ASK      what the user wants
    images          READ     a file -> Image
    plan            DECIDE   Config + fingerprint -> Plan: every number, each with its reason
    patches         CUT      image pair -> samples
    augmentations   VARY     sample -> sample
    models          MODEL    batch -> logits
    losses          COMPARE  logits, target -> scalar
    training        LEARN    Plan -> checkpoints
    inference       PREDICT  Image -> probabilities -> label image
    postprocessing  CLEAN    median filters
    metrics         MEASURE  label images -> numbers
    results         SHOW     run folder, tables, charts, report

`workflow` tells the whole story as one generator of events; `cli` is a thin shell over it.

The names below are the verbs of the command line, as functions; each is imported when it is first used, so that
``import crista`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crista.config.explain import explain_key as explain
    from crista.config.root import Config
    from crista.errors import CristaError
    from crista.workflow.api import Outcome, check, demo, evaluate, fix, predict, run, train, train_on
    from crista.workflow.api import plan as make_plan
    from crista.workflow.new import Folders, new

__version__ = "0.1.0"

__all__ = [
    "Config",
    "CristaError",
    "Folders",
    "Outcome",
    "check",
    "demo",
    "evaluate",
    "explain",
    "fix",
    "make_plan",
    "new",
    "predict",
    "run",
    "train",
    "train_on",
]

_HOMES = {
    "Config": ("crista.config.root", "Config"),
    "CristaError": ("crista.errors", "CristaError"),
    "Folders": ("crista.workflow.new", "Folders"),
    "explain": ("crista.config.explain", "explain_key"),
    "make_plan": ("crista.workflow.api", "plan"),  # `crista.plan` is the package that plans
    "new": ("crista.workflow.new", "new"),
    **{
        name: ("crista.workflow.api", name)
        for name in ("Outcome", "check", "demo", "evaluate", "fix", "predict", "run", "train", "train_on")
    },
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'crista' has no attribute {name!r}")
    home, attribute = _HOMES[name]
    return getattr(import_module(home), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
