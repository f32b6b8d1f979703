"""The list of classes that can be painted."""

from __future__ import annotations

import math
import threading
from itertools import combinations

import pytest

from napari_sparseseg.errors import InputError
from napari_sparseseg.live.classes import ClassList


@pytest.fixture
def classes():
    return ClassList()


def test_it_begins_with_background_and_object(classes):
    assert [(info.class_id, info.name, info.is_background) for info in classes.all] == [
        (1, "background", True),
        (2, "object", False),
    ]
    assert classes.background == 1


def test_a_new_class_takes_an_id_that_none_has_had(classes):
    classes.add()
    classes.add()
    classes.remove(4)
    assert classes.add("vessel").class_id == 5
    classes.remove(2)
    assert classes.ids == (1, 3, 5)
    assert classes.add().class_id == 6
    classes.restore(classes.all[:2], 9)
    assert classes.add().class_id == 10


def test_where_ids_are_used_up_the_lowest_free_one_is_taken(classes):
    classes.add(class_id=127)
    assert [classes.add().class_id for _ in range(2)] == [3, 4]


def test_a_class_can_be_added_under_a_given_id(classes):
    assert classes.add(class_id=9).name == "class 9"
    assert 9 in classes


@pytest.mark.parametrize("class_id", [-1, 128])
def test_ids_end_at_127(classes, class_id):
    with pytest.raises(InputError, match="127"):
        classes.add(class_id=class_id)


def test_there_can_be_127_classes_and_no_more(classes):
    for _ in range(125):
        classes.add()
    with pytest.raises(InputError, match="remove one first"):
        classes.add()


def test_colours_differ_among_the_first_classes(classes):
    for _ in range(5):
        classes.add()
    assert len({info.color for info in classes.all}) == 7
    for _ in range(9):
        classes.remove(classes.ids[-1])
        classes.add()
    assert len({info.color for info in classes.all}) == 7


def test_colours_of_many_classes_can_be_told_apart(classes):
    classes.recolor(2, (1.0, 0.0, 0.0))
    for _ in range(58):
        classes.add()
    colors = [info.color for info in classes.all]
    assert min(math.dist(a, b) for a, b in combinations([*colors, (0.0, 0.0, 0.0)], 2)) > 0.2


def test_a_name_is_stripped_and_unique(classes):
    classes.rename(2, "  nucleus ")
    assert classes.all[1].name == "nucleus"
    classes.rename(2, "nucleus")
    with pytest.raises(InputError, match="another name"):
        classes.rename(1, "nucleus")
    with pytest.raises(InputError, match="at least one letter"):
        classes.rename(1, "  ")


@pytest.mark.parametrize(("name", "reason"), [(" object ", "another name"), (" ", "at least one letter")])
def test_a_new_class_needs_a_name_of_its_own(classes, name, reason):
    with pytest.raises(InputError, match=reason):
        classes.add(name)
    assert classes.ids == (1, 2)


def test_the_background_role_belongs_to_one_class(classes):
    classes.set_background(2)
    assert [info.is_background for info in classes.all] == [False, True]


def test_without_the_background_class_none_has_the_role(classes):
    classes.add()
    classes.remove(1)
    assert classes.background is None


def test_two_classes_remain(classes):
    with pytest.raises(InputError, match="add another first"):
        classes.remove(2)


def test_an_unknown_class_is_named(classes):
    for change in (
        classes.remove,
        classes.set_background,
        lambda i: classes.rename(i, "a"),
        lambda i: classes.recolor(i, ()),
    ):
        with pytest.raises(InputError, match="no class 7; the classes are 1, 2"):
            change(7)


def test_others_may_read_while_it_changes(classes):
    errors = []
    is_over = threading.Event()

    def read():
        try:
            while not is_over.is_set():
                assert len(classes.all) >= 2
                assert classes.background == 1
        except Exception as error:  # noqa: BLE001 - it is what the test looks for
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        info = classes.add()
        classes.recolor(info.class_id, (0.0, 0.0, 0.0))
        classes.remove(info.class_id)
    is_over.set()
    reader.join()
    assert not errors
