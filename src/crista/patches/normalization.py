"""Intensities to network input: statistics of a whole image, and the one function that applies them.

Training and inference both call `normalize` with the statistics of the whole image, so a pixel becomes the same
number, bit for bit, whether it is read in a patch, in a tile or with the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from crista.config.data import NOT_SET, Normalization, PercentileClip
from crista.errors import ConfigError, Problem
from crista.geometry.axes import Array
from crista.images.image import Image
from crista.images.wording import list_names, plural
from crista.patches.intensities import Intensities, Limits, Summary, open_intensities

STD_FLOOR = 1e-6
"""Least standard deviation to divide by: a constant image becomes 0."""

SPAN_FLOOR = 1e-30
"""Least range to divide by, for the same reason."""

BLOCK_BYTES = 2**27
"""An image up to this size is read once; a larger one in blocks of this size, once for each pass."""

CACHE_PIXELS = 2**16
"""Pixels normalised at a time: they stay in the processor's cache between the steps."""

KEY = "DATA.NORMALIZATION"


@dataclass(frozen=True)
class ImageStatistics:
    """All that `normalize` needs to know: each channel becomes (clip(x, lower, upper) - offset) / scale.

    Every number is exact in float32, so that it survives JSON and means the same on every machine.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    lower: tuple[float, ...] | None = None
    """Lower limits; None: not clipped."""
    upper: tuple[float, ...] | None = None
    """Upper limits; None: not clipped."""
    emptied: tuple[float, ...] = ()
    """Numbers of the channels that the limits leave one value of, as equal percentiles of a dark image with few bright pixels
    do; not of those that hold no other value anyway."""

    @property
    def num_channels(self) -> int:
        """Number of channels they describe."""
        return len(self.offset)

    @property
    def leaves_nothing(self) -> bool:
        """Whether the limits leave one value of a channel that holds several."""
        return bool(self.emptied)

    def to_json(self) -> dict[str, list[float] | None]:
        """A dictionary of plain lists."""
        return {key: None if value is None else list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Sequence[float] | None]) -> ImageStatistics:
        """The inverse of `to_json`."""
        given = {key: None if value is None else tuple(value) for key, value in values.items()}
        return cls(given["offset"] or (), given["scale"] or (), given["lower"], given["upper"], given.get("emptied") or ())


def compute_statistics(image: Image, config: Normalization, *, block_bytes: int = BLOCK_BYTES) -> ImageStatistics:
    """Statistics of all pixels of `image`, per channel, as `config` asks for.

    - `zero_mean_unit_variance`: (x - mean) / max(std, 1e-6); MEAN_VAL and STD_VAL replace the image's own.
    - `scale_range`: (x - min) / (max - min).
    - `div`: one divisor for all channels, by the maximum of the image: none up to 1, 255 up to 255, 65535 up to
      65535, and the maximum itself beyond, whatever the dtype.

    Percentiles and extremes are exact, also for floats (as float32); mean and standard deviation are float64.
    The result does not depend on `block_bytes`, nor on the format or the dtype that hold the intensities. Pixels
    that are not finite are left out. A channel that holds only 0 and 1 is treated like any other.

    Raises ConfigError where fixed values do not fit the channels of the image.
    """
    num_channels = image.num_channels
    check_fixed_values(config, image)
    fixed = config.zero_mean_unit_var
    by_variance = config.type == "zero_mean_unit_variance"
    by_percentile = config.perc_clip.enable and max(config.perc_clip.lower_perc, config.perc_clip.upper_perc) >= 0
    all_given = by_variance and fixed.given and not by_percentile
    intensities = None if all_given else open_intensities(image, block_bytes)
    limits = compute_limits(config.perc_clip, num_channels, intensities)
    summaries = intensities.summarise(limits) if intensities is not None else []
    offsets, scales = [0.0] * num_channels, [1.0] * num_channels
    if by_variance:
        offsets = per_channel(fixed.mean_val, num_channels) or [summary.mean for summary in summaries]
        scales = per_channel(fixed.std_val, num_channels) or [max(summary.std, STD_FLOOR) for summary in summaries]
    elif config.type == "scale_range":
        offsets, scales = [s.minimum for s in summaries], [compute_span(s) for s in summaries]
    else:
        scales = [compute_divisor(summaries)] * num_channels
    return replace(build_statistics(offsets, scales, limits), emptied=find_emptied(limits, intensities))


def normalize(pixels: Array, statistics: ImageStatistics) -> NDArray[np.float32]:
    """Network input, float32 C(Z)YX, from pixels C(Z)YX of any dtype.

    Each pixel is computed alone and in float32, so any cut of an image gives the same bits. Pixels that are not
    finite become 0, which is the mean where images are z-scored.
    """
    if pixels.shape[0] != statistics.num_channels:
        raise ValueError(f"{pixels.shape[0]} channels cannot be normalised by statistics of {statistics.num_channels}")
    result = np.empty(pixels.shape, np.float32)
    step = max(1, CACHE_PIXELS // max(1, int(np.prod(pixels.shape[2:]))))
    for channel in range(pixels.shape[0]):
        for start in range(0, pixels.shape[1], step):
            part = slice(start, start + step)
            _normalize_into(result[channel, part], pixels[channel, part], statistics, channel)
    return result


def _normalize_into(out: NDArray[np.float32], pixels: Array, statistics: ImageStatistics, channel: int) -> None:
    with np.errstate(over="ignore"):
        np.copyto(out, pixels, casting="unsafe")
    missing = ~np.isfinite(out) if pixels.dtype.kind == "f" else None
    if statistics.lower is not None:
        np.maximum(out, np.float32(statistics.lower[channel]), out=out)
    if statistics.upper is not None:
        np.minimum(out, np.float32(statistics.upper[channel]), out=out)
    np.subtract(out, np.float32(statistics.offset[channel]), out=out)
    np.divide(out, np.float32(statistics.scale[channel]), out=out)
    if missing is not None and missing.any():
        out[missing] = 0


def compute_limits(config: PercentileClip, num_channels: int, intensities: Intensities | None) -> list[Limits]:
    """Limits of each channel, exact in float32: percentiles where they are set, else fixed values, else infinite."""
    if not config.enable:
        return [(-inf, inf)] * num_channels
    asked = [percentage for percentage in (config.lower_perc, config.upper_perc) if percentage >= 0]
    found = dict(zip(asked, intensities.percentiles(asked), strict=True)) if intensities is not None and asked else {}
    sides = []
    for percentage, values, none in (
        (config.lower_perc, config.lower_value, -inf),
        (config.upper_perc, config.upper_value, inf),
    ):
        side = found.get(percentage) or per_channel(values, num_channels) or [none] * num_channels
        sides.append([float(np.float32(value)) for value in side])
    return list(zip(*sides, strict=True))


def find_emptied(limits: Sequence[Limits], intensities: Intensities | None) -> tuple[float, ...]:
    """Channels of several values that `limits` leave one value of."""
    closed = [channel for channel, (lower, upper) in enumerate(limits) if lower >= upper]
    if not closed or intensities is None:
        return ()
    stored = intensities.summarise([(-inf, inf)] * len(limits))
    return tuple(channel for channel in closed if stored[channel].minimum < stored[channel].maximum)


def clipped_to_nothing(names: Sequence[str]) -> str:
    """What there is to say of the images of these names, whose `leaves_nothing` is true."""
    return (
        f"DATA.NORMALIZATION.PERC_CLIP leaves one value in a channel of {plural(len(names), 'image')}, where both limits are "
        f"equal: {list_names(names)}. The network sees nothing there"
    )


def compute_span(summary: Summary) -> float:
    """Range of a channel as float32 arithmetic gives it, so that the maximum becomes exactly 1."""
    return max(float(np.float32(summary.maximum) - np.float32(summary.minimum)), SPAN_FLOOR)


def compute_divisor(summaries: Sequence[Summary]) -> float:
    """What `div` divides an image by."""
    maximum = max(summary.maximum for summary in summaries)
    if maximum <= 1:
        return 1.0
    return next((limit for limit in (255.0, 65535.0) if maximum <= limit), maximum)


def build_statistics(offset: Sequence[float], scale: Sequence[float], limits: Sequence[Limits]) -> ImageStatistics:
    """Statistics with every number rounded to float32, and limits only where there are some."""
    lower, upper = (tuple(side) for side in zip(*limits, strict=True))
    return ImageStatistics(
        offset=tuple(float(np.float32(value)) for value in offset),
        scale=tuple(float(np.float32(value)) for value in scale),
        lower=None if lower[0] == -inf else lower,
        upper=None if upper[0] == inf else upper,
    )


def per_channel(values: tuple[float, ...], num_channels: int) -> list[float] | None:
    """Fixed values, one repeated for all channels; None where they are not set."""
    if values == NOT_SET:
        return None
    return list(values) * num_channels if len(values) == 1 else list(values)


def check_fixed_values(config: Normalization, image: Image) -> None:
    """Raise ConfigError where fixed values do not fit the channels of `image`, or cannot be used."""
    clip, fixed, channels = config.perc_clip, config.zero_mean_unit_var, image.num_channels
    used: dict[str, tuple[float, ...]] = {}
    if config.type == "zero_mean_unit_variance":
        used |= {"ZERO_MEAN_UNIT_VAR.MEAN_VAL": fixed.mean_val, "ZERO_MEAN_UNIT_VAR.STD_VAL": fixed.std_val}
    if clip.enable:
        used |= {"PERC_CLIP.LOWER_VALUE": clip.lower_value, "PERC_CLIP.UPPER_VALUE": clip.upper_value}
    problems = [
        Problem(
            f"{KEY}.{name}",
            f"{len(values)} values, but {image.path.name} has {channels} channel{'s' if channels > 1 else ''}",
            "Give one value for all channels, or one per channel.",
        )
        for name, values in used.items()
        if len(values) not in (1, channels)
    ]
    std = used.get("ZERO_MEAN_UNIT_VAR.STD_VAL", NOT_SET)
    if std != NOT_SET and min(std) <= 0:
        what = f"{', '.join(f'{value:g}' for value in std)}: a standard deviation to divide by must be above 0"
        problems.append(Problem(f"{KEY}.ZERO_MEAN_UNIT_VAR.STD_VAL", what, "Leave it out to use each image's own."))
    if problems:
        raise ConfigError("in the configuration", problems)
