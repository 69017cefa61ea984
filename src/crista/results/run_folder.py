"""RunFolder: the one place that knows the names of files and folders in the results tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path, PurePath

from crista.config.root import Paths
from crista.errors import ConfigError, Problem
from crista.images.image import short_name, stem
from crista.images.listing import expand_home

FORBIDDEN = '/\\:*?"<>|'
"""Signs that some operating system does not allow in the name of a file."""

LONGEST_NAME = 230
"""Bytes of the name of an image's results; work on them adds up to 20."""

RESERVED_FOLDERS = ("tensorboard", "train_logs", ".state")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run. Makes no folders: whoever writes makes its own.

    Raises
    ------
    ConfigError
        If `name`, `run_id` or a folder name of `paths` cannot be used; all problems at once.
    """

    result_dir: Path
    """Parent folder of all jobs (`--result_dir`)."""
    name: str
    """Name of the job (`--name`)."""
    run_id: int = 1
    """Number of the run (`--run_id`)."""
    paths: Paths = field(default_factory=Paths)
    """Names of the folders, from PATHS of the configuration."""

    def __post_init__(self) -> None:
        problems = [*_check_name(self.name), *_check_folders(self.paths)]
        if not isinstance(self.run_id, Integral):  # also those of NumPy
            problems.append(Problem("--run_id", f"{self.run_id!r} is no whole number", "give a number from 0"))
        elif self.run_id < 0:
            problems.append(Problem("--run_id", f"{self.run_id} is negative", "give a number from 0"))
        if problems:
            raise ConfigError("with the names of the results", problems)

    @property
    def job(self) -> str:
        """``<name>_<run_id>``."""
        return f"{self.name}_{self.run_id}"

    @property
    def root(self) -> Path:
        """Folder of the job; all its runs are inside."""
        return self.result_dir / self.name

    @property
    def config_file(self) -> Path:
        """The YAML as given."""
        return self.root / "config_files" / f"{self.job}.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of all runs."""
        return self.root / "checkpoints"

    @property
    def checkpoint_best(self) -> Path:
        """The network of the best epoch (`crista.training.selection` says which that is)."""
        return self.checkpoints / f"{self.job}-checkpoint-best.pth"

    @property
    def checkpoint_last(self) -> Path:
        """All that training needs to go on."""
        return self.checkpoints / f"{self.job}-checkpoint-last.pth"

    @property
    def prob_map(self) -> Path:
        """Folder of the probability maps; an absolute PATHS.PROB_MAP_DIR is taken as it is."""
        return self.root / expand_home(self.paths.prob_map_dir or "prob_map")

    @property
    def all_results(self) -> Path:
        """Folder of the results of all runs."""
        return self.root / "results"

    @property
    def runs_summary(self) -> Path:
        """The table of all runs, with mean and standard deviation."""
        return self.all_results / "runs_summary.csv"

    @property
    def results(self) -> Path:
        """Folder of the results of this run."""
        return self.all_results / self.job

    @property
    def aug(self) -> Path:
        """Samples of augmented patches, mark_x and mark_y."""
        return self.results / self.paths.da_samples

    @property
    def charts(self) -> Path:
        """Curves and the drawing of the network."""
        return self.results / self.paths.charts

    @property
    def model_plot(self) -> Path:
        """The drawing of the network."""
        return self.charts / f"model_plot_{self.job}.png"

    @property
    def gen_check(self) -> Path:
        """Patches as the network gets them."""
        return self.results / self.paths.gen_checks

    @property
    def gen_mask_check(self) -> Path:
        """Labels of those patches."""
        return self.results / self.paths.gen_mask_checks

    @property
    def per_image(self) -> Path:
        """Predictions put together from tiles."""
        return self.results / self.paths.result_dir.per_image

    @property
    def per_image_binarized(self) -> Path:
        """The same as label images."""
        return self.results / self.paths.result_dir.per_image_bin

    @property
    def full_image(self) -> Path:
        """Predictions of whole images."""
        return self.results / self.paths.result_dir.full_image

    @property
    def full_image_binarized(self) -> Path:
        """The same as label images."""
        return self.results / self.paths.result_dir.full_image_bin

    @property
    def full_post_processing(self) -> Path:
        """Predictions after the median filters."""
        return self.results / self.paths.result_dir.full_post_processing

    @property
    def as_3d_stack(self) -> Path:
        """2D predictions as one volume."""
        return self.results / self.paths.result_dir.as_3d_stack

    @property
    def overlays(self) -> Path:
        """Pictures of image, label, prediction and errors."""
        return self.charts / "overlays"

    @property
    def tensorboard(self) -> Path:
        """Logs for TensorBoard."""
        return self.results / "tensorboard"

    @property
    def train_log(self) -> Path:
        """One row per epoch."""
        return self.results / "train_logs" / f"{self.job}.csv"

    @property
    def test_results_metrics(self) -> Path:
        """One row per test image, and a mean row."""
        return self.results / "test_results_metrics.csv"

    @property
    def test_results_summary(self) -> Path:
        """Figures over all test images, each with its interval."""
        return self.results / "test_results_summary.csv"

    @property
    def label_next(self) -> Path:
        """Regions in which the network is least sure."""
        return self.results / "label_next.csv"

    @property
    def confusion(self) -> Path:
        """Pooled confusion matrix of the test set."""
        return self.results / "test_results_confusion.csv"

    @property
    def plan_json(self) -> Path:
        """What was decided, and why."""
        return self.results / "plan.json"

    @property
    def provenance_json(self) -> Path:
        """Versions, machine, seed and inputs."""
        return self.results / "provenance.json"

    @property
    def log_txt(self) -> Path:
        """Everything that was said."""
        return self.results / "log.txt"

    @property
    def report_html(self) -> Path:
        """The self-contained report."""
        return self.results / "report.html"

    @property
    def state(self) -> Path:
        """Hidden folder: what the test phase needs to resume."""
        return self.results / ".state"


