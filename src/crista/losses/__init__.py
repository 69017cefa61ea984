"""COMPARE: logits, target -> scalar. Cross-entropy and Dice, blind to pixels without annotation."""

from crista.losses.build import LOSSES, build_loss
from crista.losses.reduction import all_reduce_sum, identity

__all__ = ["LOSSES", "all_reduce_sum", "build_loss", "identity"]
