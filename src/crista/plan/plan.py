"""Plan: the request made concrete. Every number is filled in, each decision with its reason."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crista.config.augmentor import Augmentation
from crista.config.base import Section
from crista.config.loss import LossTermConfig
from crista.config.model import Model
from crista.config.root import Config
from crista.config.train import Optimizer, ScheduleShape
from crista.geometry.orientation import Orientation


class Decision(Section):
    """One number that the plan filled in."""

    key: str
    """The configuration key that would override it, e.g. ``TRAIN.BATCH_SIZE``."""
    value: str
    reason: str


class Classes(Section):
    """What the values of a label image mean."""

    names: tuple[str, ...]
    """Name of each class; the index is the class, 0 is the background."""
    ignore_index: int | None = None
    """What pixels without annotation become when label images are read."""
    mapping: tuple[tuple[int, int], ...] | None = None
    """(stored value, class) pairs where they differ, e.g. ((0, 0), (255, 1)); None: stored values are the classes."""
    ignored: tuple[int, ...] = ()
    """Stored values of pixels without annotation; empty: only `ignore_index` itself."""

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.names)

    @property
    def num_logits(self) -> int:
        """Channels of the network's output: one for two classes (sigmoid), else one per class (softmax)."""
        return 1 if self.num_classes == 2 else self.num_classes


class LossTerm(Section):
    """One term of the loss and its weight."""

    term: LossTermConfig
    weight: float


class InferencePlan(Section):
    """How images are cut into tiles and put together."""

    mode: Literal["halo", "blended"]
    """`halo`: the borders of tiles are thrown away; `blended`: overlapping tiles are averaged with smooth weights."""
    tile_size: tuple[int, ...]
    """(Z)YX voxels, multiples of the network's stride."""
    halo: tuple[int, ...]
    """Border of a tile that is thrown away (mode `halo`), (Z)YX voxels."""
    overlap: tuple[float, ...]
    """Fraction of a tile shared with its neighbour (mode `blended`), (Z)YX."""
    batch_size: int
    max_tile_voxels: int | None = None
    """Voxels of the largest tile that memory allows. Tiles are then fitted to each image, `tile_size` being the usual one; None:
    all tiles are of `tile_size`."""
    exact: bool = False
    """Whether tiles give what the whole image gives: the halo covers the receptive field and no layer depends on the tile."""
    engine: str = ""
    """What runs the network; empty until it is chosen."""
    orientations: tuple[Orientation, ...] = ()
    """Those of the image that are averaged over. Empty: the image as it is, or not yet decided."""


class Plan(Section):
    """All that training and inference need to know; written to ``plan.json`` and kept in the checkpoint."""

    version: Literal[1] = 1
    config: Config
    """The request, as given."""
    ndim: Literal[2, 3]
    num_channels: int
    classes: Classes
    spacing: tuple[float, ...] | None
    """Median voxel size of the training images in micrometres, (Z)YX; None if unknown."""
    object_diameter: float | None = None
    """Diameter of the objects in the training labels, voxels: half of the foreground lies in smaller ones.
    None if unknown, as of scribbles."""
    patch_size: tuple[int, ...]
    """(Z)YX voxels."""
    first_patch: tuple[int, ...] | None = None
    """Smaller patches, (Z)YX voxels, of the first epochs of a training by the clock; None: all are of `patch_size`."""
    model: Model
    """Every key of the network filled in."""
    loss: tuple[LossTerm, ...]
    class_weights: tuple[float, ...] | None
    class_frequencies: tuple[float, ...] | None = None
    """Share of each class among the annotated training pixels; None if the labels were not read."""
    sparse_labels: bool = False
    """Whether patches are drawn around annotated pixels, because most pixels have no annotation."""
    estimates_class_shares: bool = False
    """Whether the trained network is told how frequent the classes are, estimated from pixels without annotation."""
    optimizer: Optimizer
    schedule: ScheduleShape
    batch_size: int
    epochs: Annotated[int, Field(ge=1)]
    minutes: float | None = None
    """Time budget of the training, counted from the start of the run; None: `epochs` decide."""
    steps_per_epoch: int | None = None
    """Optimizer steps between two validations; None: as many as show each sample once."""
    first_epochs: int = 0
    """Epochs with patches of `first_patch`."""
    first_steps: int | None = None
    """Optimizer steps of such an epoch."""
    validation_patches: int | None = None
    """Patches that an epoch validates at most, spread evenly; None: all."""
    flips_z: bool = False
    """Whether z is reversed in training patches (AUGMENTOR.ZFLIP)."""
    class_share: float = 0.0
    """Share of the training patches around a pixel of a class; 0: patches by DATA.TRAIN."""
    average_share: float | None = None
    """Share of all steps over which the validated weights are averaged; None: the weights as they are."""
    patience: int | None
    amp: bool | None
    """Mixed precision; None or True: where the device is quicker with it."""
    inference: InferencePlan
    save_probabilities: bool
    """Whether `per_image` and `full_image` hold probabilities (True) or label images (False)."""
    decisions: tuple[Decision, ...] = ()

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The changes of training patches, in the order in which they are applied."""
        return self.config.augmentor.model_copy(update={"zflip": self.flips_z}).transforms(self.ndim)
