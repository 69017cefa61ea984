"""Every case of the corner-case corpus through the check of a data set: read, warned of, or refused rightly.

The corpus (``$CRISTA_DATA/corner_cases``) is described by its own manifest. All cases run in one process with
2 GB of address space, so that no reader can allocate what a header claims; a traceback in any of them fails
its test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from crista.config import Config
from crista.images.check import DatasetReport, check_dataset

ADDRESS_SPACE = 2 * 2**30
NUM_CASES = 113
SOUND = "tif_lzw"
"""A sound 2D pair that stands beside files that are made by the test."""
WITHOUT_FOREGROUND = {
    "mask_all_background",
    "constant_image",
    "size_1x1",
    "size_1xN",
    "size_7x200",
    "size_31x45",
}
"""Cases whose only label image is all background: they are read, checked and told; a training on them is refused."""
CLASSES = {"mask_nonconsecutive": 3, "mask_onehot_channels": 5}
"""DATA.N_CLASSES where it is not 2."""

ERROR_WORDS: dict[str, tuple[str, ...]] = {
    "npy_pickled_object": ("a.npy", "object"),
    "mask_float_fractional": ("a.tif", "non-integer", "e.g. 0."),
    "mask_instance_ids": ("a.tif", "instance ids", "binarise"),
    "mask_jpeg_artefacts": ("a.jpg", "60 distinct values", "lossy", "threshold"),
    "mask_antialiased_real": ("00.png", "30 distinct values", "01.png holds 2", "threshold"),
    "zarr_no_metadata": ("a.zarr", "not a zarr"),
    "zarr_corrupt_chunk": ("a.zarr", "chunk"),
    "hdf5_truncated": ("a.h5", "truncated"),
    "nifti_gz_corrupt": ("a.nii.gz", "truncated"),
    "tif_truncated": ("a.tif", "truncated"),
    "tif_zero_bytes": ("a.tif", "empty"),
    "tif_is_html": ("a.tif", "html"),
    "png_truncated": ("a.png", "truncated"),
    "czi_unsupported": ("a.czi", "unsupported format", "tiff", "png", "hdf5"),
    "tif_size_lie": ("a.tif", "size", "file"),
    "png_bomb": ("a.png", "20000"),
    "tif_is_directory": ("a.tif", "folder"),
    "broken_symlink": ("a.tif", "link"),
    "count_mismatch": ("3 images", "2 labels", "c.tif"),
    "name_mismatch_same_count": ("b.tif", "d.tif"),
    "natural_sort_trap": (),
    "same_stem_two_extensions": ('two images with the stem "a"', "a.tif", "a.png"),
    "shape_mismatch": ("96 × 128", "96 × 127", "a.tif"),
    "shape_transposed": ("96 × 128", "128 × 96", "a.tif", "looks transposed"),
    "mixed_2d_3d": ("different dimensions", "a.tif 2d", "b.tif 3d"),
    "mixed_channels": ("a.tif has 1 channel", "b.tif has 3"),
    "empty_folders": ("no images found in", "empty_folders/x"),
    "only_hidden_files": ("no images found in", "only_hidden_files/x"),
    "size_zero_axis": ("a.npy", "empty"),
    "nan_all": ("a.tif", "no finite value"),
    "nan_in_mask": ("a.tif", "nan"),
}
WARNING_WORDS: dict[str, tuple[str, ...]] = {
    "tif_multi_series": ("series", "first"),
    "mask_png_0_255": ("{0, 255}", "mapped to {0, 1}"),
    "mask_nonconsecutive": ("{0, 5, 200}", "mapped to {0, 1, 2}"),
    "mask_all_background": ("a.tif", "no foreground"),
    "mask_rgb_equal_channels": ("3 equal channels reduced to one",),
    "zarr_missing_chunk": ("chunk",),
    "mixed_dtypes": ("uint8", "uint16", "float32", "normalised by itself"),
    "size_1x1": ("smaller than", "padded by reflection"),
    "size_1xN": ("smaller than", "padded by reflection"),
    "nan_some": ("a.tif", "nan", "40 pixels", "replaced"),
    "constant_image": ("constant",),
    "all_zero_image": ("constant", "0"),
    "identical_train_images": ("identical", "0.tif", "3.tif"),
}
CHOICE_WORDS: dict[str, tuple[str, ...]] = {
    "tif_min_is_white": ("a.tif", "white"),
    "tif_ambiguous_3yx": ("a.tif", "axes", "guess"),
    "imagej_hyperstack_tzcyx": ("a.tif", "T"),
    "tif_slices_as_files": (),
    "png_rgba": ("alpha", "dropped"),
    "png_grey_alpha": ("alpha", "dropped"),
    "npy": (),
    "mask_255_ignore": ("255", "loss.ignore_index: 255"),
    "mask_onehot_channels": ("one-hot", "5 channels"),
    "ome_zarr_v04_labels_inside": ("a.ome.zarr", "labels/mito"),
    "hdf5_raw_and_label": ("a.h5", "raw (20, 48, 64)", "label (20, 48, 64)"),
    "tif_corrupt_lzw": (),
    "tif_is_png": ("a.tif", "png"),
    "name_suffix_masks": ("image_001.tif with mask_001.tif",),
    "case_only_difference": ("A.tif with a.tif",),
    "unicode_nfc_nfd": ("unicode",),
    "nested_subfolders": ("no images found in", "subfolders", "patient 1"),
    "single_pair": ("one training image",),
}


# --- what runs in the process of its own ----------------------------------------------------------


def run_all(corpus: Path, scratch: Path) -> dict[str, Any]:
    """Check every case of the manifest; one entry per case and way of asking."""
    cases = json.loads((corpus / "manifest.json").read_text())["cases"]
    with tarfile.open(corpus / "awkward_names.tar.gz") as archive:
        archive.extractall(scratch, filter="data")
    results: dict[str, Any] = {}
    for case in cases:
        folder = _folder_of(case, corpus, scratch)
        given = _ndim_of(case)
        results[case["id"]] = {
            "given": _check(_config(folder / "x", folder / "y", case["id"], given)),
            "inferred": _check(_config(folder / "x", folder / "y", case["id"], None)),
        }
    results |= _run_extras(corpus, scratch)
    return results


def _folder_of(case: dict[str, Any], corpus: Path, scratch: Path) -> Path:
    """The case, unpacked or made where that is needed."""
    name = case["id"]
    if "packed_in" in case:
        return scratch / name
    if "make" in case:
        return _make(name, corpus, scratch)
    if not (corpus / name / "x").exists():
        return _copy_to_both_sides(case, corpus, scratch)
    return corpus / name


def _copy_to_both_sides(case: dict[str, Any], corpus: Path, scratch: Path) -> Path:
    """The one file of the case in x and in y, as people do who do not know about inner paths."""
    (name,) = {item["path"].split("/")[1] for item in [*case["x"], *case["y"]]}
    made = scratch / case["id"]
    for side in ("x", "y"):
        (made / side).mkdir(parents=True)
        (made / side / name).symlink_to(corpus / case["id"] / name)
    return made


def _make(name: str, corpus: Path, scratch: Path) -> Path:
    made = scratch / name
    for side in ("x", "y"):
        (made / side).mkdir(parents=True)
    if name == "empty_folders":
        return made
    if name != "broken_symlink":
        raise ValueError(f"nothing is known about making {name}")
    (made / "x" / "a.tif").symlink_to(made / "missing.tif")
    (made / "x" / "good1.tif").symlink_to(corpus / SOUND / "x" / "a.tif")
    for label in ("a.tif", "good1.tif"):
        (made / "y" / label).symlink_to(corpus / SOUND / "y" / "a.tif")
    return made


def _ndim_of(case: dict[str, Any]) -> str | None:
    """2D or 3D as the label images say (channels removed); None where nothing can be decoded."""
    kinds = {
        "3D" if "Z" in item["decoded"]["axes"] else "2D" for item in case["y"] if isinstance(item, dict) and "decoded" in item
    }
    return kinds.pop() if len(kinds) == 1 else None


def _config(images: Path, labels: Path, name: str, ndim: str | None, **train: Any) -> Config:
    return Config.model_validate(
        {
            "PROBLEM": {"NDIM": ndim},
            "DATA": {
                "N_CLASSES": CLASSES.get(name, 2),
                "TRAIN": {"PATH": str(images), "GT_PATH": str(labels), **train},
            },
        }
    )


def _check(config: Config, *, need_train: bool = True, need_test: bool = False) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        report = check_dataset(config, need_train=need_train, need_test=need_test)
    except Exception:  # noqa: BLE001 - the traceback is the finding, and the parent process fails the test
        return {"traceback": traceback.format_exc()}
    return _to_json(report) | {"seconds": time.perf_counter() - started}


def _to_json(report: DatasetReport) -> dict[str, Any]:
    return {
        "ndim": report.ndim,
        "pairs": [[pair.image.path.name, pair.label.path.name if pair.label else None] for pair in report.train],
        "shapes": [list(pair.image.spatial_shape) for pair in report.train],
        "num_test": len(report.test),
        "problems": [str(problem) for problem in report.problems],
        "warnings": [str(problem) for problem in report.warnings],
        "notices": list(report.notices),
        "fingerprint": report.fingerprint.to_json() if report.fingerprint else None,
    }


def _run_extras(corpus: Path, scratch: Path) -> dict[str, Any]:
    """The cases whose layout is their own, asked in the way that their messages teach."""
    inner = {"INPUT_ZARR_MULTIPLE_DATA": True}
    hdf5, zarr = corpus / "hdf5_raw_and_label" / "a.h5", corpus / "ome_zarr_v04_labels_inside" / "a.ome.zarr"
    raw, label = "INPUT_ZARR_MULTIPLE_DATA_RAW_PATH", "INPUT_ZARR_MULTIPLE_DATA_GT_PATH"
    results = {
        "hdf5 one file twice": _check(_config(hdf5, hdf5, "", "3D")),
        "hdf5 inner paths": _check(_config(hdf5, hdf5, "", None, **inner, **{raw: "raw", label: "label"})),
        "hdf5 without inner paths": _check(_config(hdf5, hdf5, "", None, **inner)),
        "zarr inner paths": _check(_config(zarr, zarr, "", None, **inner, **{raw: "0", label: "labels/mito/0"})),
        "slices in 3D": _check(_config(corpus / "tif_slices_as_files/x", corpus / "tif_slices_as_files/y", "", "3D")),
    }
    for name in sorted(WITHOUT_FOREGROUND):
        folder = {"PATH": str(corpus / name / "x"), "GT_PATH": str(corpus / name / "y"), "LOAD_GT": True}
        config = Config.model_validate({"DATA": {"N_CLASSES": 2, "TEST": folder}})
        results[f"{name} to predict"] = _check(config, need_train=False, need_test=True)
        results[f"{name} alone"] = _check(_config(corpus / name / "x", corpus / name / "y", name, None))
    return results


# --- the tests ------------------------------------------------------------------------------------

_ROOT = os.environ.get("CRISTA_DATA")
_CORPUS = Path(_ROOT) / "corner_cases" if _ROOT else None
CASES = json.loads((_CORPUS / "manifest.json").read_text())["cases"] if _CORPUS and _CORPUS.is_dir() else []
BY_ID = {case["id"]: case for case in CASES}

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not CASES, reason="CRISTA_DATA does not name a folder with corner_cases"),
]


def of_kind(*kinds: str) -> list[str]:
    return [name for name, case in BY_ID.items() if case["expect"] in kinds]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    scratch = tmp_path_factory.mktemp("corner_cases")
    answer = scratch / "results.json"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(_CORPUS), str(scratch), str(answer)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    loaded: dict[str, Any] = json.loads(answer.read_text())
    return loaded


def check_words(text: str, words: tuple[str, ...]) -> None:
    missing = [word for word in words if word.lower() not in text.lower()]
    assert not missing, f"{missing} not in:\n{text}"


def said(result: dict[str, Any]) -> str:
    return "\n".join([*result["problems"], *result["warnings"], *result["notices"]])


def test_every_case_was_run(results: dict[str, Any]) -> None:
    assert len(CASES) == NUM_CASES
    assert set(BY_ID) <= set(results)
    assert set(ERROR_WORDS) == set(of_kind("error"))
    assert set(WARNING_WORDS) == set(of_kind("load_warn"))
    assert set(CHOICE_WORDS) == set(of_kind("choice"))


@pytest.mark.parametrize("way", ["given", "inferred"])
@pytest.mark.parametrize("name", of_kind("load", "load_warn", "error", "choice"))
def test_no_case_ends_in_a_traceback(results: dict[str, Any], name: str, way: str) -> None:
    assert "traceback" not in results[name][way], results[name][way].get("traceback")


@pytest.mark.parametrize("way", ["given", "inferred"])
@pytest.mark.parametrize("name", of_kind("load", "load_warn"))
def test_usable_data_have_no_problem(results: dict[str, Any], name: str, way: str) -> None:
    result = results[name][way]
    assert result["problems"] == []
    assert result["fingerprint"] is not None
    assert len(result["pairs"]) == len(BY_ID[name]["x"])


@pytest.mark.parametrize("way", ["given", "inferred"])
@pytest.mark.parametrize("name", sorted(WARNING_WORDS) if CASES else [])
def test_oddities_are_told(results: dict[str, Any], name: str, way: str) -> None:
    result = results[name][way]
    check_words("\n".join([*result["warnings"], *result["notices"]]), WARNING_WORDS[name])


@pytest.mark.parametrize("way", ["given", "inferred"])
@pytest.mark.parametrize("name", sorted(ERROR_WORDS) if CASES else [])
def test_unusable_data_are_refused(results: dict[str, Any], name: str, way: str) -> None:
    if name == "natural_sort_trap":
        # The manifest allows a natural-order pairing that is listed, and that is what happens.
        result = results[name][way]
        assert result["pairs"] == [["1.tif", "01.tif"], ["2.tif", "02.tif"], ["10.tif", "10.tif"]]
        check_words(said(result), ("natural order", "1.tif with 01.tif"))
        return
    problems = "\n".join(results[name][way]["problems"])
    assert problems
    check_words(problems, ERROR_WORDS[name])


@pytest.mark.parametrize("way", ["given", "inferred"])
@pytest.mark.parametrize("name", sorted(CHOICE_WORDS) if CASES else [])
def test_choices_are_not_silent(results: dict[str, Any], name: str, way: str) -> None:
    check_words(said(results[name][way]), CHOICE_WORDS[name])


def test_broken_files_do_not_hide_the_sound_ones(results: dict[str, Any]) -> None:
    for name, case in BY_ID.items():
        if "bad_file" not in case or case["expect"] != "error":
            continue
        problems = "\n".join(results[name]["inferred"]["problems"])
        assert Path(case["bad_file"]).name in problems
        assert "good1" not in problems


def test_slices_of_a_volume_are_2d_images_and_no_volumes(results: dict[str, Any]) -> None:
    result = results["tif_slices_as_files"]["inferred"]
    assert [image for image, _ in result["pairs"]] == [f"s{i}.tif" for i in range(12)]
    assert all(image == label for image, label in result["pairs"])
    check_words("\n".join(results["slices in 3D"]["problems"]), ("12 files", "s0.tif", "s9.tif", "volume"))
    assert len(results["slices in 3D"]["problems"]) == 2  # one for the images, one for the labels


def test_one_hdf5_file_for_image_and_label(results: dict[str, Any]) -> None:
    problems = "\n".join(results["hdf5 one file twice"]["problems"])
    check_words(problems, ("DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA",))
    missing = "\n".join(results["hdf5 without inner paths"]["problems"])
    check_words(
        missing,
        ("DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA_RAW_PATH", "DATA.TRAIN.INPUT_ZARR_MULTIPLE_DATA_GT_PATH"),
    )
    result = results["hdf5 inner paths"]
    assert result["problems"] == []
    assert result["shapes"] == [[20, 48, 64]]


def test_labels_inside_an_ome_zarr(results: dict[str, Any]) -> None:
    result = results["zarr inner paths"]
    assert result["problems"] == []
    assert result["shapes"] == [[20, 48, 64]]
    assert result["fingerprint"]["class_counts"][1] > 0


@pytest.mark.parametrize("name", sorted(WITHOUT_FOREGROUND))
def test_empty_labels_are_told_and_can_be_predicted(results: dict[str, Any], name: str) -> None:
    """That no training starts on them is for the plan to say: tests/unit/test_plan.py."""
    check_words("\n".join(results[f"{name} alone"]["warnings"]), ("no label image holds foreground",))
    assert results[f"{name} to predict"]["problems"] == []
    assert results[f"{name} to predict"]["num_test"] == 1


def test_no_case_takes_long(results: dict[str, Any]) -> None:
    slow = {name: results[name]["inferred"]["seconds"] for name in BY_ID if results[name]["inferred"]["seconds"] > 10}
    assert not slow


if __name__ == "__main__":
    import resource  # POSIX only

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    Path(sys.argv[3]).write_text(json.dumps(run_all(Path(sys.argv[1]), Path(sys.argv[2]))))
