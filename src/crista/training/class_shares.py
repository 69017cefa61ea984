"""Class shares: how often each class occurs in images of which only some pixels are labelled, told to the trained network.

Whoever scribbles marks about as much of a rare class as of a frequent one, and patches are drawn around each class alike. So a
network learns that all are about as frequent, and in whole images finds far too much of the rare ones. How frequent they are is
seen in the unlabelled pixels: the shares under which what the network says about them is most likely (expectation maximisation,
Saerens, Latinne, Decaestecker 2002, doi:10.1162/089976602753284446). That is done once, after the training; the bias of the last
layer then expects these shares.

A network is surer of itself than it is right, most of all away from what was labelled, so its logits are divided by a temperature
before: the one that fits the labelled pixels of the validation best (Guo et al. 2017, arXiv:1706.04599).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from crista.metrics.confusion import compute_confusion
from crista.metrics.overlap import recall
from crista.models import build_model
from crista.models.initialization import shift_logits
from crista.models.placement import to_device, to_layout
from crista.patches.dataset import PatchSamples
from crista.patches.loader import iter_batches
from crista.patches.placing import GridPlacer
from crista.plan.events import CheckpointSaved, Event, Said, Warned
from crista.plan.topology import input_multiple
from crista.training.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint
from crista.training.state import TrainingJob, preparation
from crista.training.validation import some_of, validation_batches

MOST_PATCHES = 64
"""Patches that are looked at, spread evenly over the images."""
MOST_PIXELS = 2**17
"""Pixels of them whose logits are kept."""
DRAWN_SAMPLES = 256
"""Training samples in which the annotated pixels of each class are counted."""
TEMPERATURES = tuple(1 + step / 20 for step in range(21))
"""Beyond 2 the posteriors are so flat that rare classes are taken for noise. Five classes of organelles, 2 % scribbles, mean IoU
on whole labels: 0.38 as it is, 0.47 with a temperature of 1, 0.55 with 1.7, 0.58 with 2, 0.47 with 2.5."""
STRENGTHS = (1.0, 0.75, 0.5, 0.25)
LEAST_RECALL = 0.5
"""Of its recall on the labelled pixels of the validation every class keeps at least this share."""
LEAST_SHARE = 1e-4

Logits = NDArray[np.float64]
"""(pixels, K), of two classes too; the class with the largest one is predicted."""


def tell_class_shares(job: TrainingJob) -> Generator[Event, None, None]:
    """Correct the best network of a finished training, once; nothing happens where the plan does not ask for it."""
    if not job.plan.estimates_class_shares or not job.processes.is_main or not job.best_path.is_file():
        return
    checkpoint = load_checkpoint(job.best_path, device=job.device)
    if checkpoint.class_shares is not None:
        return
    model = _trained(job, checkpoint)
    drawn = drawn_shares(job.train, job.plan.classes.num_classes)
    learnt = weighted_shares(drawn, job.plan.class_weights)
    labelled, classes = _labelled_pixels(job, model)
    temperature = fit_temperature(labelled, classes, learnt)
    shares = estimate_shares(_all_pixels(job, model), learnt, temperature=temperature)
    shift = temperature * np.log(shares / learnt)
    strength = choose_strength(shift, labelled, classes)
    told = tuple((strength * shift).tolist())
    weights = {**checkpoint.weights, "head.bias": shift_logits(checkpoint.weights["head.bias"], told)}
    save_checkpoint(job.best_path, replace(checkpoint, weights=weights, class_shares=tuple(shares.tolist()), class_shift=told))
    yield CheckpointSaved(job.best_path)
    yield Said(_describe(job.plan.classes.names, drawn, shares, strength))


def warn_of_untold(checkpoint: Checkpoint) -> Iterator[Event]:
    """A warning if a network that predicts was to be told how frequent the classes are, and was not: that is done to the best one
    of a training, at its end."""
    if checkpoint.plan.estimates_class_shares and checkpoint.class_shares is None:
        yield Warned(
            "this network was not told how frequent the classes are (LOSS.ESTIMATE_CLASS_SHARES), and may find too much of the "
            "rare ones: that is done at the end of a training, to its ...-checkpoint-best.pth alone. Predict with that one; if "
            "its training was killed, run the command of the training again"
        )


def estimate_shares(logits: Logits, learnt: NDArray[np.float64], *, temperature: float) -> NDArray[np.float64]:
    """Shares (K,) of the classes among pixels, most likely by the logits of a network that has learnt the shares `learnt`."""
    posterior = _softmax(logits / temperature)
    shares = learnt
    for _ in range(500):
        weighted = posterior * (shares / learnt)
        weighted /= weighted.sum(axis=1, keepdims=True)
        before, shares = shares, _at_least(weighted.mean(axis=0))
        if np.abs(shares - before).max() < 1e-6:
            break
    return shares


def fit_temperature(logits: Logits, classes: NDArray[np.intp], learnt: NDArray[np.float64]) -> float:
    """The one of `TEMPERATURES` by which labelled pixels surprise least, each class weighing as in the training; 1 of none."""
    if not len(classes):
        return 1.0
    weights = (learnt / np.maximum(np.bincount(classes, minlength=len(learnt)), 1))[classes]

    def surprise(temperature: float) -> float:
        chosen = _softmax(logits / temperature)[np.arange(len(classes)), classes]
        return float(-(weights * np.log(np.maximum(chosen, 1e-12))).sum())

    return min(TEMPERATURES, key=surprise)


def choose_strength(shift: NDArray[np.float64], logits: Logits, classes: NDArray[np.intp]) -> float:
    """How much of `shift` (K,) is taken: so much that every class keeps `LEAST_RECALL` of its recall on labelled pixels."""
    before = _recalls(logits, classes)
    for strength in STRENGTHS:
        if (_recalls(logits + strength * shift, classes) >= LEAST_RECALL * before).all():
            return strength
    return 0.0


def drawn_shares(samples: PatchSamples, num_classes: int) -> NDArray[np.float64]:
    """Share (K,) of each class among the annotated pixels of training samples."""
    counts = np.zeros(num_classes)
    for index in range(DRAWN_SAMPLES):
        cut, _ = samples.cut(index, samples.rng(index, 1))
        counts += np.bincount(cut.label.ravel(), minlength=256)[:num_classes]
    return _at_least(counts / max(1.0, counts.sum()))


def weighted_shares(drawn: NDArray[np.float64], class_weights: Sequence[float] | None) -> NDArray[np.float64]:
    """The shares (K,) that a network learns of pixels with the shares `drawn`, each class weighing as in the loss."""
    if class_weights is None:
        return drawn
    weighted = drawn * np.asarray(class_weights)
    return _at_least(weighted / weighted.sum())


def _trained(job: TrainingJob, checkpoint: Checkpoint) -> nn.Module:
    plan = job.plan
    model = build_model(plan.model, num_channels=plan.num_channels, num_logits=plan.classes.num_logits, ndim=plan.ndim)
    load_weights(model, checkpoint.weights, skip_unmatched=False, where=str(job.best_path))
    return to_layout(model, job.device, plan.ndim).eval()


def _labelled_pixels(job: TrainingJob, model: nn.Module) -> tuple[Logits, NDArray[np.intp]]:
    """Logits and classes of the annotated pixels of the validation."""
    logits, classes = _look(job, model, job.validation)
    inside = classes != job.plan.classes.ignore_index
    return logits[inside], classes[inside]


def _all_pixels(job: TrainingJob, model: nn.Module) -> Logits:
    """Logits of pixels all over the training images, annotated or not."""
    plan, none = job.plan, [0] * job.plan.ndim
    multiple = input_multiple(plan.model, plan.ndim)
    grid = GridPlacer(job.train.sources, plan.patch_size, overlap=none, padding=none, multiple=multiple)
    return _look(job, model, job.train.placed_by(grid))[0]


@torch.inference_mode()
def _look(job: TrainingJob, model: nn.Module, samples: PatchSamples) -> tuple[Logits, NDArray[np.intp]]:
    """Logits and classes (or the ignore value) of pixels spread over samples on a grid."""
    batches = some_of(validation_batches(samples, job.plan.batch_size), MOST_PATCHES)
    logits, classes = [], []
    voxels = sum(map(len, batches)) * int(np.prod(job.plan.patch_size))
    step = max(1, ceil(voxels / MOST_PIXELS))
    for batch in iter_batches(samples, batches, epoch=0, num_threads=job.num_threads, prepare=preparation(job)):
        scores = model(to_device(batch.images, job.device)).float().movedim(1, -1).flatten(0, -2)[::step]
        if scores.shape[1] == 1:
            scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
        logits.append(scores.cpu().numpy().astype(np.float64))
        classes.append(batch.targets.flatten()[::step].numpy().astype(np.intp))
    if not logits:
        return np.zeros((0, job.plan.classes.num_classes)), np.zeros(0, np.intp)
    return np.concatenate(logits), np.concatenate(classes)


def _recalls(logits: Logits, classes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Share (K,) of the pixels of each class that are found; 0 of a class without pixels."""
    return np.nan_to_num(recall(compute_confusion(classes, logits.argmax(axis=1), num_classes=logits.shape[1])))