def output_names(paths: Sequence[PurePath]) -> list[str]:
    """Name of the result of each image, without extension; never twice the same.

    That is the stem of the file; images that share one (``a.png``, ``a.jpg``, also ``A.png``: some file systems do not tell
    them apart) keep their extension; those of the same name from several folders get a number. Names above LONGEST_NAME are cut.
    """
    stems = [stem(Path(path)) for path in paths]
    shared = Counter(name.lower() for name in stems)
    wanted = [path.name if shared[name.lower()] > 1 else name for path, name in zip(paths, stems, strict=True)]
    wanted = [short_name(name, LONGEST_NAME) for name in wanted]
    taken: set[str] = set()
    names = []
    for name in wanted:
        unique, number = name, 2
        while unique.lower() in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique.lower())
        names.append(unique)
    return names


def _check_name(name: object) -> list[Problem]:
    if not isinstance(name, str):
        return [Problem("--name", f"{name!r} is no text", "e.g. 'my_job'")]
    bad = sorted({sign for sign in name if sign in FORBIDDEN or not sign.isprintable()})
    if bad:
        shown = " ".join(sign if sign.isprintable() else repr(sign) for sign in bad)
        advice = f"e.g. {''.join('_' if sign in bad else sign for sign in name)!r}; --result_dir takes the folder"
        return [Problem("--name", f"{name!r} holds {shown}, which file names may not hold", advice)]
    if not name.strip() or name in (".", "..") or name != name.strip() or name.endswith("."):
        what = f"{name!r} is no name of a folder (empty, only dots, or with a space or dot at its end)"
        return [Problem("--name", what, "e.g. 'my_job'")]
    if len(name.encode()) > 150:
        return [Problem("--name", f"{len(name.encode())} bytes are too long, at most 150", "shorten it")]
    return []


def _check_folders(paths: Paths) -> list[Problem]:
    """Folders stay inside the run, and no two outputs share one."""
    folders = {
        "PATHS.DA_SAMPLES": paths.da_samples,
        "PATHS.CHARTS": paths.charts,
        "PATHS.GEN_CHECKS": paths.gen_checks,
        "PATHS.GEN_MASK_CHECKS": paths.gen_mask_checks,
        **{f"PATHS.RESULT_DIR.{key.upper()}": value for key, value in paths.result_dir},
    }
    problems = []
    seen: dict[str, str] = {}
    for key, folder in folders.items():
        pure = PurePath(folder)
        normal = pure.as_posix().lower()
        if pure.is_absolute() or ".." in pure.parts or normal in ("", "."):
            problems.append(Problem(key, f"{folder!r} is not a folder inside the run", "give a plain name"))
        elif normal in RESERVED_FOLDERS or normal in seen:
            owner = seen.get(normal, f"crista's own {folder}")
            problems.append(Problem(key, f"{folder!r} is also {owner}", "give each its own name, or leave both out"))
        seen.setdefault(normal, key)
    return problems
