"""Which axes an array gets: by metadata, by the user, or by a guess that is stated."""

from __future__ import annotations

import pytest

from crista.images.axes_choice import AxesError, choose_axes


@pytest.mark.parametrize(
    ("found", "shape", "ndim", "axes", "chosen_ndim"),
    [
        ("??", (96, 128), None, "YX", 2),
        ("??", (96, 3), 2, "YX", 2),
        ("???", (96, 128, 3), 2, "YXC", 2),
        ("???", (96, 128, 3), None, "YXC", 2),
        ("???", (3, 96, 128), 2, "CYX", 2),
        ("???", (3, 96, 128), None, "ZYX", 3),
        ("???", (3, 96, 128), 3, "ZYX", 3),
        ("???", (20, 48, 64), 3, "ZYX", 3),
        ("???", (48, 64, 20), 2, "YXC", 2),
        ("???", (48, 64, 20), 3, "ZYX", 3),
        ("???", (1, 48, 64), 3, "ZYX", 3),
        ("????", (20, 48, 64, 2), 3, "ZYXC", 3),
        ("????", (2, 20, 48, 64), 3, "CZYX", 3),
        ("????", (20, 3, 48, 64), None, "ZCYX", 3),
        ("????", (2, 2, 48, 64), 3, "CZYX", 3),
        ("????", (2, 48, 64, 2), 3, "ZYXC", 3),
        ("????", (1, 3, 48, 64), 2, "CYX", 2),
        ("?????", (1, 2, 20, 48, 64), 3, "CZYX", 3),
        ("?YX", (3, 96, 128), None, "ZYX", 3),
        ("?YX", (4, 96, 128), 2, "CYX", 2),
        ("?YXC", (20, 48, 64, 3), None, "ZYXC", 3),
        ("TCZYX", (1, 1, 20, 48, 64), 3, "CZYX", 3),
        ("TCZYX", (1, 2, 1, 48, 64), None, "CZYX", 2),
        ("ZYX", (1, 96, 128), 2, "ZYX", 2),
        ("TAYX", (1, 1, 48, 64), None, "YX", 2),
        ("XYZ", (64, 48, 20), None, "XYZ", 3),
    ],
)
def test_axes_of_a_shape(found: str, shape: tuple[int, ...], ndim: int | None, axes: str, chosen_ndim: int) -> None:
    choice = choose_axes(found, shape, ndim=ndim, given=None)

    assert (choice.axes, choice.ndim) == (axes, chosen_ndim)


def test_the_guess_is_stated_with_its_reason() -> None:
    choice = choose_axes("???", (20, 48, 64), ndim=3, given=None)

    assert choice.reason == "guessed (z, y, x): no axis metadata, 3 axes in a 3D task"
    assert choice.notes == ()


@pytest.mark.parametrize(("ndim", "spelled"), [(2, "(c, y, x)"), (3, "(z, y, x)"), (None, "(z, y, x)")])
def test_a_doubtful_guess_is_a_note_that_names_the_key(ndim: int | None, spelled: str) -> None:
    choice = choose_axes("?YX", (3, 96, 128), ndim=ndim, given=None, key="THE_KEY")

    assert len(choice.notes) == 1
    assert spelled in choice.notes[0]
    assert "set THE_KEY" in choice.notes[0]


@pytest.mark.parametrize(
    ("given", "shape", "axes", "kept"),
    [
        ("ZCYX", (20, 2, 48, 64), "ZCYX", (0, 1, 2, 3)),
        ("zyx", (20, 48, 64), "ZYX", (0, 1, 2)),
        ("YXS", (48, 64, 3), "YXC", (0, 1, 2)),
        ("ZYX", (1, 1, 20, 48, 64), "ZYX", (2, 3, 4)),
        ("TZCYX", (1, 20, 2, 48, 64), "ZCYX", (1, 2, 3, 4)),
    ],
)
def test_given_axes_win(given: str, shape: tuple[int, ...], axes: str, kept: tuple[int, ...]) -> None:
    choice = choose_axes("?" * len(shape), shape, ndim=None, given=given)

    assert (choice.axes, choice.kept, choice.reason) == (axes, kept, "given")


