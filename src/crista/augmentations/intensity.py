"""Augmentations of the image alone: brightness, contrast, blur, noise and missing pixels.

Images may be z-scored, so nothing is clipped, and what needs a range (gamma, shot noise) rescales each
channel of the sample to [0, 1] and back.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from crista.augmentations.base import AUGMENTATIONS, AnySample, Augment, ConfigT, FloatArray
from crista.config import augmentor

BRIGHTEST_COUNT = 255.0
"""Photons at the brightest pixel of a channel, for shot noise: a signal-to-noise ratio of 16 there."""


class IntensityChange(Augment[ConfigT]):
    """An augmentation that leaves the label as it is."""

    @abstractmethod
    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """A changed copy of `image`, C(Z)YX."""

    def __call__(self, sample: AnySample, rng: np.random.Generator) -> AnySample:
        """`sample` with another image."""
        changed = np.ascontiguousarray(self.change(sample.image, rng), dtype=np.float32)
        return sample.with_arrays(image=changed)


@AUGMENTATIONS.register(augmentor.Brightness)
class AddConstant(IntensityChange[augmentor.Brightness]):
    """Add one constant to all channels."""

    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """`image` + U(factors)."""
        brighter: FloatArray = image + np.float32(rng.uniform(*self.config.factors))
        return brighter


@AUGMENTATIONS.register(augmentor.Contrast)
class StretchAboutMean(IntensityChange[augmentor.Contrast]):
    """Stretch every channel about its mean by one factor."""

    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """mean + (`image` - mean)·(1 + U(factors))."""
        mean = image.mean(axis=spatial(image), keepdims=True, dtype=np.float32)
        stretched: FloatArray = mean + (image - mean) * np.float32(1 + rng.uniform(*self.config.factors))
        return stretched


@AUGMENTATIONS.register(augmentor.Gamma)
class RaiseToPower(IntensityChange[augmentor.Gamma]):
    """Raise intensities, rescaled to [0, 1] and back, to one power; a constant channel stays."""

    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """low + span·((`image` - low) / span)^U(gammas), per channel."""
        low, span = channel_range(image)
        unit = (image - low) / span
        bent: FloatArray = low + span * np.power(unit, np.float32(rng.uniform(*self.config.gammas)))
        return bent


@AUGMENTATIONS.register(augmentor.GaussianBlur)
class BlurPlane(IntensityChange[augmentor.GaussianBlur]):
    """Gaussian blur in the y-x plane."""

    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """`image` convolved with a Gaussian of U(sigmas) pixels; beyond the border it is mirrored."""
        from scipy import ndimage  # slow to import

        sigma = rng.uniform(*self.config.sigmas)
        blurred: FloatArray = ndimage.gaussian_filter(image, (*[0] * (image.ndim - 2), sigma, sigma))
        return blurred


@AUGMENTATIONS.register(augmentor.MedianBlur)
class MedianPlane(IntensityChange[augmentor.MedianBlur]):
    """Median filter in the y-x plane, of an odd size in the range (of the next odd size where it holds none)."""

    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The median of k × k pixels around each; beyond the border the image is mirrored."""
        from scipy import ndimage  # slow to import

        low, high = self.config.kernels
        sizes = range(low | 1, max(low | 1, high) + 1, 2)
        size = sizes[int(rng.integers(len(sizes)))]
        filtered: FloatArray = ndimage.median_filter(image, (*[1] * (image.ndim - 2), size, size))
        return filtered


@AUGMENTATIONS.register(augmentor.GaussianNoise)
class AddGaussianNoise(IntensityChange[augmentor.GaussianNoise]):
    """Add independent Gaussian noise to every pixel of every channel."""

    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """`image` + N(mean, variance)."""
        mean, variance = self.config.mean, self.config.variance
        if self.config.use_image_statistics:
            mean, variance = float(image.mean(dtype=np.float64)), float(image.var(dtype=np.float64))
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        return image + (noise * np.float32(np.sqrt(variance)) + np.float32(mean))


@AUGMENTATIONS.register(augmentor.PoissonNoise)
class AddShotNoise(IntensityChange[augmentor.PoissonNoise]):
    """Replace intensities, rescaled to photon counts and back, by Poisson draws; a constant channel stays."""

    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """low + span·Poisson(255·(`image` - low) / span) / 255, per channel."""
        low, span = channel_range(image)
        counts = rng.poisson((image - low) * (np.float32(BRIGHTEST_COUNT) / span))
        return low + counts.astype(np.float32) * (span / np.float32(BRIGHTEST_COUNT))


@AUGMENTATIONS.register(augmentor.Dropout)
class DropPixels(IntensityChange[augmentor.Dropout]):
    """Set a random share of the pixels, in all channels at once, to the lowest intensity of their channel."""

    def change(self, image: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Each pixel is lost with the chance U(fractions)."""
        share = np.float32(rng.uniform(*self.config.fractions))
        lost = rng.random(image.shape[1:], dtype=np.float32) < share
        return np.where(lost, image.min(axis=spatial(image), keepdims=True), image)


@AUGMENTATIONS.register(augmentor.Cutout)
class BlankBoxes(Augment[augmentor.Cutout]):
    """Blank random boxes in all channels, and in the label with `apply_to_label`.

    Ignored pixels of the label stay ignored.
    """

    def __call__(self, sample: AnySample, rng: np.random.Generator) -> AnySample:
        """`sample` with U(iterations) boxes at `value`, each side U(sizes) of the patch."""
        image, label = sample.image.copy(), sample.label.copy()
        low, high = self.config.iterations
        for _ in range(int(rng.integers(low, high + 1))):
            box = self.draw_box(label.shape, rng)
            image[(slice(None), *box)] = self.config.value
            if self.config.apply_to_label:
                kept = label[box] == self.ignore_index
                label[box] = np.where(kept, label[box], 0)
        return sample.with_arrays(image=image, label=label)

    def draw_box(self, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
        """A box of at least one pixel inside `shape`, every position as likely."""
        sides = [min(n, max(1, round(n * rng.uniform(*self.config.sizes)))) for n in shape]
        starts = [int(rng.integers(n - side + 1)) for n, side in zip(shape, sides, strict=True)]
        return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def spatial(image: FloatArray) -> tuple[int, ...]:
    """The spatial axes of C(Z)YX."""
    return tuple(range(1, image.ndim))


def channel_range(image: FloatArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest intensity and span of each channel, shaped to broadcast; the span of a constant channel is 1."""
    low = image.min(axis=spatial(image), keepdims=True)
    span = image.max(axis=spatial(image), keepdims=True) - low
    return low, np.where(span > 0, span, np.float32(1))
