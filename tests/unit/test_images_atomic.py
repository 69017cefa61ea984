"""Files that are written all at once: the first of several processes counts, and nothing is left beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from crista.images.atomic import read_json, write_first


@pytest.mark.parametrize("links", [True, False], ids=["links", "no_links"])
def test_the_first_content_stays_and_damaged_content_does_not(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no hard links here")

    if not links:
        monkeypatch.setattr("os.link", refused)
    path = tmp_path / "new" / "choice.json"
    write_first(path, '{"engine": "torch"}')
    write_first(path, '{"engine": "openvino"}')
    assert read_json(path) == {"engine": "torch"}
    path.write_text('{"engi')
    write_first(path, '{"engine": "openvino"}')
    assert read_json(path) == {"engine": "openvino"}
    assert list(path.parent.iterdir()) == [path]
