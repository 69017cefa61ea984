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

from crista.plan.plan import Decision
from crista.results.charts import draw_charts
from crista.results.provenance import build_provenance, describe_input, write_provenance
from crista.results.report import (
    ClassResult,
    ImageResult,
    ReportContent,
    choose_examples,
    format_duration,
    format_score,
    render_report,
    write_report,
)
from crista.results.run_folder import RunFolder
from crista.results.run_report import middle_of

NAN = float("nan")


class Balanced(HTMLParser):
    """Checks that every tag that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_html(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []


@pytest.fixture
def content(tmp_path: Path) -> ReportContent:
    chart = draw_charts([{"epoch": 1, "loss": 1.0}], tmp_path, "j")[0]
    names = ("background", "<mito>")
    return ReportContent(
        title="my_job_1",
        headline={"foreground IoU": "0.9100"},
        config_text="DATA:\n  PATH: <here> & there\n",
        decisions=[Decision(key="TRAIN.BATCH_SIZE", value="8", reason="fits the memory")],
        notices=["a.tif has no voxel size"],
        charts=[chart],
        num_epochs=1,
        images=[ImageResult(f"{i}.tif", {"iou": i / 10, "dice": NAN}, chart) for i in range(5)],
        mean={"iou": 0.2},
        classes=[ClassResult(name, 0.9, 0.95, 0.9, NAN, 12345) for name in names],
        confusion=np.array([[90, 10], [0, 0]]),
        rules=["A class that is absent is left out."],
        timings={"train": 96.0},
        versions={"torch": "2.13"},
        facts={"finished": "2026-03-01T12:00:00+00:00"},
    )


def test_report_is_complete_and_self_contained(tmp_path: Path, content: ReportContent) -> None:
    path = write_report(RunFolder(tmp_path, "my_job", 1), content)
    page = path.read_text(encoding="utf-8")
    check_html(page)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert page.count("data:image/png;base64,") == 4  # three examples and one chart
    for text in (
        "0.9100",
        "fits the memory",
        "a.tif has no voxel size",
        "12,345",
        "90.0%",
        "1 min 36 s",
        "A class that is absent",
    ):
        assert text in page


def test_report_escapes_what_users_write(content: ReportContent) -> None:
    page = render_report(content)
    assert "&lt;here&gt; &amp; there" in page
    assert "<mito>" not in page


def test_report_of_nothing_says_that_all_was_decided() -> None:
    page = render_report(ReportContent("empty"))
    check_html(page)
    assert "everything was decided from the data" in page
    assert "Confusion" not in page


def test_examples_are_worst_median_and_best(content: ReportContent) -> None:
    chosen = choose_examples([*content.images, ImageResult("no overlay", {"iou": 1.0})], "iou")
    assert [(word, image.name) for word, image in chosen] == [("worst", "0.tif"), ("median", "2.tif"), ("best", "4.tif")]
    two = choose_examples(content.images[:2], "iou")
    assert [(word, image.name) for word, image in two] == [("worst", "0.tif"), ("best", "1.tif")]
    assert [word for word, _ in choose_examples(content.images, "unknown")] == ["", "", ""]
    assert choose_examples([], "iou") == []


def test_numbers_as_people_read_them() -> None:
    assert [format_duration(s) for s in (0.4211, 38.2, 245.0, 7400.0)] == ["0.42 s", "38 s", "4 min 5 s", "2 h 3 min"]
    assert [format_score(v) for v in (0.91234, NAN, None)] == ["0.9123", "–", "–"]


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


def test_an_empty_folder_as_input_has_a_checksum_too(tmp_path: Path) -> None:
    assert describe_input(tmp_path).sha1 == hashlib.sha1(b"").hexdigest()


def test_of_a_large_image_the_middle_is_drawn() -> None:
    assert middle_of((20, 30), 600) == (slice(0, 20), slice(0, 30))
    assert middle_of((100, 20, 30), 1800) == (slice(48, 51), slice(0, 20), slice(0, 30))
    assert middle_of((100, 40, 40), 800) == (slice(49, 50), slice(10, 30), slice(0, 40))
