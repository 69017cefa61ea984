"""Names of the results tree, and files that are complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from crista.config.root import Paths, ResultFolders
from crista.errors import ConfigError
from crista.images.atomic import aside, atomic_write
from crista.plan.events import Said
from crista.results.log import record_log
from crista.results.run_folder import RunFolder, output_names


def test_tree_is_the_documented_one() -> None:
    folder = RunFolder(Path("out"), "mito", 3)
    tree = {
        "config_file": "config_files/mito_3.yaml",
        "checkpoint_best": "checkpoints/mito_3-checkpoint-best.pth",
        "checkpoint_last": "checkpoints/mito_3-checkpoint-last.pth",
        "prob_map": "prob_map",
        "runs_summary": "results/runs_summary.csv",
        "aug": "results/mito_3/aug",
        "charts": "results/mito_3/charts",
        "model_plot": "results/mito_3/charts/model_plot_mito_3.png",
        "overlays": "results/mito_3/charts/overlays",
        "gen_check": "results/mito_3/gen_check",
        "gen_mask_check": "results/mito_3/gen_mask_check",
        "per_image": "results/mito_3/per_image",
        "per_image_binarized": "results/mito_3/per_image_binarized",
        "full_image": "results/mito_3/full_image",
        "full_image_binarized": "results/mito_3/full_image_binarized",
        "full_post_processing": "results/mito_3/full_post_processing",
        "as_3d_stack": "results/mito_3/as_3d_stack",
        "tensorboard": "results/mito_3/tensorboard",
        "train_log": "results/mito_3/train_logs/mito_3.csv",
        "test_results_metrics": "results/mito_3/test_results_metrics.csv",
        "confusion": "results/mito_3/test_results_confusion.csv",
        "plan_json": "results/mito_3/plan.json",
        "provenance_json": "results/mito_3/provenance.json",
        "log_txt": "results/mito_3/log.txt",
        "report_html": "results/mito_3/report.html",
        "state": "results/mito_3/.state",
    }
    assert folder.job == "mito_3"
    assert {name: getattr(folder, name) for name in tree} == {name: Path("out/mito") / path for name, path in tree.items()}


def test_folders_of_the_configuration_are_used() -> None:
    paths = Paths(charts="figures", prob_map_dir="/elsewhere/maps", result_dir=ResultFolders(per_image="probabilities"))
    folder = RunFolder(Path("out"), "a", 1, paths)
    assert folder.charts == Path("out/a/results/a_1/figures")
    assert folder.per_image == Path("out/a/results/a_1/probabilities")
    assert folder.prob_map == Path("/elsewhere/maps")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a/b", "holds /"),
        ("a:b*", "holds * :"),
        ("a\nb", r"holds '\n'"),
        ("", "is no name of a folder"),
        ("..", "is no name of a folder"),
        ("a.", "is no name of a folder"),
        (" a", "is no name of a folder"),
        ("x" * 200, "200 bytes are too long"),
    ],
)
def test_names_that_no_folder_can_have(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        RunFolder(Path("out"), name)
    assert text in str(error.value)
    assert "--name" in str(error.value)


def test_all_problems_of_names_at_once() -> None:
    paths = Paths(charts="../charts", result_dir=ResultFolders(per_image="Same", per_image_bin="same", full_image="tensorboard"))
    with pytest.raises(ConfigError) as error:
        RunFolder(Path("out"), "a/b", -1, paths)
    text = str(error.value)
    assert "5 problems" in text
    assert "'a_b'; --result_dir takes the folder" in text
    assert "-1 is negative" in text
    assert "PATHS.CHARTS: '../charts' is not a folder inside the run" in text
    assert "PATHS.RESULT_DIR.PER_IMAGE_BIN: 'same' is also PATHS.RESULT_DIR.PER_IMAGE" in text
    assert "PATHS.RESULT_DIR.FULL_IMAGE: 'tensorboard' is also crista's own tensorboard" in text


def test_output_names_are_never_shared() -> None:
    paths = [Path(p) for p in ("x/a.tif", "x/b.png", "x/B.jpg", "x/c.ome.tif", "y/a.tif", "z/d.tif")]
    assert output_names(paths) == ["a.tif", "b.png", "B.jpg", "c", "a.tif_2", "d"]


def test_output_names_leave_room_for_what_is_made_of_them(tmp_path: Path) -> None:
    """A file system allows 255 bytes; hidden names, other extensions and numbers need some of them."""
    long, other = "a" * 250, "a" * 249 + "b"
    names = output_names([Path(f"{long}.tif"), Path(f"{other}.tif"), Path("細" * 80 + ".tif"), Path("b" * 230 + ".tif")])
    assert len(set(names)) == 4
    assert all(len(name.encode()) <= 230 for name in names)
    assert [name[:200] for name in names[:2]] == ["a" * 200] * 2
    assert names[2].startswith("細" * 70)
    assert names[3] == "b" * 230
    assert names == output_names([Path(f"{long}.tif"), Path(f"{other}.tif"), Path("細" * 80 + ".tif"), Path("b" * 230 + ".tif")])


def test_the_hidden_name_of_a_long_one_is_short_enough(tmp_path: Path) -> None:
    target = tmp_path / ("細" * 83 + ".json")
    atomic_write(target, "{}")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_names_that_are_no_text_do_not_end_a_run(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.csv", "10\udcb5m,0.5\n")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "10\\udcb5m,0.5\n"
    list(record_log([Said("10\udcb5m.tif")], tmp_path / "log.txt"))
    assert "10\\udcb5m.tif" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_atomic_write_makes_folders_and_leaves_nothing_aside(tmp_path: Path) -> None:
    target = tmp_path / "new" / "text.txt"
    atomic_write(target, "µm\n")
    atomic_write(target, b"two")
    assert target.read_bytes() == b"two"
    assert [path.name for path in target.parent.iterdir()] == ["text.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    atomic_write(target, "old")

    def fail() -> None:
        with aside(target) as part:
            part.write_text("half")
            raise RuntimeError("disk gone")

    with pytest.raises(RuntimeError, match="disk gone"):
        fail()
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_aside_keeps_the_extension(tmp_path: Path) -> None:
    with aside(tmp_path / "a.png") as part:
        assert part.suffix == ".png"
        assert part.name.startswith(".a.")
        part.write_bytes(b"")
