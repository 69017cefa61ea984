"""LOSS: what training makes small."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from crista.config.base import Section


class CrossEntropy(Section):
    """Cross-entropy; binary cross-entropy for two classes."""

    name: Literal["CE"] = "CE"


class Dice(Section):
    """Soft Dice over the batch, mean over the classes (Milletari et al. 2016, doi:10.1109/3DV.2016.79)."""

    name: Literal["DICE"] = "DICE"
    smooth: Annotated[float, Field(gt=0)] = 1e-5
    """Added to numerator and denominator, in voxels."""


LossTermConfig = Annotated[CrossEntropy | Dice, Field(discriminator="name")]

LOSS_TERMS: dict[str, type[CrossEntropy] | type[Dice]] = {"CE": CrossEntropy, "DICE": Dice}


class Loss(Section):
    """LOSS: the terms and their weights."""

    type: tuple[Literal["CE", "DICE"], ...] | None = None
    """Terms to add up: [CE], [DICE] or [DICE, CE]. Left out: decided."""

    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Weight of each term. Left out: 1 each."""

    class_rebalance: Literal["none", "auto", "manual"] = "none"
    """Weights of the classes in the cross-entropy. `auto`: from the class frequencies of the training labels; `manual`:
    CLASS_WEIGHTS. The old True means manual where CLASS_WEIGHTS is given, else auto."""

    class_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """One weight per class, background first."""

    ignore_index: tuple[Annotated[int, Field(ge=-1, le=65535)], ...] = (-1,)
    """Label value of pixels without annotation, or several, e.g. [254, 255]: no gradient, not in any metric. -1: none. 0 (with
    N_CLASSES left out) for scribbles that count classes from 1; the other values become the classes in their order."""

    estimate_class_shares: bool | None = None
    """After the training, estimate in all pixels how frequent each class is, and let the network expect that: scribbles hold as
    much of rare classes as of frequent ones. Left out: where few pixels are annotated and patches are drawn around them."""

    @property
    def ignored_values(self) -> tuple[int, ...]:
        """The label values without annotation, increasing; empty if there is none."""
        return tuple(sorted({value for value in self.ignore_index if value >= 0}))

    @model_validator(mode="after")
    def _check_weights(self) -> Loss:
        if self.type is not None and len(set(self.type)) != len(self.type):
            raise ValueError(f"TYPE {list(self.type)} names a term twice")
        if self.weights and self.type is not None and len(self.weights) != len(self.type):
            raise ValueError(f"WEIGHTS has {len(self.weights)} values for {len(self.type)} terms in TYPE")
        if self.weights and not any(self.weights):
            raise ValueError("WEIGHTS are all 0, so that nothing would be learned; give one term at least a weight above 0")
        if self.class_rebalance == "manual" and self.class_weights and not any(self.class_weights):
            raise ValueError("CLASS_WEIGHTS are all 0, so that no pixel would count; give one class at least a weight above 0")
        if self.class_rebalance == "manual" and not self.class_weights:
            raise ValueError("CLASS_REBALANCE: manual needs CLASS_WEIGHTS, one value per class")
        return self
