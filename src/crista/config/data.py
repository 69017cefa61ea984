"""DATA: where images and labels are, how they are normalised, cut and split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from crista.config.base import Section

Fraction = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(ge=0)]
Percentile = Annotated[float, Field(ge=0, le=100)]


def _as_text(value: object) -> object:
    """A whole number as text: the finest level of an OME-Zarr is called 0."""
    return str(value) if type(value) is int else value


InnerPath = Annotated[str, BeforeValidator(_as_text)]


NOT_SET = (-1.0,)
"""What BiaPy writes for a fixed value that is left out."""


class PercentileClip(Section):
    """Clip intensities before normalising."""

    enable: bool = False
    """Clip each channel of each image to two percentiles (or to two fixed values) first."""

    lower_perc: Annotated[float, Field(ge=-1, le=100)] = -1.0
    """Lower percentile, 0-100. -1: not set."""

    upper_perc: Annotated[float, Field(ge=-1, le=100)] = -1.0
    """Upper percentile, 0-100. -1: not set."""

    lower_value: tuple[float, ...] = NOT_SET
    """Fixed lower limit, one value or one per channel, used where no percentile is set. -1: not set."""

    upper_value: tuple[float, ...] = NOT_SET
    """Fixed upper limit, one value or one per channel, used where no percentile is set. -1: not set."""

    @model_validator(mode="after")
    def _check_limits(self) -> PercentileClip:
        if not self.enable:
            return self
        percentiles = self.lower_perc >= 0 and self.upper_perc >= 0
        fixed = self.lower_value != NOT_SET and self.upper_value != NOT_SET
        if not percentiles and not fixed:
            raise ValueError("ENABLE is True: set LOWER_PERC and UPPER_PERC (0-100), or LOWER_VALUE and UPPER_VALUE")
        if percentiles and self.lower_perc >= self.upper_perc:
            raise ValueError(f"LOWER_PERC {self.lower_perc:g} must be below UPPER_PERC {self.upper_perc:g}")
        if fixed and not percentiles:
            self._check_values()
        return self

    def _check_values(self) -> None:
        """One value serves all channels; numbers of channels that differ are refused when an image is there."""
        count = max(len(self.lower_value), len(self.upper_value))
        sides = (values * count if len(values) == 1 else values for values in (self.lower_value, self.upper_value))
        for lower, upper in zip(*sides, strict=False):
            if lower >= upper:
                raise ValueError(f"LOWER_VALUE {lower:g} must be below UPPER_VALUE {upper:g}, or nothing is left of the image")


class FixedStatistics(Section):
    """Fixed statistics in place of each image's own."""

    mean_val: tuple[float, ...] = NOT_SET
    """Mean to subtract, one value or one per channel. -1: the image's own."""

    std_val: tuple[float, ...] = NOT_SET
    """Standard deviation to divide by, one value or one per channel. -1: the image's own."""

    @property
    def given(self) -> bool:
        """Whether both statistics are typed in."""
        return self.mean_val != NOT_SET and self.std_val != NOT_SET


class Normalization(Section):
    """How intensities become network input. One function does it, in training and in inference."""

    type: Literal["div", "scale_range", "zero_mean_unit_variance"] = "zero_mean_unit_variance"
    """`div`: divide by 255 (image maximum at most 255), 65535 (at most that) or the maximum, images already in [0, 1] stay, one
    divisor for all channels; `scale_range`: (x - min) / (max - min); `zero_mean_unit_variance`: (x - mean) / std. Statistics are
    of the whole image, those of the last two per channel."""

    perc_clip: PercentileClip = PercentileClip()
    """Clipping before that."""

    zero_mean_unit_var: FixedStatistics = FixedStatistics()
    """Fixed mean and standard deviation."""


class FolderSection(Section):
    """Keys that training, validation and test folders share."""

    input_img_axes_order: str | None = None
    """Axis letters (of T, C, Z, Y, X) of the stored images, e.g. `CZYX`. Left out: metadata, else a stated guess."""

    input_mask_axes_order: str | None = None
    """Axis letters of the stored label images. Left out: metadata, else a stated guess."""

    input_zarr_multiple_data: bool = False
    """Image and label lie in one Zarr, N5 or HDF5 file, under the two inner paths below."""

    input_zarr_multiple_data_raw_path: InnerPath = ""
    """Inner path of the image in a Zarr, N5 or HDF5 file, e.g. `volumes/raw` (dots work too)."""

    input_zarr_multiple_data_gt_path: InnerPath = ""
    """Inner path of the label image in a Zarr, N5 or HDF5 file, e.g. `volumes/labels`."""

    in_memory: bool = True
    """Keep the pixels in RAM after the first reading. False: read each region from the file when it is needed."""

    resolution: tuple[float, ...] | None = None
    """Pixel size along ([z,] y, x) in micrometres, in place of what the files say. -1: not set."""

    overlap: tuple[Fraction, ...] | None = None
    """Fraction of a patch shared with its neighbour, per axis ([z,] y, x), in [0, 1)."""

    padding: tuple[Pixels, ...] | None = None
    """Pixels on each side of a patch that serve as context only, per axis ([z,] y, x)."""