def _softmax(logits: Logits) -> NDArray[np.float64]:
    return np.asarray(torch.from_numpy(logits).softmax(dim=1).numpy())


def _at_least(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of at least `LEAST_SHARE`, which add up to 1."""
    raised = np.maximum(shares, LEAST_SHARE)
    return np.asarray(raised / raised.sum())


def _describe(names: tuple[str, ...], drawn: NDArray[np.float64], shares: NDArray[np.float64], strength: float) -> str:
    def listed(values: NDArray[np.float64]) -> str:
        return ", ".join(f"{name} {value:.1%}" for name, value in zip(names, values, strict=True))

    seen = (
        f"class shares: {listed(drawn)} of the annotated pixels that it was shown, but {listed(shares)} of all pixels, as far as"
    )
    if not strength:
        return (
            f"{seen} can be told: the network is left as it was trained, because with the latter in mind it would lose more than "
            "half of the validation's annotated pixels of a class"
        )
    part = "" if strength == 1 else f" (by {strength:.0%}: else it would lose more than half of the annotated pixels of a class)"
    return (
        f"{seen} can be told: the network expects the latter from now on{part}. Measured on annotated pixels alone, of which "
        "rare classes are a larger part, it may look worse than in the log (LOSS.ESTIMATE_CLASS_SHARES: False leaves it as it is)"
    )
