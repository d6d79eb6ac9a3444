"""Which lines validate: drawn by a seed, so that nothing in validation is trained on.

Lines that ask the same, or are nearly the same, are a group, and a group goes to one side. A group
is drawn by a hash of what its first line asks: the same file and seed give the same split on any
machine. In a large file, a line that is added moves no other group.
"""

from array import array
from collections.abc import Sequence
from hashlib import blake2b

_ALL = 1 << 64
_EXACTLY_BELOW = 20_000  # lines: with more, the draw itself comes close enough to the share


def joined(group: "array[int]", pairs: Sequence[int]) -> None:
    """Put near lines into one group: `group` has each line's first, `pairs` two indexes in turn."""

    def root(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for place in range(0, len(pairs), 2):
        one, other = root(pairs[place]), root(pairs[place + 1])
        if one != other:
            group[max(one, other)] = min(one, other)
    for index in range(len(group)):
        group[index] = group[group[index]]


def draw(
    group: Sequence[int], hashes: Sequence[int], kept: Sequence[int], share: float, seed: int
) -> bytearray:
    """Return a 1 for each kept line that is to validate, about `share` of them.

    `hashes` are of what each line asks. Of few lines, as many groups are taken as come closest to
    the share without going beyond it, one at the least; what is left to train on is never less
    than a half.
    """
    side = bytearray(len(group))
    key = seed.to_bytes(8, "big", signed=True)

    def order(first: int) -> int:
        digest = blake2b(hashes[first].to_bytes(8, "big"), digest_size=8, key=key)
        return int.from_bytes(digest.digest())

    count = sum(1 for index in range(len(group)) if kept[index])
    if count > _EXACTLY_BELOW:
        bound = int(share * _ALL)
        for index, first in enumerate(group):
            side[index] = bool(kept[index]) and order(first) < bound
        return side if 2 * sum(side) <= count else bytearray(len(group))
    members: dict[int, list[int]] = {}
    for index, first in enumerate(group):
        if kept[index]:
            members.setdefault(first, []).append(index)
    wanted = max(1, round(share * count))
    taken = 0
    for first in sorted(members, key=order):
        if taken and taken + len(members[first]) > wanted:
            continue
        if 2 * (taken + len(members[first])) > count:
            continue
        for index in members[first]:
            side[index] = 1
        taken += len(members[first])
        if taken >= wanted:
            break
    return side
