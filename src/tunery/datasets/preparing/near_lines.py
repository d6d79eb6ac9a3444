"""Lines that are nearly the same: one word changed, a number, a greeting.

Of a line's text, what was said by all but the system, each run of eight bytes is hashed. A
signature keeps the least hash in each of 36 bins (one-permutation MinHash, Li, Owen & Zhang 2012;
bins that stay empty borrow, Shrivastava & Li 2014): two lines agree in a bin with a probability
that is their Jaccard similarity, the share of runs that they have in common. Lines that agree in a
whole band of six bins are compared; those that agree in four fifths of all bins are told.

Signatures, 72 bytes a line, are kept in a file that has no name. Needs numpy, which comes with the
extras `data` and `torch`.
"""

import tempfile
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunery.datasets.preparing.findings import Finding, Places, Sample, Severity, lines_text
from tunery.datasets.preparing.views import LineView

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Signatures = NDArray[np.uint16]

try:
    import numpy as np
except ImportError:  # pragma: no cover - the two extras have it
    np = None  # type: ignore[assignment]

BANDS, ROWS = 6, 6
BINS = BANDS * ROWS
SAME_BINS = 29  # of 36: a similarity of about 0.8
LEAST_BYTES = 40  # a shorter text is a label, a name, a yes
_GRAM = 8
_BATCH_BYTES = 512 * 1024
_BATCH_LINES = 2048
_MAX_CHARACTERS = 65_536  # of a line; the rest is not compared
_SAMPLED_BYTES = 192  # of a longer text, so many runs are looked at: those of the least hashes
_MIX, _MIX_2 = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd; of the golden ratio, of xxHash
_LINE_SHIFT, _BIN_SHIFT = 53, 47


def signatures(texts: Sequence[bytes]) -> "Signatures":
    """Return the signature of each text, (texts, BINS); each text has LEAST_BYTES or more."""
    data = b"".join([*texts, bytes(_GRAM)])
    lengths = np.array([len(text) for text in texts], np.int64)
    grams = np.ndarray((int(lengths.sum()),), "<u8", data, strides=(1,))
    with np.errstate(over="ignore"):
        hashes = grams * np.uint64(_MIX)
    # Runs that go beyond their text are no runs of it: their bound is 0.
    bounds = np.zeros((len(texts), 2), np.uint64)
    share = np.minimum(1.0, _SAMPLED_BYTES / lengths)
    bounds[:, 0] = (share * float(2**64 - 2**11)).astype(np.uint64)
    pieces = np.stack([lengths - (_GRAM - 1), np.full_like(lengths, _GRAM - 1)], axis=1)
    kept = np.flatnonzero(hashes < np.repeat(bounds.reshape(-1), pieces.reshape(-1)))
    lines = np.searchsorted(np.cumsum(lengths), kept, side="right").astype(np.uint64)
    hashes = hashes[kept]
    with np.errstate(over="ignore"):
        mixed = (hashes ^ hashes >> np.uint64(29)) * np.uint64(_MIX_2)
    bins = (mixed >> np.uint64(48)) * np.uint64(BINS) >> np.uint64(16)
    keys = lines << np.uint64(_LINE_SHIFT) | bins << np.uint64(_BIN_SHIFT)
    keys |= hashes >> np.uint64(64 - _BIN_SHIFT)
    keys.sort()
    places = keys >> np.uint64(_BIN_SHIFT)
    first = np.flatnonzero(np.concatenate([[True], places[1:] != places[:-1]]))
    row = (keys[first] >> np.uint64(_LINE_SHIFT)).astype(np.int64)
    column = (places[first] & np.uint64(63)).astype(np.int64)
    found = np.zeros((len(texts), BINS), np.uint16)
    with np.errstate(over="ignore"):
        least = (keys[first] & np.uint64((1 << _BIN_SHIFT) - 1)) * np.uint64(_MIX)
    found[row, column] = (least >> np.uint64(48)).astype(np.uint16)
    full = np.zeros((len(texts), BINS), bool)
    full[row, column] = True
    return _filled(found, full)


def _filled(found: "Signatures", full: "NDArray[np.bool_]") -> "Signatures":
    """Fill bins that are empty from the next ones that are not, with the distance in the value."""
    thin = np.flatnonzero(~full.all(axis=1))
    values, there = found[thin], full[thin]
    result, done = values.copy(), there.copy()
    for step in range(1, BINS):
        if done.all():
            break
        lent, has = np.roll(values, -step, axis=1), np.roll(there, -step, axis=1)
        take = ~done & has
        result[take] = lent[take] + np.uint16(step * 0x3D4D & 0xFFFF)
        done |= take
    found[thin] = result
    return found


