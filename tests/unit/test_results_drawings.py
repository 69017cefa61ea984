"""Charts, the drawing of the network, and overlays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crista.models.summary import LayerSummary, Side
from crista.results.charts import draw_charts
from crista.results.model_plot import draw_model, shorten
from crista.results.overlays import (
    ERRORS,
    OverlayText,
    _add_legend,
    class_colour,
    colour_classes,
    colour_errors,
    draw_overlay,
    to_picture,
)
from crista.results.style import new_figure


def rows(num_epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": e, "loss": 1 / e, "val_loss": 1.1 / e, "val_iou": 1 - 1 / e, "lr": 1e-3 / e} for e in range(1, num_epochs + 1)
    ]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_one_chart_per_metric(tmp_path: Path) -> None:
    written = draw_charts(rows(30), tmp_path, "job_1")
    assert [path.name for path in written] == ["job_1_loss.png", "job_1_IoU.png", "job_1_lr.png"]
    for path in written:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)


@pytest.mark.parametrize(
    "values",
    [
        [{"epoch": 1, "loss": 0.5}],
        [{"epoch": 1, "loss": float("nan"), "val_loss": float("inf")}],
        [{"epoch": 1, "loss": 0.5, "val_loss": 0.5}, {"epoch": 2, "loss": 0.5, "val_loss": 0.5}],
        [{"epoch": 1, "loss": 100.0, "seconds": 0.0}, {"epoch": 2, "loss": 0.001, "seconds": 0.0}],
    ],
    ids=["one epoch", "not finite", "constant", "decades"],
)
def test_charts_of_unusual_runs(tmp_path: Path, values: list[dict[str, float]]) -> None:
    assert all(path.stat().st_size > 1000 for path in draw_charts(values, tmp_path, "j"))


def test_no_rows_no_charts(tmp_path: Path) -> None:
    assert draw_charts([], tmp_path, "j") == []


def test_charts_are_reproducible_and_mark_the_best_epoch(tmp_path: Path) -> None:
    first, again = draw_charts(rows(9), tmp_path / "a", "j"), draw_charts(rows(9), tmp_path / "b", "j")
    other = draw_charts(rows(9), tmp_path / "c", "j", best_epoch=2)
    assert first[0].read_bytes() == again[0].read_bytes()
    assert first[0].read_bytes() != other[0].read_bytes()


DRAW_ALONE = """
import sys
from pathlib import Path
from crista.results.charts import draw_charts
draw_charts([{"epoch": 1, "loss": 1.0}], Path(sys.argv[1]), "j")
assert "matplotlib.pyplot" not in sys.modules
assert "torch" not in sys.modules
"""


def test_drawing_needs_no_display_and_no_global_state(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRAW_ALONE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "j_loss.png").exists()


def block(name: str, side: Side, level: int) -> LayerSummary:
    kind = "upsampling 2×2×2, attention, residual, 2 convolutions 3×3×3"
    return LayerSummary(name, kind, (16, 32, 256, 256), 1234567, level, side)


def u_net(num_levels: int) -> list[LayerSummary]:
    down = [block(f"encoder {i + 1}", "encoder", i) for i in range(num_levels - 1)]
    up = [block(layer.name.replace("en", "de", 1), "decoder", layer.level) for layer in reversed(down)]
    return [*down, block("bottleneck", "bottleneck", num_levels - 1), *up, block("head", "head", 0)]


@pytest.mark.parametrize("num_levels", [1, 3, 6])
def test_network_is_drawn(tmp_path: Path, num_levels: int) -> None:
    draw_model(u_net(num_levels), tmp_path / "m.png", "U-Net")
    size = size_of(tmp_path / "m.png")
    assert size[0] > 600
    assert size[1] > 100 * num_levels


def test_boxes_do_not_overlap() -> None:
    from crista.results.model_plot import HEIGHT, WIDTH, _arrange

    layers = [block("input", "encoder", 0), *u_net(5)[:-1], block("output", "decoder", 0), block("head", "head", 0)]
    spots, size = _arrange(layers)
    for i, (x, y) in enumerate(spots):
        assert WIDTH / 2 <= x <= size[0] - WIDTH / 2
        assert HEIGHT / 2 <= y <= size[1] - HEIGHT / 2 - 0.9
        assert all(abs(x - u) >= WIDTH or abs(y - v) >= HEIGHT for u, v in spots[i + 1 :])


def test_long_text_is_cut() -> None:
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def test_errors_have_their_colours() -> None:
    truth = np.array([[1, 1, 0, 2, 0, 255]])
    prediction = np.array([[1, 0, 1, 1, 0, 1]])
    shown = colour_errors(np.zeros((1, 6, 3)), prediction, truth, 255)
    colours = dict(ERRORS)
    right, missed, extra, wrong = (rgb(colours[name]) for name, _ in ERRORS)
    np.testing.assert_allclose(shown[0, 0], 0.55 * 0.2 + 0.45 * right, atol=1e-9)
    for pixel, colour in ((1, missed), (2, extra), (3, wrong)):
        np.testing.assert_allclose(shown[0, pixel], 0.1 * 0.2 + 0.9 * colour, atol=1e-9)
    np.testing.assert_allclose(shown[0, 4], 0.2)
    assert np.ptp(shown[0, 5]) < 0.1  # not measured: grey


def test_every_class_has_its_colour() -> None:
    """Also where a label image numbers thousands of objects."""
    classes = np.arange(60_000, dtype=np.uint16).reshape(200, 300)
    shown = colour_classes(np.full((200, 300, 3), 0.5), classes, 7)
    for value in (1, 2, 9, 10, 59_999):
        np.testing.assert_allclose(shown[value // 300, value % 300], 0.4 * 0.45 + 0.6 * rgb(class_colour(value)), atol=1e-9)
    np.testing.assert_allclose(shown[0, 0], 0.45)
    assert np.ptp(shown[0, 7]) < 0.1  # not measured: grey
    assert colour_classes(np.zeros((1, 1, 3)), np.array([[-1]]), -1)[0, 0].min() > 0


def test_error_colours_are_not_class_colours() -> None:
    assert not {colour for _, colour in ERRORS} & {class_colour(value) for value in range(1, 20)}


def test_picture_of_one_two_and_more_channels() -> None:
    ramp = np.linspace(0, 1000, 101).reshape(1, 1, 101)
    grey = to_picture(ramp)
    assert grey.shape == (1, 101, 3)
    assert grey.min() == 0
    assert grey.max() == 1
    assert (grey[..., 0] == grey[..., 2]).all()
    two = to_picture(np.concatenate([ramp, 0 * ramp]))
    assert two[0, -1].tolist() == [0, 1, 0]
    assert to_picture(np.zeros((5, 4, 4), np.uint8)).tolist() == np.zeros((4, 4, 3)).tolist()
    spot = np.zeros((1, 100, 100), np.uint8)
    spot[0, 5, 7] = 3
    assert np.argwhere(to_picture(spot)[..., 0] == 1).tolist() == [[5, 7]]  # too few pixels for a percentile
    holes = to_picture(np.where(ramp > 500, np.nan, ramp))
    assert np.isfinite(holes).all()
    assert not to_picture(np.full((1, 2, 2), np.nan)).any()


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("shape", [(40, 60), (5, 40, 30), (1, 2000)])
def test_overlay_is_written(tmp_path: Path, shape: tuple[int, ...], labelled: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (1, *shape)).astype(np.uint16)
    label = rng.integers(0, 3, shape).astype(np.uint8) if labelled else None
    text = OverlayText("a.tif", ("background", "cell"), ignore_index=2)
    draw_overlay(image, rng.integers(0, 3, shape).astype(np.uint8), label, tmp_path / "o.png", text=text)
    assert min(size_of(tmp_path / "o.png")) > 100


@pytest.mark.parametrize("name", ["well_$1_$2", r"$\frac$", "old\udcb5m", "$5"])
def test_names_of_any_kind_are_drawn(tmp_path: Path, name: str) -> None:
    """Two dollar signs are no formula, and the bytes of an old file name need not be text."""
    label = np.eye(30, dtype=np.uint8)
    text = OverlayText(name, ("background", name))
    draw_overlay(label[np.newaxis], label, label, tmp_path / "o.png", text=text)
    draw_model(u_net(2), tmp_path / "m.png", name)
    assert len(draw_charts(rows(3), tmp_path / "charts", "j$a_$b_1")) == 3


def test_drawings_are_the_same_whatever_a_notebook_has_set(tmp_path: Path) -> None:
    """LaTeX, for the figures of a paper, would fail on the names of jobs and images; a dark style would leave dark letters."""
    import matplotlib

    label = np.eye(30, dtype=np.uint8)

    def draw(folder: Path) -> list[bytes]:
        folder.mkdir()
        draw_overlay(label[np.newaxis], label, label, folder / "o.png", text=OverlayText("image_1", ("a", "b_c")))
        draw_model(u_net(2), folder / "m.png", "job_1")
        draw_charts(rows(3), folder, "job_1")
        return [path.read_bytes() for path in sorted(folder.iterdir())]

    usual = draw(tmp_path / "usual")
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black", "font.size": 20}):
        assert draw(tmp_path / "own") == usual
        assert matplotlib.rcParams["text.usetex"]


def test_dollar_signs_are_shown_as_they_are(tmp_path: Path) -> None:
    from crista.results.style import new_figure, plain

    figure = new_figure(2, 1)
    found = [figure.text(0, 0, plain("a$b$c")).get_window_extent().width, figure.text(0, 0, "a$bc").get_window_extent().width]
    assert found[0] > found[1] + 3  # both signs take their place


def test_the_panels_of_an_overlay_are_in_the_order_of_their_titles() -> None:
    from crista.results.overlays import _draw_row

    image = np.zeros((1, 3, 4, 4), np.uint8)
    label, prediction = np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)
    label[1, 0, 0], prediction[1, 0, 1], label[0], label[1, 3] = 1, 1, 1, 255  # of slice 1 only
    panels = _draw_row(image, prediction, label, 1, 255)
    coloured = [np.argwhere(np.ptp(panel, axis=-1) > 0.1).tolist() for panel in panels]
    assert coloured == [[], [[0, 0]], [[0, 1]], [[0, 0], [0, 1]]]
    grey = [bool(panel[3].min() > 0.4 and np.ptp(panel[3]) < 0.1) for panel in panels]
    assert grey == [False, True, False, True]
    bare = _draw_row(image, prediction, None, 1, 255)
    assert [np.argwhere(np.ptp(panel, axis=-1) > 0.1).tolist() for panel in bare] == [[], [[0, 1]]]


def test_volume_shows_the_middle_and_the_fullest_slice() -> None:
    from crista.results.overlays import _choose_slices

    label = np.zeros((7, 8, 8), np.uint8)
    label[5, 2:4] = 1
    assert _choose_slices(np.zeros_like(label), label, None) == [3, 5]
    assert _choose_slices(label, None, None) == [3, 5]
    assert _choose_slices(np.zeros_like(label[:1]), None, None) == [0]
    assert _choose_slices(label[0], None, None) == [None]
    label[1] = 255  # without annotation, so not foreground
    assert _choose_slices(np.zeros_like(label), label, 255) == [3, 5]


def test_summary_of_a_real_network_fits_the_drawing(tmp_path: Path) -> None:
    from crista.config.model import UNet
    from crista.models import build_model, describe_model

    levels = {"feature_maps": (4, 8), "z_down": (2,), "yx_down": (2,), "isotropy": (True, True), "dropout_values": (0.0, 0.0)}
    config = UNet(**levels, activation="elu", normalization="bn", conv_layers=(2, 2))
    layers = describe_model(build_model(config, num_channels=1, num_logits=1, ndim=2), config, input_shape=(1, 32, 32))
    draw_model(layers, tmp_path / "m.png", "U-Net")
    assert size_of(tmp_path / "m.png")[0] > 600


def test_names_in_any_script_are_drawn_without_a_word(tmp_path: Path) -> None:
    """The font has no signs for them: boxes are drawn, and no warning comes for each of them (here it would be an error)."""
    draw_charts(rows(3), tmp_path, "\u7d30\u80de_1")
    image, classes = np.zeros((1, 20, 24), np.uint8), np.eye(20, 24, dtype=np.uint8)
    text = OverlayText("\u7d30\u80de", ("background", "\u7d30\u80de"))
    draw_overlay(image, classes, classes, tmp_path / "a.png", text=text)
    assert size_of(tmp_path / "a.png")[0] > 100


def test_classes_that_the_legend_has_no_room_for_are_counted() -> None:
    figure = new_figure(8, 4)
    names = ["background", *(f"class {k}" for k in range(1, 10))]
    _add_legend(figure, OverlayText(class_names=names), classes=range(1, 10), errors=False)
    [legend] = figure.legends
    assert [entry.get_text() for entry in legend.get_texts()] == [*names[1:7], "and 3 more"]
