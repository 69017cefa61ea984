"""The whole story as one generator: check, plan, train, predict, measure, show.

Everything that calls crista (command line, Python, windows) goes through here and listens to the events.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from crista.config.root import Config
from crista.errors import ConfigError, CristaError, Problem
from crista.images.check import DatasetReport
from crista.images.digest import digest_files
from crista.images.fingerprint import Fingerprint
from crista.images.image import ImagePair
from crista.images.listing import expand_home
from crista.images.wording import plural
from crista.inference.adoption import adopt_shards, note_shard
from crista.inference.distribution import Executor, SerialExecutor, build_executor
from crista.inference.distribution.ranks import RankExecutor
from crista.inference.record import weights_digest
from crista.inference.stage import PredictionJob, predict_images, predict_shard
from crista.inference.task import OutputFolders
from crista.inference.tuning import tune
from crista.patches.prepare import PreparedSamples, make_split, prepare_samples
from crista.patches.preview import write_augmented_samples, write_checked_samples, write_mark_images
from crista.plan.allocator import spare_addresses
from crista.plan.events import Event, FileWritten, Measured, Said, StageStarted, Warned
from crista.plan.fine_tuning import plan_fine_tuning, settled_otherwise
from crista.plan.ledger import GIVEN
from crista.plan.make import plan_for_prediction
from crista.plan.plan import Plan
from crista.plan.preparation import with_reasons
from crista.results.log import record_log
from crista.results.outcome import labels_folder, measure, warn_of_others, write_tables
from crista.results.recorder import record_training
from crista.results.run_folder import RunFolder, output_names
from crista.results.run_report import Circumstances, write_run_report
from crista.results.start import draw_network, start_run, write_plan, write_provenance_of
from crista.training.checkpoint import Checkpoint, load_checkpoint, load_network
from crista.training.class_shares import tell_class_shares, warn_of_untold
from crista.training.distributed import (
    Processes,
    choose_device,
    join_processes,
    leave_processes,
    require_equal,
    text_of_first,
)
from crista.training.loop import TrainingJob, previous_of, train
from crista.training.probe import adopt, choose_plan, fit_to_memory, fit_to_time, warn_of_memory
from crista.workflow.alone import predict_alone
from crista.workflow.annotated_share import warn_of_few_annotated
from crista.workflow.check import check, check_validation, require_a_stage
from crista.workflow.clipped_images import warn_of_clipped_images
from crista.workflow.device import trusted_device
from crista.workflow.engine import choose_predictor, known_int8_model, make_int8_model
from crista.workflow.known_images import training_files, warn_of_known_images, warn_of_learnt_images, warn_of_other_split
from crista.workflow.object_size import warn_of_object_size
from crista.workflow.remote import WorkerSetup, elsewhere, help_predicting
from crista.workflow.request import Request, kept_as_trained, only_training
from crista.workflow.resources import cache_bytes, limited_threads, loader_threads, notes_on_cores

"""Bytes that a machine is taken to have where the system does not say."""

Events = Generator[Event, None, None]


def run(request: Request) -> Events:
    """Do everything that the configuration asks for.

    Raises
    ------
    CristaError
        Before anything is trained or written under a final name, if configuration or data cannot be used.
    """
    config, folder = request.config, request.folder
    require_a_stage(config)
    _require_network_of_shard(config, folder)
    spare_addresses()
    with limited_threads(config.system):
        yield from _run_as_process(request)


def _run_as_process(request: Request) -> Events:
    """The run, in this process alone or together with the others that torchrun started; the first one tells of it."""
    device, why = choose_device(request.config.system.device)
    processes = join_processes(device)
    events = _run(request, device, processes, why)
    try:
        if processes.is_main:
            yield from record_log(events, request.folder.log_txt)
        else:
            for _ in events:
                pass
    finally:
        events.close()
        leave_processes()


def _run(request: Request, device: torch.device, processes: Processes, why_device: str) -> Events:
    config, folder, started = request.config, request.folder, datetime.now(UTC)
    for notice in (why_device, *notes_on_cores(config.system), *request.notices):
        yield Said(notice)
    trained = _starting_checkpoint(config, folder)
    report = yield from check(config, trained.plan if trained is not None and not config.train.enable else None)
    report.raise_if_problems()
    request, device = yield from trusted_device(request, device, report, trained)
    config = request.config
    data_key = _data_key(config, folder, report) if config.train.enable else ""
    if config.train.enable:
        assert report.fingerprint is not None
        earlier = _earlier(folder, data_key)
        known = earlier.plan if earlier is not None else None
        made = yield from _plan_training(request, report.fingerprint, trained, known, device, processes)
        plan = with_reasons(made, request.reasons)
    else:
        assert trained is not None
        plan = plan_for_prediction(trained.plan, config)
        kept = [key for key in settled_otherwise(config, trained.plan) if not any(key in notice for notice in request.notices)]
        yield from [Said(kept_as_trained(kept))] if kept else []
        yield from warn_of_untold(trained)
    yield StageStarted("plan")
    for decision in plan.decisions:
        if decision.reason != GIVEN:
            yield Said(f"{decision.key} = {decision.value}: {decision.reason}")
    if processes.is_main:
        start_run(folder, request.config_text, config)
        yield FileWritten(write_plan(folder, plan), "plan")
    if config.train.enable:
        plan = yield from train_stage(request, plan, report, data_key, device, processes, trained)
        processes.barrier()
        trained = load_checkpoint(folder.checkpoint_best, device=device)
    if config.test.enable:
        assert trained is not None
        executor = build_executor(config.system, rank=processes.rank, world_size=processes.world_size)
        if isinstance(executor, RankExecutor) and not processes.is_main:
            help_predicting(executor)
        else:
            yield from test_stage(request, plan, report, trained, device, executor)
    if processes.is_main:
        inputs = _input_files(config, folder, report)
        yield FileWritten(write_provenance_of(folder, plan, inputs, device=device, started=started), "provenance")
    processes.barrier()


def _plan_training(
    request: Request,
    fingerprint: Fingerprint,
    trained: Checkpoint | None,
    earlier: Plan | None,
    device: torch.device,
    processes: Processes,
) -> Generator[Event, None, Plan]:
    """The plan of a training from scratch, in all processes that of the first; or of one that starts from a network.

    `earlier` is the plan of the same training, if it was begun before.
    """
    config = request.config
    if trained is not None:
        where = config.paths.checkpoint_file or "this run's checkpoint"
        return plan_fine_tuning(config, fingerprint, trained.plan, where=where)
    minutes = config.train.max_minutes
    seconds = None if minutes is None else 60 * minutes - (time.monotonic() - request.begun)
    plan = yield from choose_plan(config, fingerprint, device, seconds, earlier)
    return same_plan(plan, processes, device)


def same_plan(plan: Plan, processes: Processes, device: torch.device) -> Plan:
    """The plan of the first process; clocks differ."""
    if processes.world_size == 1:
        return plan
    return Plan.model_validate_json(text_of_first(plan.model_dump_json(by_alias=True), processes, device))


def train_stage(
    request: Request,
    plan: Plan,
    report: DatasetReport,
    data_key: str,
    device: torch.device,
    processes: Processes,
    start: Checkpoint | None,
) -> Generator[Event, None, Plan]:
    """Train, with log, charts, samples of augmented patches and the drawing of the network; returns the plan as measured."""
    folder = request.folder
    if processes.world_size > 1:
        _require_one_folder(folder, processes, device)
    split = make_split(plan, report.train, report.val)
    yield Said(split.notice)
    yield from () if start is None else warn_of_learnt_images(split, report, start)
    samples = prepare_samples(plan, split, map_folder=folder.prob_map, cache_bytes=cache_bytes())
    if samples.warning:
        yield Warned(samples.warning)
    if processes.is_main:
        yield from _show_samples(plan, samples, folder)
        yield FileWritten(draw_network(folder, plan), "drawing of the network")
    job = TrainingJob(
        plan=plan,
        train=samples.train,
        validation=samples.validation,
        best_path=folder.checkpoint_best,
        last_path=folder.checkpoint_last,
        device=device,
        processes=processes,
        num_threads=loader_threads(request.config.system),
        data_key=data_key,
        stop=request.stop,
        start=start,
        first=samples.first,
    )
    job = yield from _fit(request, job)
    if processes.is_main:
        yield FileWritten(write_plan(folder, job.plan), "plan")
    yield StageStarted("train", job.plan.epochs if job.plan.minutes is None else 0)  # the clock may make other ones
    events = train(job)
    yield from record_training(events, folder) if processes.is_main else events
    yield from tell_class_shares(job)
    return job.plan


def _require_one_folder(folder: RunFolder, processes: Processes, device: torch.device) -> None:
    """Refuse a folder that is another one on another machine: each process would go on with a network of its own."""
    last = folder.checkpoint_last
    found = f"that of epoch {load_checkpoint(last).epoch}" if last.is_file() else "none"
    what = f"checkpoint {last} (the folder of results must be one that all machines share)"
    require_equal(found, what, processes, device)


def _fit(request: Request, job: TrainingJob) -> Generator[Event, None, TrainingJob]:
    """The job with batch and epochs that fit memory and time; those of its own earlier run, if there was one."""
    previous = _earlier(request.folder, job.data_key)
    adopted = adopt(job.plan, previous.plan) if previous is not None else None
    if adopted is None and (job.plan.minutes is not None or job.plan.config.train.batch_size is None):
        job = replace(job, plan=(yield from fit_to_memory(job)))
    elif adopted is not None and previous is not None and _goes_on(previous, adopted):
        yield from warn_of_memory(replace(job, plan=adopted))
    job = replace(job, budget_seconds=_seconds_left(request, job.plan))
    plan = adopted or (yield from fit_to_time(job))
    plan = same_plan(plan, job.processes, job.device)
    return replace(job, plan=plan, budget_seconds=_seconds_left(request, plan))


def _earlier(folder: RunFolder, data_key: str) -> Checkpoint | None:
    """What this run was trained to before, if it was, and on the same data: other images are measured anew."""
    if not folder.checkpoint_last.is_file():
        return None
    checkpoint = load_checkpoint(folder.checkpoint_last)
    return checkpoint if checkpoint.data_key == data_key else None


def _goes_on(done: Checkpoint, plan: Plan) -> bool:
    """Whether the training of `done` has epochs left with this `plan`: it was not finished, or is given more minutes now."""
    return not done.finished or (plan.minutes or 0) > (done.plan.minutes or 0)


def _seconds_left(request: Request, plan: Plan) -> float | None:
    """Seconds of the time budget that are left for training; at least one."""
    return None if plan.minutes is None else max(1.0, 60 * plan.minutes - (time.monotonic() - request.begun))


def test_stage(
    request: Request, plan: Plan, report: DatasetReport, trained: Checkpoint, device: torch.device, executor: Executor
) -> Events:
    """Predict the test images, clean, write and measure them, and write the report; of a shard only the first."""
    folder, pairs, was_trained_on = request.folder, report.test, False
    if request.config.data.test.use_val_as_test:
        split = make_split(plan, report.train, report.val)
        pairs, was_trained_on = tuple(source.cropped for source in split.validation), split.shares_images
        yield from check_validation(request.config, pairs)
        yield Said(f"no test images: what is measured is the validation ({plural(len(pairs), 'image')}), which chose the network")
        yield from () if request.config.train.enable else warn_of_other_split(report, trained)
    elif not request.config.train.enable:  # else the check has compared pixels
        yield from warn_of_known_images(pairs, plan)
    if plan.config.test.engine == "fastest" and device.type == "cpu":
        yield from _quantize(request, plan, report, trained)
    job = yield from _prepare_prediction(request, plan, pairs, trained, device)
    plan = job.plan
    index, count = request.config.system.cluster.own_shard
    if count > 1:
        note_shard(job)
        yield from predict_shard(job, index, count)
        return
    job = yield from adopt_shards(job)
    if job.plan is not plan:
        plan = job.plan
        write_plan(folder, plan)
    if not isinstance(executor, SerialExecutor):
        checkpoint = _checkpoint_of(request.config, folder).resolve()
        setup = WorkerSetup(plan, checkpoint, job.digest, job.folders, request.config.system.device, str(Path.cwd()))
        job = replace(job, elsewhere=elsewhere(executor, setup))
    records = yield from predict_alone(predict_images(job), folder)
    yield FileWritten(labels_folder(folder, records), "label images")
    yield from warn_of_others(folder, records)
    yield from warn_of_object_size(records, pairs, plan, folder)
    if not (request.config.train.enable and request.config.data.test.use_val_as_test):  # else they have been named
        yield from warn_of_clipped_images(records)
    yield from warn_of_few_annotated(records, dict(zip(job.names, pairs, strict=True)), plan)
    measurement = measure(records, plan)
    yield from write_tables(folder, plan, measurement)
    yield Measured(measurement.summary)
    own = [path.resolve() for path in (folder.checkpoint_best, folder.checkpoint_last)]
    is_own = _checkpoint_of(request.config, folder).resolve() in own
    circumstances = Circumstances(str(device), is_own_network=is_own, was_trained_on=was_trained_on)
    yield from write_run_report(folder, plan, dict(zip(job.names, pairs, strict=True)), records, measurement, circumstances)


def _quantize(request: Request, plan: Plan, report: DatasetReport, trained: Checkpoint) -> Events:
    """Make the 8-bit model, unless that was done, if the training images are here: they calibrate it and decide on it."""
    train, val, checkpoint = report.train, report.val, _checkpoint_of(request.config, request.folder)
    known = known_int8_model(plan, trained, state=request.folder.state, checkpoint=checkpoint)
    if known is not None:
        yield Said(known.summary)
        return
    if not train:
        folders = plan.config.data.train
        if not folders.path or not folders.gt_path or not expand_home(folders.path).exists():
            return
        found = yield from check(only_training(plan.config), None)
        if found.problems:
            yield Warned("the training images cannot be used for an 8-bit model any more (crista check says why)")
            return
        train, val = found.train, found.val
    try:
        split, maps = make_split(plan, train, val), request.folder.prob_map
        samples = prepare_samples(plan, split, map_folder=maps, cache_bytes=cache_bytes())
        yield from make_int8_model(plan, trained, samples, state=request.folder.state, checkpoint=checkpoint)
    except CristaError as error:  # they may have changed since; the prediction needs none of them
        yield Warned(f"there is no 8-bit model, for the training images cannot be used for one any more: {error}")


def _prepare_prediction(
    request: Request, plan: Plan, pairs: Sequence[ImagePair], trained: Checkpoint, device: torch.device
) -> Generator[Event, None, PredictionJob]:
    """The engine, tiles that fit the images and the memory, and what is to be predicted."""
    folder = request.folder
    digest = weights_digest(trained.weights)
    names = output_names([pair.image.path for pair in pairs])
    named = dict(zip(names, pairs, strict=True))
    checkpoint = _checkpoint_of(request.config, folder)
    predictor = yield from choose_predictor(plan, trained, device, named, state=folder.state, checkpoint=checkpoint)
    images = {name: pair.image for name, pair in named.items()}
    plan = yield from tune(predictor, images, state=folder.state, digest=digest, device=device)
    yield FileWritten(write_plan(folder, plan), "plan")
    return PredictionJob(
        predictor=replace(predictor, plan=plan),
        pairs=pairs,
        folders=output_folders(folder),
        digest=digest,
        names=names,
        full_image=request.config.test.full_img or bool(request.config.test.stats.full_img),
    )


def output_folders(folder: RunFolder) -> OutputFolders:
    """Where predictions of a run go."""
    return OutputFolders(
        per_image=folder.per_image,
        per_image_binarized=folder.per_image_binarized,
        full_image=folder.full_image,
        full_image_binarized=folder.full_image_binarized,
        full_post_processing=folder.full_post_processing,
        as_3d_stack=folder.as_3d_stack,
        state=folder.state,
    )


def _show_samples(plan: Plan, samples: PreparedSamples, folder: RunFolder) -> Events:
    """Pictures of what the network is shown, before training begins."""
    augmentor = plan.config.augmentor
    if augmentor.enable and augmentor.aug_samples:
        written = list(
            write_augmented_samples(samples.train, folder.aug, count=augmentor.aug_num_samples, draw_grid=augmentor.draw_grid)
        )
        yield FileWritten(folder.aug, plural(len(written) // 4, "augmented sample"))
    if plan.config.data.train.probability_map or plan.sparse_labels:
        written = list(write_mark_images(samples.train, folder.aug, count=max(1, augmentor.aug_num_samples)))
        yield FileWritten(folder.aug, f"{len(written) // 2} patches and the pixels that they were drawn around")
    if plan.config.data.check_generators:
        written = list(write_checked_samples(samples.train, folder.gen_check, folder.gen_mask_check))
        yield FileWritten(folder.gen_check, f"{len(written) // 2} patches as the network gets them")


def _input_files(config: Config, folder: RunFolder, report: DatasetReport) -> list[Path]:
    """The files that a result comes from: images, their label images, and the network that was there before."""
    images = [image for pair in (*report.train, *report.val, *report.test) for image in (pair.image, pair.label)]
    files = [image.path for image in images if image is not None]
    if not config.train.enable:
        files.append(_checkpoint_of(config, folder))
    elif config.model.load_checkpoint and config.paths.checkpoint_file:
        files.append(_given_checkpoint(config, folder))
    return list(dict.fromkeys(files))


def _data_key(config: Config, folder: RunFolder, report: DatasetReport) -> str:
    """Identifies the training data, and the checkpoint that training starts from, unless that is the run's own."""
    files = training_files(report)
    if config.model.load_checkpoint and not _starts_from_itself(config, folder):
        files.append(_given_checkpoint(config, folder))
    return digest_files(files)


