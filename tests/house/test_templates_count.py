"""The templates that ship: binary and multi-class, 2D and 3D, each named in their README."""

from __future__ import annotations

import re
from pathlib import Path

from crista.config.fields import all_keys
from crista.config.load import load_config, parse_config

FOLDER = Path(__file__).parents[2] / "templates" / "semantic_segmentation"
EXPECTED = {
    f"{ndim}d_{classes}semantic_segmentation.yaml": (f"{ndim}D", count)
    for ndim in (2, 3)
    for classes, count in (("", 2), ("multiclass_", 3))
}


def test_there_are_four_templates_and_the_readme_names_them() -> None:
    """No template is missing, none is undocumented."""
    found = {path.name for path in FOLDER.glob("*.yaml")}
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert found == set(EXPECTED)
    assert len(found) == 4
    assert all(f"`{name}`" in readme for name in found)


def test_each_template_is_what_its_name_says() -> None:
    """Dimensions and classes; every key it shows is one of crista's, so nothing is said when it is loaded."""
    for name, (ndim, classes) in EXPECTED.items():
        loaded = load_config(FOLDER / name)
        assert loaded.notices == (), name
        assert loaded.config.problem.ndim == ndim
        assert (loaded.config.data.n_classes or 2) == classes
    assert len(all_keys()) >= 150


def test_what_is_switched_off_in_a_template_can_be_switched_on() -> None:
    """All lines behind a # at once."""
    for name in EXPECTED:
        text, count = re.subn(r"^( +)# ([A-Z_]+: .+)$", r"\1\2", (FOLDER / name).read_text(), flags=re.MULTILINE)
        assert count >= 3
        assert parse_config(text, name).notices == ()
