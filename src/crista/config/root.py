"""Config: the whole request, and the checks that span sections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from crista.config.augmentor import Augmentor
from crista.config.base import Section
from crista.config.cluster import Cluster
from crista.config.data import Data
from crista.config.loss import Loss
from crista.config.model import Model, UNet
from crista.config.test import Test
from crista.config.train import Train
from crista.errors import Problem


class System(Section):
    """SYSTEM: the machine."""

    num_cpus: Annotated[int, Field(ge=-1)] = -1
    """Processor cores to use, as far as there are so many. -1 and 0: all."""

    num_workers: Annotated[int, Field(ge=-1)] = -1
    """Threads that prepare patches beside the network. -1: one per four cores, at least one and at most eight."""

    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, `mps`. Left out: a GPU if there is one."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random: weights, splits, patches, augmentation."""

    pin_mem: bool = True
    """Page-locked memory for the way to a GPU."""

    cluster: Cluster = Cluster()
    """Processes and machines that predict together."""


class ProblemSection(Section):
    """PROBLEM: the task."""

    type: Literal["SEMANTIC_SEG"] = "SEMANTIC_SEG"
    """The workflow; crista does semantic segmentation."""

    ndim: Literal["2D", "3D"] | None = None
    """Images or volumes. Left out: seen from the data."""

    print_old_key_changes: bool = True
    """Say what each old key became."""


class ResultFolders(Section):
    """PATHS.RESULT_DIR: names of the folders of predictions."""

    per_image: str = "per_image"
    """Images put together from patches."""
    per_image_bin: str = "per_image_binarized"
    """The same as label images."""
    full_image: str = "full_image"
    """Whole images without patches."""
    full_image_bin: str = "full_image_binarized"
    """The same as label images."""
    full_post_processing: str = "full_post_processing"
    """Images and volumes after the median filters."""
    as_3d_stack: str = "as_3d_stack"
    """2D predictions as one volume, before filtering."""


class Paths(Section):
    """PATHS: names of folders inside the results tree, and files to start from."""

    checkpoint_file: str = ""
    """Checkpoint to predict with, or with MODEL.LOAD_CHECKPOINT to start the training from. Empty: that of this run."""

    prob_map_dir: str | None = None
    """Folder of the probability maps. Left out: `prob_map` in the job folder."""

    da_samples: str = "aug"
    """Samples of augmented patches."""

    charts: str = "charts"
    """Curves and the drawing of the network."""

    gen_checks: str = "gen_check"
    """Patches as the network gets them (DATA.CHECK_GENERATORS)."""

    gen_mask_checks: str = "gen_mask_check"
    """Their labels."""

    result_dir: ResultFolders = ResultFolders()
    """Folders of predictions."""


class Config(Section):
    """The whole configuration. Every key may be left out: what the data can decide, the plan decides."""

    system: System = System()
    """The machine."""
    problem: ProblemSection = ProblemSection()
    """The task."""
    data: Data = Data()
    """Images and labels."""
    augmentor: Augmentor = Augmentor()
    """Augmentation."""
    model: Model = UNet()
    """The network."""
    loss: Loss = Loss()
    """What training makes small."""
    train: Train = Train()
    """Training."""
    test: Test = Test()
    """Prediction and measurement."""
    paths: Paths = Paths()
    """Folders."""

    def given(self) -> dict[str, Any]:
        """The keys that were given, as they would stand in a file."""
        tree = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        if not self.model.architecture_given and "MODEL" in tree:
            del tree["MODEL"]["ARCHITECTURE"]
        return tree


def check_across_sections(config: Config) -> list[Problem]:
    """What a single section cannot see: keys that contradict each other or need each other."""
    return [*_check_patch_size(config), *_check_classes(config), *_check_testing(config)]


def _check_patch_size(config: Config) -> list[Problem]:
    ndim, size = config.problem.ndim, config.data.patch_size
    flat, deep = "(y, x, channels)", "(z, y, x, channels)"
    if size is None or (len(size) in (3, 4) and (ndim is None or len(size) == int(ndim[0]) + 1)):
        return []
    wanted = f"PROBLEM.NDIM: {ndim} takes {flat if ndim == '2D' else deep}" if ndim else f"it takes {flat} or {deep}"
    example = {"2D": "e.g. (256, 256, 1)", "3D": "e.g. (32, 128, 128, 1)"}
    return [
        Problem(
            "DATA.PATCH_SIZE",
            f"{tuple(size)} has {len(size)} values; {wanted}",
            example.get(ndim or "", "e.g. (256, 256, 1) for images, (32, 128, 128, 1) for volumes"),
        )
    ]


def _check_classes(config: Config) -> list[Problem]:
    problems: list[Problem] = []
    classes, weights = config.data.n_classes, config.loss.class_weights
    if classes is not None and config.loss.class_rebalance == "manual" and len(weights) != max(2, classes):
        problems.append(
            Problem(
                "LOSS.CLASS_WEIGHTS",
                f"{len(weights)} weights for {max(2, classes)} classes",
                "give one weight per class, background first",
            )
        )
    shared = [value for value in config.loss.ignored_values if classes is not None and value < max(2, classes)]
    if shared and classes is not None:
        next_step = "use a value outside the classes, e.g. 255"
        if shared == [0]:
            next_step += "; if the classes start at 1 and 0 is not annotated, leave DATA.N_CLASSES out"
        what = f"{' and '.join(map(str, shared))} is also a class (0 to {max(2, classes) - 1})"
        problems.append(Problem("LOSS.IGNORE_INDEX", what, next_step))
    names = config.data.class_names
    if names is not None and classes is not None and len(names) != max(2, classes):
        problems.append(
            Problem(
                "DATA.CLASS_NAMES",
                f"{len(names)} names for {max(2, classes)} classes ({', '.join(names)})",
                "give one name per class, background first, or correct DATA.N_CLASSES",
            )
        )
    return problems


def _check_testing(config: Config) -> list[Problem]:
    problems: list[Problem] = []
    if config.data.test.use_val_as_test and not config.data.val.from_train:
        problems.append(
            Problem(
                "DATA.TEST.USE_VAL_AS_TEST", "needs DATA.VAL.FROM_TRAIN: True", "or give DATA.TEST.PATH the validation images"
            )
        )
    ndim = config.problem.ndim
    stack = config.test.analize_2d_imgs_as_3d_stack
    post = config.test.post_processing
    along_z = post.median_filter and any("z" in axes for axes in post.median_filter_axis)
    if ndim == "2D" and along_z and not stack:
        problems.append(
            Problem(
                "TEST.POST_PROCESSING.MEDIAN_FILTER_AXIS",
                "a median filter along z needs volumes, and PROBLEM.NDIM is 2D",
                "set TEST.ANALIZE_2D_IMGS_AS_3D_STACK: True if the images are the slices of one volume, else turn it off",
            )
        )
    if ndim == "3D" and stack:
        problems.append(Problem("TEST.ANALIZE_2D_IMGS_AS_3D_STACK", "is for 2D images, and PROBLEM.NDIM is 3D", "leave it out"))
    return problems
