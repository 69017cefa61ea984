"""The report and the provenance."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from crista.metrics import DEFINITIONS, ImageCounts, estimate
from crista.plan.plan import Decision
from crista.results.examples import Example, Pixels, build_slices
from crista.results.provenance import build_provenance, describe_input, peak_memory, write_provenance
from crista.results.ranking import UncertainRegion
from crista.results.report import (
    MAX_CLASSES,
    MAX_ROWS,
    ClassResult,
    Column,
    Figure,
    ImageResult,
    ReportContent,
    Suggestion,
    format_bytes,
    format_duration,
    format_score,
    main_classes,
    render_report,
    write_report,
)
from crista.results.run_folder import RunFolder
from crista.results.run_pictures import PICTURE_BUDGET, middle_of, middle_of_region

NAN = float("nan")


class Balanced(HTMLParser):
    """Checks that every tag that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _attributes: object) -> None:
        assert tag in ("circle", "line", "polyline")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_html(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []


def example(name: str, shape: tuple[int, ...] = (20, 24)) -> Example:
    label = np.zeros(shape, np.uint8)
    label[..., 4:9] = 1
    cells = np.full([*shape[:-2], -(-shape[-2] // 4), -(-shape[-1] // 4)], 0.3, np.float32)
    slices, shown = build_slices(Pixels(np.ones((1, *shape), np.uint8), 1 - label, label, cells, first_slice=7), 10**6)
    return Example("worst", name, slices, "foreground IoU 0.1", shown)


@pytest.fixture
def content() -> ReportContent:
    names = ("background", "<mito>")
    matrix = np.array([[90, 10], [0, 20]])
    counts = [ImageCounts(matrix + np.eye(2, dtype=int) * i, np.array([[4, 2, 4, 2]] * 2)) for i in range(5)]
    return ReportContent(
        title="my_job_1",
        headline=[Figure("0.9100", "foreground IoU", "95 % [0.8800, 0.9300]", "iou")],
        config_text="DATA:\n  PATH: <here> & there\n",
        decisions=[Decision(key="TRAIN.BATCH_SIZE", value="8", reason="fits the memory")],
        notices=["a.tif has no voxel size"],
        rows=[{"epoch": e, "loss": 1 / e, "val_loss": 2 / e, "lr": 0.1} for e in range(1, 4)],
        best_epoch=3,
        examples=[example("first.tif"), example("volume.tif", (6, 20, 24))],
        images=[ImageResult(f"{i}.tif", {"iou": i / 10, "dice": NAN}) for i in range(5)],
        columns=[Column("IoU", "iou", "iou"), Column("Dice", "dice")],
        mean={"iou": 0.2},
        rank_by="iou",
        classes=[ClassResult(name, 0.9, NAN, 12345) for name in names],
        estimates=estimate(counts, names),
        confusion=np.array([[90, 10], [0, 0]]),
        rules=["A class that is absent is left out."],
        suggestions=[Suggestion(UncertainRegion("u.tif", (slice(0, 8), slice(4, 12)), False, 0.42), labelled="no")],
        timings={"train": 96.0},
        memory="1.4 GB",
        versions={"torch": "2.13"},
        facts={"finished": "2026-03-01T12:00:00+00:00"},
    )


def test_report_is_complete_and_self_contained(tmp_path: Path, content: ReportContent) -> None:
    path = write_report(RunFolder(tmp_path, "my_job", 1), content)
    page = path.read_text(encoding="utf-8")
    check_html(page)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "http" not in re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=]+", "", page)
    assert "url(" not in page
    assert page.count("data:image/png;base64,") == 5 + 6 * 5  # panels of an image, and of each slice
    for text in (
        "0.9100",
        "fits the memory",
        "a.tif has no voxel size",
        "12,345",
        "90.0%",
        "1 min 36 s",
        "1.4 GB",
        "y 0–7, x 4–11",
        "no label yet",
        "A class that is absent",
    ):
        assert text in page


def test_no_table_and_no_name_makes_the_page_wider_than_a_phone(content: ReportContent) -> None:
    """Each table scrolls by itself or stacks its cells, and names of classes break."""
    page = render_report(content)
    tables = re.findall(r"(<div class=.wide.>\s*)?<table( class=.stack.)?>", page)
    assert len(tables) == 6
    assert all(wide or stacked for wide, stacked in tables)
    assert ".legend li { overflow-wrap: anywhere; }" in page


def test_every_figure_has_its_definition_one_click_away(content: ReportContent) -> None:
    page = render_report(content)
    asked = set(re.findall(r'popovertarget="def-(\w+)"', page))
    defined = set(re.findall(r'popover id="def-(\w+)"', page))
    assert asked <= defined == set(DEFINITIONS)
    assert {"iou", "dice", "nsd", "precision", "recall", "images", "pixels", "interval", "foreground", "confusion"} <= asked
    assert {"uncertainty", "errors", "best_epoch", "memory", "label_next", "voxels"} <= asked


def test_intervals_are_those_of_the_estimates(content: ReportContent) -> None:
    page = render_report(content)
    shown = [e for e in content.estimates if (e.measure, e.over) != ("nsd", "pixels")]
    assert len(shown) == 15
    for figure in shown:
        assert f"<td>{figure.value:.4f}<small>[{figure.low:.4f}, {figure.high:.4f}]</small></td>" in page


def test_slices_have_a_slider_that_starts_at_the_fullest(content: ReportContent) -> None:
    page = render_report(content)
    assert page.count('type="range"') == 1
    assert 'max="5" value="0"' in page
    assert page.count('class="panels"') == 7
    assert page.count('data-title="slice 7">') == 1  # all others are hidden
    assert page.count("hidden>\n") == 5


def test_of_many_images_the_worst_are_listed() -> None:
    many = [ImageResult(f"i{n}", {"iou": n / 1000}) for n in range(MAX_ROWS + 50)][::-1]
    page = render_report(ReportContent("t", images=many, columns=[Column("IoU", "iou")], rank_by="iou"))
    assert f"the {MAX_ROWS} worst of {MAX_ROWS + 50}" in page
    assert "<td>i0</td>" in page
    assert f"<td>i{MAX_ROWS}</td>" not in page


def test_images_without_a_score_are_not_among_the_worst() -> None:
    """A value that is not a number would spoil the order of all others."""
    many = [ImageResult(f"i{n}", {"iou": NAN if n % 2 else n / 1000}) for n in range(2 * MAX_ROWS)][::-1]
    content = ReportContent("t", images=many, columns=[Column("IoU", "iou")], rank_by="iou", rank_word="least sure")
    page = render_report(content)
    assert f"the {MAX_ROWS} least sure of {2 * MAX_ROWS}" in page
    assert page.count("<td>–</td>") == 0
    assert f"<td>i{2 * MAX_ROWS - 2}</td>" in page


def many_classes(count: int) -> ReportContent:
    """A report of `count` classes and more images than are listed; the later a class, the more pixels it has."""
    names = tuple(f"class {k}" for k in range(count))
    matrix = np.full((count, count), 1000) + 10**9 * np.diag(np.arange(1, count + 1))
    edges = np.full((count, 4), 5)
    scores = {f"per_image_iou_{name}": 0.5 for name in names}
    shown = main_classes(matrix.sum(axis=1).tolist(), count)
    return ReportContent(
        "t",
        images=[ImageResult(f"image {n}.tif", {"iou": n / 1000, **scores}) for n in range(MAX_ROWS + 1)],
        columns=[Column("IoU", "iou", "iou"), *(Column(f"IoU {names[k]}", f"per_image_iou_{names[k]}") for k in shown if k)],
        rank_by="iou",
        classes=[ClassResult(name, 0.5, 0.5, int(matrix[k].sum())) for k, name in enumerate(names)],
        estimates=estimate([ImageCounts(matrix, edges)] * 3, names),
        confusion=matrix,
    )


def test_of_many_classes_the_matrix_and_the_columns_show_those_with_most_pixels() -> None:
    """255 of them would be five megabytes beside the pictures, and nobody's phone would show it. The table of classes has all."""
    page = render_report(many_classes(255))
    check_html(page)
    assert len(page) < 1.5e6
    assert PICTURE_BUDGET + 9 * 60_000 + len(page) < 15e6
    said = f"the {MAX_CLASSES} with the most labelled pixels"
    assert f"Of 255 classes {said}; the shares are of the whole rows. All: test_results_confusion.csv." in page
    assert f"IoU of single classes: of 255 {said}. All columns and images: test_results_metrics.csv" in page
    assert len(re.findall(r"%<small>[\d,]+</small>", page)) == MAX_CLASSES**2
    assert "<th>class 214</th>" not in page
    assert "<th>class 215</th>" in page
    assert all(f"<tr><td>class {k}</td>" in page for k in range(255))
    assert "IoU class 214<" not in page
    assert "<th>IoU class 254</th>" in page


def test_few_classes_are_all_there() -> None:
    page = render_report(many_classes(MAX_CLASSES))
    assert len(re.findall(r"%<small>[\d,]+</small>", page)) == MAX_CLASSES**2
    assert "labelled pixels" not in re.sub(r"(?s)<div popover.*", "", page).replace("labelled pixels</button>", "")


def test_without_labels_nothing_is_called_good_and_no_table_is_named_that_is_not_there() -> None:
    images = [ImageResult("a.tif", {"uncertainty": 0.1})]
    page = render_report(ReportContent("t", images=images, columns=[Column("uncertainty", "uncertainty")]))
    assert "How good it is" not in page
    assert "How sure the network is" in page
    assert "test_results" not in page


def test_report_escapes_what_users_write(content: ReportContent) -> None:
    page = render_report(content)
    assert "&lt;here&gt; &amp; there" in page
    assert "<mito>" not in page
    assert "&lt;mito&gt;" in page


def test_report_of_nothing_says_that_all_was_decided() -> None:
    page = render_report(ReportContent("empty"))
    check_html(page)
    assert "everything was decided from the data" in page
    assert "Confusion" not in page


def test_numbers_as_people_read_them() -> None:
    assert [format_duration(s) for s in (0.4211, 38.2, 245.0, 7400.0)] == ["0.42 s", "38 s", "4 min 5 s", "2 h 3 min"]
    assert [format_duration(s) for s in (9.96, 59.6, 3599.6, 7260.0)] == ["10 s", "1 min 0 s", "1 h 0 min", "2 h 1 min"]
    assert [format_score(v) for v in (0.91234, NAN, None)] == ["0.9123", "–", "–"]
    assert [format_bytes(v) for v in (312e6, 1.44e9)] == ["312 MB", "1.4 GB"]


def test_peak_memory_is_that_of_this_process() -> None:
    held = np.ones(30_000_000)
    assert peak_memory() > held.nbytes


def test_provenance_is_json_with_checksums(tmp_path: Path) -> None:
    image = tmp_path / "a.tif"
    image.write_bytes(b"x" * 1_500_000)
    store = tmp_path / "b.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("{}")
    facts = build_provenance(
        inputs=[image, store], seed=7, device="cpu", threads=2, command=["crista", "--name", "a"], started=datetime.now(UTC)
    )
    write_provenance(tmp_path / "provenance.json", facts)
    saved = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))
    assert saved["seed"] == 7
    assert saved["versions"]["numpy"] == np.__version__
    assert saved["command"] == ["crista", "--name", "a"]
    assert saved["seconds"] >= 0
    first, second = saved["inputs"]
    assert first["bytes"] == 1_500_000
    assert first["sha1"] == hashlib.sha1(b"x" * 1_000_000).hexdigest()
    assert second["sha1"] == hashlib.sha1(b"{}").hexdigest()
    assert datetime.fromisoformat(first["modified"]).tzinfo is not None


def test_two_n5_stores_are_told_apart(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "attributes.json").write_text(f'{{"n5": "2.0.0", "of": "{name}"}}')
    one, other = (describe_input(tmp_path / name) for name in "ab")
    assert one.sha1 == hashlib.sha1(b'{"n5": "2.0.0", "of": "a"}').hexdigest() != other.sha1


def test_an_empty_folder_as_input_has_a_checksum_too(tmp_path: Path) -> None:
    assert describe_input(tmp_path).sha1 == hashlib.sha1(b"").hexdigest()


def test_of_a_large_image_the_middle_is_drawn() -> None:
    assert middle_of((20, 30), 600) == (slice(0, 20), slice(0, 30))
    assert middle_of((100, 20, 30), 1800) == (slice(48, 51), slice(0, 20), slice(0, 30))
    assert middle_of((100, 40, 40), 800) == (slice(49, 50), slice(10, 30), slice(0, 40))
    assert middle_of_region((slice(10, 12), slice(100, 140), slice(0, 40)), 800) == (slice(10, 11), slice(110, 130), slice(0, 40))