class TrainData(FolderSection):
    """DATA.TRAIN: the training images."""

    path: str | None = None
    """Folder of training images (or one file)."""

    gt_path: str | None = None
    """Folder of their label images, of the same names."""

    check_data: bool = True
    """Read every label image before training and check its values. False: only where they must be counted (N_CLASSES left out,
    or CLASS_REBALANCE: auto)."""

    extract_random_patch: bool = False
    """One random patch per image and epoch instead of the grid of patches."""

    probability_map: bool = False
    """Draw the centres of random patches so that foreground is met often."""

    w_foreground: Annotated[float, Field(ge=0, le=1)] = 0.94
    """Probability mass of foreground pixels in that map."""

    w_background: Annotated[float, Field(ge=0, le=1)] = 0.06
    """Probability mass of background pixels in that map."""

    class_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the training patches that lie around a pixel of a class, all classes of the foreground in turn; the others lie
    anywhere. 0: the grid of patches, or as EXTRACT_RANDOM_PATCH says. Left out: decided."""

    replicate: Annotated[int, Field(ge=0)] = 0
    """Repeat the list of samples so many times per epoch; 0 and 1 mean once."""

    @model_validator(mode="after")
    def _check_probability_map(self) -> TrainData:
        if self.probability_map and not self.extract_random_patch:
            raise ValueError("PROBABILITY_MAP chooses the centres of random patches: set EXTRACT_RANDOM_PATCH: True as well")
        if self.extract_random_patch and self.class_share:
            raise ValueError("CLASS_SHARE and EXTRACT_RANDOM_PATCH both say where patches lie: leave one of them out")
        if self.probability_map and self.w_foreground + self.w_background <= 0:
            raise ValueError("W_FOREGROUND and W_BACKGROUND must not both be 0")
        return self


class ValidationData(FolderSection):
    """DATA.VAL: the images that choose the best checkpoint."""

    from_train: bool = True
    """Take validation images from the training images. False: from PATH and GT_PATH."""

    split_train: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Fraction of the training images kept for validation; of each image where there is one, or two and this is at most 0.25."""

    random: bool = True
    """Shuffle (by SYSTEM.SEED) before splitting. False: the last images validate."""

    cross_val: bool = False
    """k-fold cross-validation: this run validates on one fold and trains on the others."""

    cross_val_nfold: Annotated[int, Field(ge=2)] = 5
    """Number of folds."""

    cross_val_fold: Annotated[int, Field(ge=1)] = 1
    """The fold that validates in this run, from 1."""

    path: str | None = None
    """Folder of validation images, with FROM_TRAIN: False."""

    gt_path: str | None = None
    """Folder of validation label images, with FROM_TRAIN: False."""

    dist_eval: bool = True
    """Accepted; the processes of a distributed run always share the validation."""

    @model_validator(mode="after")
    def _check_fold(self) -> ValidationData:
        if self.cross_val and self.cross_val_fold > self.cross_val_nfold:
            raise ValueError(f"CROSS_VAL_FOLD {self.cross_val_fold} is beyond CROSS_VAL_NFOLD {self.cross_val_nfold}")
        if self.cross_val and not self.from_train:
            raise ValueError("CROSS_VAL needs FROM_TRAIN: True (the folds are cut from the training images)")
        return self


class TestData(FolderSection):
    """DATA.TEST: the images to predict."""

    in_memory: bool = True
    """Accepted; test images are read tile by tile."""

    overlap: tuple[Fraction, ...] | None = None
    """Above 0: images are predicted in patches of the training's size that share this fraction with their neighbours, per axis
    ([z,] y, x), and are averaged with smooth weights. Left out: in tiles as large as memory allows, see TEST.MAX_MEMORY."""

    padding: tuple[Pixels, ...] | None = None
    """Least border of a tile that is thrown away, pixels per axis ([z,] y, x). Left out: as wide as the network needs it."""

    path: str | None = None
    """Folder of images to predict (or one file)."""

    gt_path: str | None = None
    """Folder of their label images, used with LOAD_GT."""

    load_gt: bool = False
    """Read the label images and measure the prediction."""

    check_data: bool = True
    """Read every label image first and check its values."""

    argmax_to_output: bool | None = None
    """What goes to `per_image` and `full_image`. True: a label image, one channel, an integer per class. False: float32
    probabilities in [0, 1], one channel per class. Left out: True, unless TEST.SAVE_MODEL_RAW_OUTPUT asks for probabilities."""

    use_val_as_test: bool = False
    """Test on the validation images (of one or two images: the blocks that validate). What is measured then has chosen the
    network."""

    median_padding: bool = False
    """Accepted; images are padded by reflection."""


class Data(Section):
    """DATA: images and labels."""

    patch_size: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Training patch as (y, x, channels) or (z, y, x, channels). Left out: decided from the data."""

    n_classes: Annotated[int, Field(ge=1, le=255)] | None = None
    """Number of classes, background included. Left out: counted in the label images. 1 (very old files) means 2."""

    class_names: tuple[str, ...] | None = None
    """Names for tables and charts, background first. Left out: from a file `classes.txt` (a name per line) or nnU-Net's
    `dataset.json` in the folder of the labels or up to two folders above; else background, foreground, or class 1, class 2…"""

    check_generators: bool = False
    """Save the patches as the network gets them, image and label, to `gen_check` and `gen_mask_check`."""

    reflect_to_complete_shape: bool = True
    """Pad images smaller than a patch by reflection. False: such an image is an error."""

    force_rgb: bool = False
    """Repeat a single channel three times."""

    normalization: Normalization = Normalization()
    """Intensities to network input."""

    train: TrainData = TrainData()
    """Training images."""

    val: ValidationData = ValidationData()
    """Validation images."""

    test: TestData = TestData()
    """Images to predict."""
