"""Sets of classes that a voxel may still belong to, and the codes that stand for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from napari_sparseseg._types import MAX_CLASSES, MAX_CODE, UNPAINTED, Statement
from napari_sparseseg.errors import InputError
from napari_sparseseg.storage._edits import Codes, Mask

FIRST_SET = MAX_CLASSES + 1


@dataclass(frozen=True, slots=True)
class ClassSet:
    """Classes that are allowed ("1 or 3"), or forbidden ("not 2": a class that is added later is allowed).

    Where classes may overlap, `present` are those that are there; the forbidden ones are absent.
    """

    class_ids: frozenset[int]
    is_forbidding: bool
    present: frozenset[int] = frozenset()

    def within(self, class_ids: Collection[int]) -> frozenset[int]:
        """Those of `class_ids` that the set leaves possible; if any are present, only these."""
        known = frozenset(class_ids)
        if self.present:
            return known & self.present
        return known - self.class_ids if self.is_forbidding else known & self.class_ids

    def excluding(self, class_id: int) -> ClassSet:
        """The set without the possibility of `class_id`."""
        rejected = frozenset((class_id,))
        class_ids = self.class_ids | rejected if self.is_forbidding else self.class_ids - rejected
        return ClassSet(class_ids, self.is_forbidding, self.present - rejected)

    def forgetting(self, class_id: int) -> ClassSet:
        """The set without mention of `class_id`, which is no longer a class."""
        return ClassSet(self.class_ids - {class_id}, self.is_forbidding, self.present - {class_id})

    def statement(self, class_ids: Collection[int]) -> Statement:
        """What the set says about overlapping classes: which of `class_ids` are present, and which absent."""
        known = frozenset(class_ids)
        absent = self.class_ids & known if self.is_forbidding else known - self.class_ids
        return Statement(self.present & known, absent - self.present)


def none_of(class_ids: Iterable[int]) -> ClassSet:
    """Every class but these."""
    return ClassSet(frozenset(class_ids), is_forbidding=True)


def any_of(class_ids: Iterable[int]) -> ClassSet:
    """One of these classes."""
    return ClassSet(frozenset(class_ids), is_forbidding=False)


class Palette:
    """Codes 128..254 and the sets of classes that they stand for."""

    def __init__(self, sets: Mapping[int, ClassSet] | None = None) -> None:
        self._sets: dict[int, ClassSet] = dict(sets or {})

    @property
    def sets(self) -> dict[int, ClassSet]:
        """A copy: code -> set."""
        return dict(self._sets)

    def __contains__(self, code: object) -> bool:
        return code in self._sets

    def code_of(self, known: ClassSet) -> int:
        """The code of a set that has one."""
        return next(code for code, other in self._sets.items() if other == known)

    def with_sets(self, wanted: Iterable[ClassSet], codes_in_use: Callable[[], Container[int]]) -> Palette:
        """A palette in which each wanted set has a code; if codes run short, those not in use are given to new sets.

        Raises `InputError` if there are more sets than codes.
        """
        wanted = list(dict.fromkeys(wanted))
        sets = self.sets
        new = [item for item in wanted if item not in sets.values()]
        if len(sets) + len(new) > MAX_CODE - MAX_CLASSES:
            in_use = codes_in_use()
            sets = {code: known for code, known in sets.items() if code in in_use or known in wanted}
        free = [code for code in range(FIRST_SET, MAX_CODE + 1) if code not in sets]
        if len(new) > len(free):
            raise InputError(
                f"more than {MAX_CODE - MAX_CLASSES} different sets of classes are painted; paint single classes over "
                "some of them, or undo"
            )
        return Palette({**sets, **dict(zip(free, new, strict=False))})

    def allowed(self, code: int, class_ids: Collection[int]) -> frozenset[int]:
        """Those of `class_ids` that a code leaves possible: a class leaves only itself, unpainted leaves all.

        A code that stands for nothing leaves all, too: somebody who reads it while a class is removed must not fail.
        """
        if 1 <= code <= MAX_CLASSES:
            return frozenset((code,))
        return self._sets[code].within(class_ids) if code in self._sets else frozenset(class_ids)

    def narrowed(self, code: int, shown: int, class_ids: Collection[int]) -> int | ClassSet:
        """What becomes of a code where the class that is shown is erased: a code, or a set that may have none yet."""
        if 0 < code < FIRST_SET:
            return UNPAINTED
        if shown == UNPAINTED:
            return code
        known = self._sets[code] if code else none_of(())
        narrowed = known.excluding(shown)
        if narrowed == known:
            return code
        possible = narrowed.within(class_ids)
        if not possible:
            narrowed = none_of((shown,))
            possible = narrowed.within(class_ids)
        return next(iter(possible)) if len(possible) == 1 else narrowed

    def narrowed_codes(
        self,
        before: Codes,
        shown: Codes,
        within: Mask,
        class_ids: frozenset[int],
        background: int | None,
        codes_in_use: Callable[[], Container[int]],
    ) -> tuple[Codes, Palette]:
        """Codes after erasing on a prediction that has `shown` these labels, and a palette, as of `recoded`."""

        def narrowed(code: int, label: int) -> int | ClassSet:
            return self.narrowed(code, UNPAINTED if label == background else label, class_ids)

        return self.recoded(before, shown, within, narrowed, codes_in_use)

    def recoded(
        self,
        before: Codes,
        labels: Codes,
        within: Mask,
        becomes: Callable[[int, int], int | ClassSet],
        codes_in_use: Callable[[], Container[int]],
    ) -> tuple[Codes, Palette]:
        """What `becomes` of each code and label within a mask, and a palette in which new sets have a code.

        Codes outside the mask mean nothing. Raises `InputError` if there are more sets than codes, as `with_sets` does.
        """
        pairs = before.astype(np.uint16) << 8 | labels
        found = np.flatnonzero(np.bincount(pairs[within], minlength=2**16)).tolist()
        after = {pair: becomes(*divmod(pair, 256)) for pair in found}
        palette = self.with_sets([target for target in after.values() if isinstance(target, ClassSet)], codes_in_use)
        table = np.arange(2**16) >> 8
        for pair, target in after.items():
            table[pair] = palette.code_of(target) if isinstance(target, ClassSet) else target
        codes: Codes = table.astype(np.uint8)[pairs]
        return codes, palette

    def statement(self, code: int, class_ids: Collection[int]) -> Statement:
        """What a code says about overlapping classes."""
        if code in self._sets:
            return self._sets[code].statement(class_ids)
        return Statement(frozenset((code,)) if 1 <= code <= MAX_CLASSES else frozenset())

    def saying(
        self, code: int, class_id: int, *, is_present: bool, class_ids: Collection[int], background: int | None
    ) -> int | ClassSet:
        """What becomes of a code where an overlapping class is said to be present, or absent.

        A code, or a set that may have none yet. What was said about other classes stays, except that the background
        excludes all others.
        """
        said = self.statement(code, class_ids)
        if is_present and class_id == background:
            return class_id
        if not is_present and background in said.present:
            return code
        present, absent = said.present - {class_id, background}, said.absent - {class_id}
        if is_present:
            present |= {class_id}
        else:
            absent |= {class_id}
        if len(present) == 1 and not absent:
            return next(iter(present))
        return ClassSet(absent, is_forbidding=True, present=frozenset(present))

    def forget(self, class_id: int, class_ids: Collection[int] | None) -> tuple[Palette, dict[int, int]]:
        """The palette without mention of a class, and the code that replaces each code that changed.

        A set that no longer says anything (none or all of the remaining `class_ids` are possible) becomes unpainted,
        a set of a single class that class. With None only obvious cases are recognised.
        """
        sets: dict[int, ClassSet] = {}
        moved: dict[int, int] = {class_id: UNPAINTED}
        codes: dict[ClassSet, int] = {}
        # sets that do not change come first, so that they keep their codes
        for code, known in sorted(self._sets.items(), key=lambda item: class_id in item[1].class_ids | item[1].present):
            left = known.forgetting(class_id)
            target = _meaning(left, class_ids)
            if target is None:
                target = codes.setdefault(left, code)
                sets.setdefault(target, left)
            if target != code:
                moved[code] = target
        return Palette(sets), moved


def _meaning(left: ClassSet, class_ids: Collection[int] | None) -> int | None:
    """The class that a set amounts to, or unpainted; None if it remains a set."""
    if left.present:
        return next(iter(left.present)) if len(left.present) == 1 and not left.class_ids else None
    if not left.class_ids:
        return UNPAINTED
    if class_ids is None:
        return None if left.is_forbidding or len(left.class_ids) > 1 else next(iter(left.class_ids))
    possible = left.within(class_ids)
    if len(possible) in (0, len(set(class_ids))):
        return UNPAINTED
    return next(iter(possible)) if len(possible) == 1 else None
