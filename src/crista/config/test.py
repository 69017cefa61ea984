"""TEST: prediction, post-processing and measurement."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from crista.config.base import Section
from crista.config.engine import EngineName

FilterAxes = Literal["xy", "yx", "zy", "yz", "zx", "xz", "z"]


class PostProcessing(Section):
    """TEST.POST_PROCESSING: median filters over the prediction."""

    z_filtering: bool = False
    """Median filter along z (3D, or 2D images analysed as a stack)."""

    z_filtering_size: Annotated[int, Field(ge=1)] = 5
    """Its length in slices; an even one is raised by 1."""

    yz_filtering: bool = False
    """Median filter over y and z (3D, or 2D images analysed as a stack)."""

    yz_filtering_size: Annotated[int, Field(ge=1)] = 5
    """Its side in voxels; an even one is raised by 1."""

    median_filter: bool = False
    """Median filters along the axes of MEDIAN_FILTER_AXIS, one after the other."""

    median_filter_axis: tuple[FilterAxes, ...] = ()
    """Axes of each filter."""

    median_filter_size: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Size of each filter in voxels; an even one is raised by 1."""

    @model_validator(mode="after")
    def _check_filters(self) -> PostProcessing:
        if self.median_filter and not self.median_filter_axis:
            raise ValueError("MEDIAN_FILTER: True needs MEDIAN_FILTER_AXIS and MEDIAN_FILTER_SIZE, e.g. ['z'] and [5]")
        if len(self.median_filter_axis) != len(self.median_filter_size):
            raise ValueError(
                f"MEDIAN_FILTER_AXIS has {len(self.median_filter_axis)} entries, "
                f"MEDIAN_FILTER_SIZE has {len(self.median_filter_size)}; they go together"
            )
        return self

    @property
    def filters(self) -> tuple[tuple[str, int], ...]:
        """(axes in zyx order, odd size) of every filter, in the order in which they run."""
        chosen: list[tuple[str, int]] = []
        if self.z_filtering:
            chosen.append(("z", self.z_filtering_size))
        if self.yz_filtering:
            chosen.append(("zy", self.yz_filtering_size))
        if self.median_filter:
            chosen.extend(zip(self.median_filter_axis, self.median_filter_size, strict=True))
        return tuple(("".join(sorted(axes, key="zyx".index)), size | 1) for axes, size in chosen)

    def filters_for(self, ndim: int) -> tuple[tuple[str, int], ...]:
        """The filters that an image of `ndim` spatial axes has the axes for: none along z in 2D (not stacked)."""
        return tuple((axes, size) for axes, size in self.filters if ndim == 3 or "z" not in axes)


class Statistics(Section):
    """TEST.STATS: which measurements are made (older files)."""

    per_patch: bool = False
    """Accepted; each patch is always measured by itself too, where there are label images."""

    merge_patches: bool = False
    """Accepted; the image put together from patches is always measured, where there are label images."""

    full_img: bool | None = None
    """Predict and measure whole images without patches; the same as TEST.FULL_IMG."""


class ByChunks(Section):
    """TEST.BY_CHUNKS: prediction of volumes and slides larger than memory."""

    enable: bool = False
    """Write every prediction as OME-Zarr. False: images that are Zarr or N5 become OME-Zarr, others TIFF. Memory is fixed either
    way."""

    save_out_tif: bool = False
    """Write each prediction as TIFF as well."""

    write_raw_predictions: bool = False
    """Write probabilities too (with ENABLE); the same as DATA.TEST.ARGMAX_TO_OUTPUT: False, which decides where it is given."""

    z_start: Annotated[int, Field(ge=-1)] = -1
    """First slice to predict (with ENABLE); slices outside the range stay 0 and are not measured. -1: from the first."""

    z_end: Annotated[int, Field(ge=-1)] = -1
    """The slice after the last one to predict (with ENABLE). -1: to the last."""

    @model_validator(mode="after")
    def _check_range(self) -> ByChunks:
        if self.z_end != -1 and self.z_end <= max(0, self.z_start):
            raise ValueError(f"Z_END {self.z_end} must be above Z_START {max(0, self.z_start)}: no slice would be predicted")
        return self


class Test(Section):
    """TEST: prediction and measurement."""

    enable: bool = False
    """Predict the images of DATA.TEST."""

    verbose: bool = True
    """Accepted; log.txt always holds every line."""

    engine: EngineName = "auto"
    """What computes the network on a processor. `auto`: the fastest of `torch`, `openvino` and `onnxruntime` on a tile of the
    largest image, of those that are installed and whose float32 numbers are those of PyTorch; a job that is too small to gain by
    it keeps `torch`. `fastest`: 8-bit integers (`openvino-int8`) as well, if no class of the validation images lost 0.003 of
    IoU by them. A name: that engine. On a GPU always `torch`."""

    full_img: bool = False
    """Predict whole images without patches as well, into `full_image`."""

    stats: Statistics = Statistics()
    """Which measurements are made (older files)."""

    augmentation: bool = False
    """Average the prediction over flips and 90° rotations of the image: at most 8 in 2D, 16 in 3D."""

    augmentation_mode: Literal["mean", "min", "max"] = "mean"
    """How the orientations are put together."""

    augmentation_group: Literal["auto", "full", "flips", "none"] = "auto"
    """Orientations: those that follow from the flips and turns of the training (`auto`; all of them if it had none), all flips
    and turns (`full`), flips only, or none."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Two classes: a pixel is foreground where its probability is above this. The label image and the metric use the same."""

    analize_2d_imgs_as_3d_stack: bool = False
    """Stack the 2D predictions along z, filter and measure them as one volume."""

    save_model_raw_output: bool | None = None
    """Write probabilities to `per_image`; the newer way to say DATA.TEST.ARGMAX_TO_OUTPUT: False."""

    metrics: tuple[Literal["iou", "jaccard_index"], ...] = ("iou",)
    """Both names mean intersection over union."""

    eval_border_crop: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Pixels at the border of each axis ([z,] y, x) that are left out of the measurement."""

    reduce_memory: bool = False
    """Accepted; images are predicted tile by tile anyway."""

    max_memory: Annotated[float, Field(gt=0)] | None = None
    """Most memory that prediction uses, in GB, whatever the size of the images. An image that fits is predicted in one piece;
    a larger one in tiles. More memory means larger tiles, and less work at their borders. Left out: 1.5, or up to 4 GB more
    where the largest image is then predicted in one piece, with no more than a quarter of the memory that is free. On a GPU tiles
    take 0.6 of its free memory, whatever is given here."""

    by_chunks: ByChunks = ByChunks()
    """Volumes and slides larger than memory."""

    post_processing: PostProcessing = PostProcessing()
    """Median filters over the prediction."""
