"""Which texts are computed together. The route itself is tested with its client."""

import pytest

from tunery.engine.embedding import BATCH_TOKENS, batches


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([3], [[0]]),
        # 5 and 5 fill 10; 6 and 6 would be 12; 20 is more than 10 and stands alone.
        ([6, 5, 20, 5, 6], [[1, 3], [0], [4], [2]]),
        # The short ones are padded to the longest: 3 x 3 = 9 fits, 4 x 3 does not.
        ([1, 3, 2, 3], [[0, 2, 1], [3]]),
    ],
)
def test_texts_of_like_length_stand_together_padding_counted(
    lengths: list[int], expected: list[list[int]]
) -> None:
    assert batches(lengths, most=10) == expected


def test_every_text_is_computed_once_and_no_batch_is_large() -> None:
    lengths = [n * 37 % 300 + 1 for n in range(500)]
    found = batches(lengths)
    assert sorted(place for batch in found for place in batch) == list(range(500))
    for batch in found:
        padded = len(batch) * max(lengths[place] for place in batch)
        assert padded <= BATCH_TOKENS or len(batch) == 1
    # 286 texts have more than half of 256 tokens; of the others, two at least stand together.
    assert len(found) <= 286 + 214 // 2
