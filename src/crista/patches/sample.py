"""Sample: one aligned image and label cut from a pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """What augmentations turn into another sample and the loader into a batch element."""

    image: NDArray[np.float32]
    """C(Z)YX, normalised."""
    label: NDArray[np.uint8]
    """(Z)YX classes; the ignore value where there is no annotation."""

    def with_arrays(self, **arrays: Any) -> Sample:
        """A copy with other pixels."""
        return replace(self, **arrays)
