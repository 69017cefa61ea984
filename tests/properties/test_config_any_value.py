"""Whatever stands at a key, loading ends in a configuration or in a `ConfigError` that names the key."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crista.config.fields import all_keys, all_sections
from crista.config.known_keys import KNOWN
from crista.config.load import config_from_dict, parse_config
from crista.config.renamed_keys import RENAMED
from crista.errors import ConfigError

PLACES = [name.replace("*", "X") for name in (*all_keys(), *all_sections(), *KNOWN, *RENAMED)]
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-5, 300), st.floats(), st.text(max_size=6), st.just("(1, 2)"))
VALUES = st.recursive(
    PLAIN,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text("ABC.", min_size=1), inside, max_size=2),
    max_leaves=5,
)


def outcome(load, given_config):
    """(the loaded configuration, no problems) or (None, its problems)."""
    try:
        return load(given_config), ()
    except ConfigError as error:
        return None, error.problems


@given(st.dictionaries(st.sampled_from(PLACES), VALUES, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_values_load_or_are_refused(tree):
    loaded, problems = outcome(config_from_dict, tree)
    if loaded is not None:
        assert parse_config(loaded.text).config == loaded.config
    else:
        assert problems
        assert all(problem.where and problem.what for problem in problems)


@given(st.text(alphabet="TRAIN:EPOCHSabc123 \n\t-[]{}()'\"#&*!|>%@.,", max_size=40))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_text_loads_or_is_refused(text):
    loaded, problems = outcome(parse_config, text)
    assert problems if loaded is None else loaded.text == text


@pytest.mark.parametrize("key", list(all_keys()))
def test_the_default_of_every_key_is_one_of_its_values(key):
    default = all_keys()[key].default
    loaded = config_from_dict({key: default})
    assert loaded.config == config_from_dict({}).config
