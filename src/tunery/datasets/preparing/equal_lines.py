"""Lines that are there already: the same whole line, or the same question.

Lines and questions are known by hashes of 8 bytes: BLAKE2b keyed with the split's seed, and
Python's own with what is answered. A table has about 15 bytes a line. That two of ten million lines
of different text have the same hash has a chance of 3 in a million.
"""

from array import array
from collections.abc import Iterator
from hashlib import blake2b

from tunery.datasets.preparing.findings import Finding, Places, Sample, Severity, lines_text
from tunery.datasets.preparing.views import LineView

_ALL_BITS = (1 << 64) - 1


class Seen:
    """The first index at which each key was put: open addressing, at most two thirds full."""

    def __init__(self) -> None:
        self.keys = array("Q")
        self._slots = array("I", bytes(4 * 1024))  # index + 1; 0 where there is none
        self._used = 0
        self._limit = 2 * len(self._slots) // 3

    def put(self, index: int, key: int) -> int:
        """Note the key of an index; return the first index of that key: maybe this one.

        Indexes grow; those left out have no key.
        """
        while len(self.keys) < index:
            self.keys.append(0)
        self.keys.append(key)
        if self._used > self._limit:
            self._grow()
        slots, keys = self._slots, self.keys
        mask = len(slots) - 1
        slot = key & mask
        while first := slots[slot]:
            if keys[first - 1] == key:
                return first - 1
            slot = (slot + 1) & mask
        slots[slot] = index + 1
        self._used += 1
        return index

    def _slot(self, key: int) -> int:
        slots, keys = self._slots, self.keys
        mask = len(slots) - 1
        slot = key & mask
        while (found := slots[slot]) and keys[found - 1] != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("I", bytes(2 * 4 * len(old)))
        self._limit *= 2
        for found in old:
            if found:
                self._slots[self._slot(self.keys[found - 1])] = found


class EqualLines:
    """Finds duplicates, questions with several answers, and training lines in validation.

    `group` has, for each index, the first index of the same question: those belong on one side of
    a split. `is_copy` has a 1 for each line that is an exact duplicate within its own file, and
    `is_leaked` for each training line whose question stands in the validation file.
    """

    def __init__(self, seed: int, validation_from: int | None = None) -> None:
        key = seed.to_bytes(8, "big", signed=True)
        self._keyed = blake2b(digest_size=8, key=key)
        self.validation_from = validation_from
        self._whole = Seen()
        self._asked = Seen()
        self.group = array("I")
        self.is_copy = bytearray()
        self._leaked_groups: set[int] = set()
        self._copies, self._conflicts, self._leaks = Sample(), Sample(), Sample()

    @property
    def question_hashes(self) -> "array[int]":
        """Return the hash of what each line asks, by its index: the split is drawn from it."""
        return self._asked.keys

    def see(self, index: int, line: LineView) -> None:
        """Look at a line."""
        digest = self._keyed.copy()
        # Where nobody asks, a line is known by all of it: else they would all be one group.
        digest.update((line.asked if line.user_text else line.asked + line.answer).encode())
        asked = int.from_bytes(digest.digest())
        whole = hash((asked, line.answer)) & _ALL_BITS
        first = self._whole.put(index, whole)
        first_asked = self._asked.put(index, asked)
        while len(self.group) < index:
            self.group.append(len(self.group))
            self.is_copy.append(0)
        self.group.append(first_asked)
        start = self.validation_from
        in_validation = start is not None and index >= start
        copied = first != index and (not in_validation or (start is not None and first >= start))
        self.is_copy.append(copied)
        if in_validation and start is not None and first_asked < start:
            self._leaked_groups.add(first_asked)
            self._leaks.add(index, f"{first_asked}")
        elif copied:
            self._copies.add(index, f"{first}")
        elif first == index and first_asked != index:
            self._conflicts.add(index, f"{first_asked}")

    def leaked(self) -> Iterator[int]:
        """Yield the training lines whose question is in the validation file."""
        if self._leaked_groups:
            for index in range(self.validation_from or 0):
                if index < len(self.group) and self.group[index] in self._leaked_groups:
                    yield index

    def findings(self, places: Places) -> list[Finding]:
        """Return what was found."""
        found = []
        if self._copies.count:
            count = self._copies.count
            found.append(
                Finding(
                    "duplicate_lines",
                    Severity.RECOMMENDED,
                    f"{_are(count)} copied exactly from earlier ones, and would weigh more than the"
                    " others.",
                    count,
                    places(_told(self._copies, places, "like line {}")),
                    f"Remove {lines_text(count, 'exact copy').replace('copys', 'copies')}",
                )
            )
        if self._leaks.count:
            count = self._leaks.count
            found.append(
                Finding(
                    "leaked_lines",
                    Severity.RECOMMENDED,
                    f"{lines_text(count)} of the validation file {'asks' if count == 1 else 'ask'}"
                    " what is trained on: the score there would be better than the model is.",
                    count,
                    places(_told(self._leaks, places, "like training line {}")),
                    "Remove the training lines that ask what validation asks",
                )
            )
        if self._conflicts.count:
            count = self._conflicts.count
            verb = "asks" if count == 1 else "ask"
            found.append(
                Finding(
                    "different_answers",
                    Severity.NOTICE,
                    f"{lines_text(count)} {verb} what an earlier one asks and"
                    f" {'is' if count == 1 else 'are'} answered otherwise: if one of the answers"
                    " is right, the other is learned as well.",
                    count,
                    places(_told(self._conflicts, places, "asks what line {} asks")),
                )
            )
        return found


def _told(sample: Sample, places: Places, words: str) -> Sample:
    """Return a sample whose details name the other line by its number."""
    named = [(index, words.format(places.number(int(other)))) for index, other in sample.first]
    return Sample(sample.count, named)


def _are(count: int) -> str:
    return f"{lines_text(count)} {'is' if count == 1 else 'are'}"