def test_the_five_letters_of_old_files_are_ignored_with_a_note_where_they_are_too_long() -> None:
    choice = choose_axes("???", (20, 48, 64), ndim=3, given="TZCYX")

    assert choice.axes == "ZYX"
    assert "axes TZCYX are longer than the shape (20, 48, 64) and ignored" in choice.notes


@pytest.mark.parametrize(
    ("found", "shape", "ndim", "given", "message"),
    [
        ("ZYX", (20, 48, 64), 2, None, r"3D \(20 slices, shape \(20, 48, 64\)\) but the task is 2D"),
        ("?YX", (20, 48, 64), 2, None, "3D .20 slices"),
        ("???", (20, 48, 64), 2, None, "3D .20 slices"),
        ("YX", (48, 64), 3, None, "2D .axes YX.*but the task is 3D and wants volumes"),
        ("YXC", (48, 64, 3), 3, None, "wants volumes"),
        ("TZCYX", (2, 4, 2, 48, 64), 3, None, "a time axis: T = 2 time points"),
        ("AYX", (5, 48, 64), None, None, "axis A of length 5"),
        ("???", (0, 48, 64), None, None, "empty image"),
        ("???", (-5, 48, 64), None, None, "negative lengths"),
        ("?", (48,), None, None, "not an image"),
        ("?????", (2, 3, 20, 48, 64), None, None, "5 axes without names"),
        ("???", (20, 48, 64), None, "ZQX", "not valid"),
        ("???", (20, 48, 64), None, "ZZYX", "not valid"),
        ("???", (20, 48, 64), None, "ZCX", "not valid"),
        ("???", (20, 48, 64), None, "CZYX", "name 4 axes, the array has 3"),
    ],
)
def test_axes_that_do_not_fit_are_refused(
    found: str, shape: tuple[int, ...], ndim: int | None, given: str | None, message: str
) -> None:
    with pytest.raises(AxesError, match=message) as caught:
        choose_axes(found, shape, ndim=ndim, given=given)

    assert caught.value.next_step


def test_a_volume_in_a_2d_task_is_told_how_to_go_on() -> None:
    with pytest.raises(AxesError) as caught:
        choose_axes("ZYX", (20, 48, 64), ndim=2, given=None, key="THE_KEY")

    assert "train with PROBLEM.NDIM: 3D" in caught.value.next_step
    assert caught.value.next_step.endswith("if the 20 are channels, set THE_KEY: CYX")


@pytest.mark.parametrize(("found", "shape"), [("????", (5, 1, 48, 64)), ("ZCYX", (5, 1, 48, 64)), ("???", (5, 48, 64))])
def test_the_axes_that_are_advised_are_taken(found: str, shape: tuple[int, ...]) -> None:
    """What is advised has a letter for each axis that is meant."""
    with pytest.raises(AxesError) as caught:
        choose_axes(found, shape, ndim=2, given=None, key="KEY")

    choice = choose_axes(found, shape, ndim=2, given=caught.value.next_step.rpartition("KEY: ")[2])
    assert (choice.axes, choice.kept) == ("CYX", (0, 2, 3) if len(shape) == 4 else (0, 1, 2))


def test_slices_of_several_channels_are_no_channels() -> None:
    with pytest.raises(AxesError) as caught:
        choose_axes("ZCYX", (5, 2, 48, 64), ndim=2, given=None, key="KEY")

    assert "KEY" not in caught.value.next_step


@pytest.mark.parametrize(
    ("found", "shape", "ndim", "advice"),
    [
        ("ZYX", (20, 48, 64), 2, ("slices as images of their own", "TEST.ANALIZE_2D_IMGS_AS_3D_STACK: True", "on volumes")),
        ("YX", (48, 64), 3, ("stack the slices", "on 2D images")),
    ],
)
def test_what_a_trained_network_cannot_take_is_told_what_can_still_be_done(
    found: str, shape: tuple[int, ...], ndim: int, advice: tuple[str, ...]
) -> None:
    with pytest.raises(AxesError) as caught:
        choose_axes(found, shape, ndim=ndim, given=None, to_predict=True)
    assert "PROBLEM.NDIM" not in caught.value.next_step
    assert all(words in caught.value.next_step for words in advice)