class NearLines:
    """Finds lines that are nearly the same as an earlier one."""

    def __init__(self, validation_from: int | None = None) -> None:
        self.available = np is not None
        self.validation_from = validation_from
        self._indexes = array("I")
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._file: Any = None
        self._near, self._leaks = Sample(), Sample()

    def see(self, index: int, line: LineView) -> None:
        """Look at a line that is no exact copy."""
        if not self.available:
            return
        text = line.said[:_MAX_CHARACTERS].encode()
        if len(text) < LEAST_BYTES:
            return
        self._indexes.append(index)
        self._waiting.append(text)
        self._waiting_bytes += len(text)
        if self._waiting_bytes > _BATCH_BYTES or len(self._waiting) == _BATCH_LINES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            self._file.write(signatures(self._waiting).tobytes())
            self._waiting, self._waiting_bytes = [], 0

    def compare(self) -> "array[int]":
        """Return the pairs of near lines: a later and an earlier index in turn."""
        pairs = array("Q")
        if not self.available:
            return pairs
        self._flush()
        count = len(self._indexes)
        if count > 1:
            self._file.flush()
            kept = np.memmap(self._file, np.uint16, "r", shape=(count, BINS))
            indexes = np.frombuffer(self._indexes, np.uint32)
            earlier = np.full(count, count, np.int64)  # the first near line of each, by its row
            for band in range(BANDS):
                self._compare_band(kept, band, earlier)
            rows = np.flatnonzero(earlier < count)
            later, former = indexes[rows], indexes[earlier[rows]]
            order = np.argsort(later, kind="stable")
            both = np.stack([later[order], former[order]], axis=1).astype(np.uint64)
            pairs.frombytes(both.tobytes())
            self._tell(both)
            del kept
        return pairs

    def close(self) -> None:
        """Give the signatures' file back."""
        if self._file is not None:
            self._file.close()

    def _compare_band(self, kept: Any, band: int, earlier: "NDArray[np.int64]") -> None:
        """Note, for each row, the first row that it agrees with, among those of its band's group.

        It is compared with the group's first and with the one before it: time is linear, and what
        is near to either is near to the group.
        """
        count = len(earlier)
        keys = np.empty(count, np.uint64)
        for start in range(0, count, 65_536):
            part = np.asarray(kept[start : start + 65_536, band * ROWS : (band + 1) * ROWS])
            key = np.zeros(len(part), np.uint64)
            with np.errstate(over="ignore"):
                for column in range(ROWS):
                    key = (key ^ part[:, column].astype(np.uint64)) * np.uint64(_MIX)
                    key ^= key >> np.uint64(31)
            keys[start : start + 65_536] = key
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        firsts = np.maximum.accumulate(np.where(new, np.arange(count), 0))
        members = np.flatnonzero(~new)
        for start in range(0, len(members), 16_384):
            part = members[start : start + 16_384]
            rows = order[part]
            mine = kept[rows]
            for others in (order[firsts[part]], order[part - 1]):
                same = (mine == kept[others]).sum(axis=1) >= SAME_BINS
                better = same & (others < earlier[rows])
                earlier[rows[better]] = others[better]

    def _tell(self, pairs: "NDArray[np.uint64]") -> None:
        start = self.validation_from
        for later, former in pairs.tolist():
            if start is not None and former < start <= later:
                self._leaks.add(later, f"{former}")
            else:
                self._near.add(later, f"{former}")

    def findings(self, places: Places) -> list[Finding]:
        """Return what was found."""
        if not self.available:
            return [
                Finding(
                    "near_lines_not_sought",
                    Severity.NOTICE,
                    "Near duplicates were not looked for: that needs numpy; run"
                    " `pip install 'tunery[data]'`.",
                )
            ]
        found = []
        for kind, sample, severity, words, like in (
            (
                "near_duplicates",
                self._near,
                Severity.NOTICE,
                "nearly the same as an earlier one; a split keeps them on one side",
                "like line {}",
            ),
            (
                "near_leaks",
                self._leaks,
                Severity.NOTICE,
                "in the validation file and nearly the same as one that is trained on",
                "like training line {}",
            ),
        ):
            if sample.count:
                told = [
                    (index, like.format(places.number(int(other)))) for index, other in sample.first
                ]
                verb = "is" if sample.count == 1 else "are"
                found.append(
                    Finding(
                        kind,
                        severity,
                        f"{lines_text(sample.count)} {verb} {words}.",
                        sample.count,
                        places(Sample(sample.count, told)),
                    )
                )
        return found