def _starts_from_itself(config: Config, folder: RunFolder) -> bool:
    """Whether a training starts from a file that it writes itself: what it holds then tells nothing of where it began."""
    own = (folder.checkpoint_best, folder.checkpoint_last)
    return _given_checkpoint(config, folder).resolve() in [path.resolve() for path in own]


def _checkpoint_of(config: Config, folder: RunFolder) -> Path:
    """The checkpoint that a run predicts with; a training that starts from another one leaves its own."""
    return folder.checkpoint_best if config.train.enable else _given_checkpoint(config, folder)


def _given_checkpoint(config: Config, folder: RunFolder) -> Path:
    """The checkpoint that the configuration names, or the one of this run that it asks for."""
    if config.paths.checkpoint_file:
        return expand_home(config.paths.checkpoint_file)
    last = config.model.load_checkpoint_epoch == "last_on_train"
    return folder.checkpoint_last if last else folder.checkpoint_best


def _starting_checkpoint(config: Config, folder: RunFolder) -> Checkpoint | None:
    """The checkpoint to predict with or to start from; None for a training from scratch."""
    if not config.train.enable:
        return load_network(_checkpoint_of(config, folder))
    if not config.model.load_checkpoint:
        return None
    path, previous = _given_checkpoint(config, folder), previous_of(folder.checkpoint_best)
    if previous.is_file() and _starts_from_itself(config, folder) and _is_gone(path, folder):
        path = previous
    if not path.is_file() and not config.paths.checkpoint_file:
        raise ConfigError(
            "in the configuration",
            [
                Problem(
                    "MODEL.LOAD_CHECKPOINT",
                    f"is True, but PATHS.CHECKPOINT_FILE is empty and this run has no checkpoint ({path})",
                    "set PATHS.CHECKPOINT_FILE, or MODEL.LOAD_CHECKPOINT: False to train from scratch",
                )
            ],
        )
    return load_network(path)


def _is_gone(path: Path, folder: RunFolder) -> bool:
    """Whether a training that started from its own network at `path`, and put it aside, was ended in its first epoch.

    By a kill there is no network then; by Ctrl-C there is that of a part of the epoch, which nothing goes on from.
    """
    if not path.is_file():
        return True
    if folder.checkpoint_last.is_file():
        return False
    left = load_checkpoint(path)
    return left.epoch == 1 and not left.finished and left.plan.config.model.load_checkpoint


def _require_network_of_shard(config: Config, folder: RunFolder) -> None:
    """Shards run beside each other: each would train the same network, into the same files."""
    _, count = config.system.cluster.own_shard
    if count == 1 or not config.train.enable:
        return
    if not folder.checkpoint_last.is_file() or not load_checkpoint(folder.checkpoint_last).finished:
        what = "is a part of the prediction, and this job has no network yet that is trained to its end"
        step = "run `crista train` first, with the same configuration and name; then start the shards"
        raise ConfigError("with the shard", [Problem("SYSTEM.CLUSTER.SHARD", what, step)])
