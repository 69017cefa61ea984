"""AUGMENTOR: random changes of training samples.

In YAML the keys are flat, as in BiaPy (`RANDOM_ROT`, `RANDOM_ROT_PROB`, `RANDOM_ROT_RANGE`). `Augmentor.transforms` gathers
them into one small config class per augmentation, the keys of the registry of augmentations.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from crista.config.base import Section

Probability = Annotated[float, Field(ge=0, le=1)]
Angle = Annotated[float, Field(ge=-360, le=360)]
ShearAngle = Annotated[float, Field(ge=-80, le=80)]
ZoomFactor = Annotated[float, Field(ge=0.1, le=10)]
NonNegative = Annotated[float, Field(ge=0)]
Border = Literal["constant", "reflect", "wrap", "symmetric"]


class Augmentation(Section):
    """Base of every augmentation."""

    probability: Probability
    """Chance that it is applied to a sample."""


class VerticalFlip(Augmentation):
    """Reverse y."""


class HorizontalFlip(Augmentation):
    """Reverse x."""


class DepthFlip(Augmentation):
    """Reverse z (3D)."""


class Rotation90(Augmentation):
    """Rotate in the y-x plane by 0, 90, 180 or 270 degrees."""


class Rotation(Augmentation):
    """Rotate in the y-x plane by a random angle."""

    degrees: tuple[Angle, Angle]
    border: Border


class Zoom(Augmentation):
    """Scale y and x (and z) by a random factor about the centre."""

    factors: tuple[ZoomFactor, ZoomFactor]
    in_z: bool
    border: Border


class Shear(Augmentation):
    """Shear in the y-x plane by a random angle."""

    degrees: tuple[Angle, Angle]
    border: Border


class Shift(Augmentation):
    """Shift y and x by random fractions of the patch, each in a random direction."""

    fractions: tuple[float, float]
    border: Border


class Elastic(Augmentation):
    """Smooth random displacement in the y-x plane, one field for image and label (Simard et al. 2003,
    doi:10.1109/ICDAR.2003.1227801)."""

    alpha: tuple[NonNegative, NonNegative]
    """Strength, in pixels, before smoothing."""
    sigma: Annotated[float, Field(gt=0)]
    """Standard deviation of the smoothing Gaussian, in pixels."""
    border: Border


class Brightness(Augmentation):
    """Add a random constant to the normalised image."""

    factors: tuple[float, float]


class Contrast(Augmentation):
    """Multiply the normalised image about its mean by 1 + a random factor."""

    factors: tuple[float, float]


class Gamma(Augmentation):
    """Raise intensities, rescaled to [0, 1] and back, to a random power."""

    gammas: tuple[float, float]


class GaussianBlur(Augmentation):
    """Gaussian blur in the y-x plane."""

    sigmas: tuple[NonNegative, NonNegative]


class MedianBlur(Augmentation):
    """Median filter in the y-x plane of a random odd size."""

    kernels: tuple[int, int]


class GaussianNoise(Augmentation):
    """Add Gaussian noise; intensities are not clipped."""

    mean: float
    variance: NonNegative
    use_image_statistics: bool
    """Take mean and variance from the sample instead."""


class PoissonNoise(Augmentation):
    """Shot noise on intensities rescaled to counts and back."""


class Dropout(Augmentation):
    """Set a random share of the pixels to the lowest intensity of the sample."""

    fractions: tuple[Probability, Probability]


class Cutout(Augmentation):
    """Blank random boxes of the image (and the label, with `apply_to_label`)."""

    iterations: tuple[int, int]
    sizes: tuple[Probability, Probability]
    value: float
    apply_to_label: bool


class Augmentor(Section):
    """AUGMENTOR: random changes of training samples, image and label always together."""

    enable: bool = False
    """Augment training samples."""
    da_prob: Probability | None = None
    """Probability of every augmentation whose own X_PROB is left out."""
    aug_samples: bool = True
    """Save examples of augmented samples to PATHS.DA_SAMPLES."""
    aug_num_samples: Annotated[int, Field(ge=0)] = 10
    """How many examples."""
    draw_grid: bool = True
    """Draw a grid on the saved examples so that deformations can be seen."""
    affine_mode: Border = "reflect"
    """What lies beyond the border for rotation, zoom, shear and shift."""

    vflip: bool = False
    """Reverse y."""
    vflip_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    hflip: bool = False
    """Reverse x."""
    hflip_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    zflip: bool | Literal["auto"] = False
    """Reverse z (3D). `auto`: in a training of many steps on few volumes."""
    zflip_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    rot90: bool = False
    """Rotate by a multiple of 90 degrees in the y-x plane."""
    rot90_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    random_rot: bool = False
    """Rotate by any angle in the y-x plane."""
    random_rot_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    random_rot_range: tuple[Angle, Angle] = (-180.0, 180.0)
    """Range of angles in degrees."""
    zoom: bool = False
    """Scale y and x."""
    zoom_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    zoom_range: tuple[ZoomFactor, ZoomFactor] = (0.8, 1.2)
    """Range of factors; above 1 enlarges."""
    zoom_in_z: bool = False
    """Scale z as well (3D)."""
    shear: bool = False
    """Shear in the y-x plane."""
    shear_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    shear_range: tuple[ShearAngle, ShearAngle] = (-20.0, 20.0)
    """Range of angles in degrees."""
    shift: bool = False
    """Shift along y and x."""
    shift_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    shift_range: tuple[Probability, Probability] = (0.1, 0.2)
    """Range of the shift as a fraction of the patch; either direction."""
    elastic: bool = False
    """Elastic deformation in the y-x plane."""
    elastic_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    e_alpha: tuple[NonNegative, NonNegative] = (12.0, 16.0)
    """Range of its strength in pixels."""
    e_sigma: Annotated[float, Field(gt=0)] = 4.0
    """Its smoothness in pixels."""
    e_mode: Literal["constant", "nearest", "reflect", "wrap"] = "reflect"
    """What lies beyond the border."""
    brightness: bool = False
    """Add a constant to the normalised image."""
    brightness_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    brightness_factor: tuple[float, float] = (-0.1, 0.1)
    """Range of the constant."""
    contrast: bool = False
    """Stretch the normalised image about its mean."""
    contrast_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    contrast_factor: tuple[float, float] = (-0.1, 0.1)
    """Range of what is added to the factor 1."""
    gamma_contrast: bool = False
    """Gamma, on intensities rescaled to [0, 1] and back; works with every normalisation."""
    gamma_contrast_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    gc_gamma: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1.25, 1.75)
    """Range of gamma."""
    g_blur: bool = False
    """Gaussian blur in the y-x plane."""
    g_blur_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    g_sigma: tuple[NonNegative, NonNegative] = (1.0, 2.0)
    """Range of its standard deviation in pixels."""
    median_blur: bool = False
    """Median filter in the y-x plane."""
    median_blur_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    mb_kernel: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (3, 7)
    """Range of its size in pixels."""
    gaussian_noise: bool = False
    """Gaussian noise; intensities are never clipped."""
    gaussian_noise_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    gaussian_noise_mean: float = 0.0
    """Mean of the noise, in units of the normalised image."""
    gaussian_noise_var: NonNegative = 0.05
    """Variance of the noise."""
    gaussian_noise_use_input_img_mean_and_var: bool = False
    """Take mean and variance of the sample instead."""
    poisson_noise: bool = False
    """Shot noise, on intensities rescaled to counts and back."""
    poisson_noise_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    dropout: bool = False
    """Set random pixels to the lowest intensity."""
    dropout_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    drop_range: tuple[Probability, Probability] = (0.0, 0.2)
    """Range of the share of pixels."""
    cutout: bool = False
    """Blank random boxes."""
    cutout_prob: Probability | None = None
    """Its probability. Left out: DA_PROB, else 0.5."""
    cout_nb_iterations: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (1, 3)
    """Range of the number of boxes."""
    cout_size: tuple[Probability, Probability] = (0.05, 0.3)
    """Range of the side of a box as a fraction of the patch."""
    cout_cval: float = 0.0
    """Value inside, in units of the normalised image."""
    cout_apply_to_mask: bool = False
    """Set the label inside to background as well."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Augmentor:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) == 2 and value[0] > value[1]:
                raise ValueError(f"{name.upper()} {value} must rise: ({value[1]:g}, {value[0]:g})?")
        return self

    def switched_on(self, ndim: int) -> tuple[str, ...]:
        """The keys of the augmentations that are switched on, ``VFLIP``, not those left open; none with ENABLE: False."""
        fields = type(self).model_fields
        switches = [name for name in fields if f"{name}_prob" in fields and not (name == "zflip" and ndim == 2)]
        return tuple(name.upper() for name in switches if self.enable and getattr(self, name) is True)

    def transforms(self, ndim: int) -> tuple[Augmentation, ...]:
        """The augmentations that are switched on, in the order in which they are applied; none with ENABLE: False.

        ZFLIP: auto is not among them: `Plan.augmentations` knows what was decided.
        """
        if not self.enable:
            return ()
        candidates = [*self._flips(ndim), *self._deformations(ndim), *self._intensity_changes()]
        return tuple(augmentation for switched_on, augmentation in candidates if switched_on)

    def _flips(self, ndim: int) -> list[tuple[bool, Augmentation]]:
        chance = self._chance
        return [
            (self.zflip is True and ndim == 3, DepthFlip(probability=chance(self.zflip_prob))),
            (self.vflip, VerticalFlip(probability=chance(self.vflip_prob))),
            (self.hflip, HorizontalFlip(probability=chance(self.hflip_prob))),
            (self.rot90, Rotation90(probability=chance(self.rot90_prob))),
        ]

    def _deformations(self, ndim: int) -> list[tuple[bool, Augmentation]]:
        chance, border = self._chance, self.affine_mode
        beyond: Border = "symmetric" if self.e_mode == "nearest" else self.e_mode
        in_z = self.zoom_in_z and ndim == 3
        return [
            (self.zoom, Zoom(probability=chance(self.zoom_prob), factors=self.zoom_range, in_z=in_z, border=border)),
            (
                self.random_rot,
                Rotation(probability=chance(self.random_rot_prob), degrees=self.random_rot_range, border=border),
            ),
            (self.shear, Shear(probability=chance(self.shear_prob), degrees=self.shear_range, border=border)),
            (self.shift, Shift(probability=chance(self.shift_prob), fractions=self.shift_range, border=border)),
            (
                self.elastic,
                Elastic(probability=chance(self.elastic_prob), alpha=self.e_alpha, sigma=self.e_sigma, border=beyond),
            ),
        ]

    def _intensity_changes(self) -> list[tuple[bool, Augmentation]]:
        chance = self._chance
        noise = GaussianNoise(
            probability=chance(self.gaussian_noise_prob),
            mean=self.gaussian_noise_mean,
            variance=self.gaussian_noise_var,
            use_image_statistics=self.gaussian_noise_use_input_img_mean_and_var,
        )
        cutout = Cutout(
            probability=chance(self.cutout_prob),
            iterations=self.cout_nb_iterations,
            sizes=self.cout_size,
            value=self.cout_cval,
            apply_to_label=self.cout_apply_to_mask,
        )
        return [
            (self.brightness, Brightness(probability=chance(self.brightness_prob), factors=self.brightness_factor)),
            (self.contrast, Contrast(probability=chance(self.contrast_prob), factors=self.contrast_factor)),
            (self.gamma_contrast, Gamma(probability=chance(self.gamma_contrast_prob), gammas=self.gc_gamma)),
            (self.g_blur, GaussianBlur(probability=chance(self.g_blur_prob), sigmas=self.g_sigma)),
            (self.median_blur, MedianBlur(probability=chance(self.median_blur_prob), kernels=self.mb_kernel)),
            (self.gaussian_noise, noise),
            (self.poisson_noise, PoissonNoise(probability=chance(self.poisson_noise_prob))),
            (self.dropout, Dropout(probability=chance(self.dropout_prob), fractions=self.drop_range)),
            (self.cutout, cutout),
        ]

    def _chance(self, own: float | None) -> float:
        if own is not None:
            return own
        return self.da_prob if self.da_prob is not None else 0.5
