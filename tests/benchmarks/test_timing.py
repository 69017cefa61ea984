"""Start-up and seconds per image out of two runs."""

from __future__ import annotations

import pytest
from measuring.timing import few_of, images_for, split_startup


def test_start_up_is_taken_off() -> None:
    """5 s of start-up and 0.5 s per image."""
    split = split_startup((2, 6.0), (20, 15.0))
    assert (split.per_image, split.startup) == (0.5, 5.0)


def test_as_many_images_twice_say_nothing() -> None:
    """It would divide by nothing."""
    with pytest.raises(ValueError, match="3 and 3 images: the second run must have more"):
        split_startup((3, 5.0), (3, 5.0))


def test_the_shorter_run() -> None:
    """An eighth of the images, and at least one."""
    assert [few_of(count) for count in (2, 11, 16, 100)] == [1, 1, 2, 12]


@pytest.mark.parametrize(("per_image", "count"), [(1.0, 21), (0.3, 68), (30.0, 12), (0.001, 400), (-0.1, 400)])
def test_enough_images_to_fill_the_time(per_image: float, count: int) -> None:
    """20 s without the first image; no fewer than 12 and no more than 400."""
    assert images_for(20.0, per_image, least=12, most=400) == count
