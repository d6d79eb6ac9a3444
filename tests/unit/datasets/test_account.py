"""What training will learn of a file, counted by hand."""

import pytest

from tunery.datasets.account import MAX_LISTED_LINES, Account
from tunery.datasets.rendering import Rendered


def rendered(mask: str) -> Rendered:
    """Return a line of as many tokens as letters, where `x` is learned."""
    return Rendered(list(range(len(mask))), [letter == "x" for letter in mask])


def test_every_line_has_its_row_and_the_sums_are_of_what_the_cut_leaves() -> None:
    account = Account(max_tokens=6)
    masks = {1: "..xx", 2: "...xxxxx", 4: ".xx...", 5: "......xx", 9: "xx"}
    rows = [account.add(line, rendered(mask)) for line, mask in masks.items()]
    # line, tokens, tokens kept, learned, learned but for the cut; a first token gives no loss.
    assert rows == [b"1,4,4,2,0\n", b"2,8,6,3,2\n", b"4,6,6,2,0\n", b"5,8,6,0,2\n", b"9,2,2,1,0\n"]
    assert account == Account(6, 5, 4 + 6 + 6 + 6 + 2, 2 + 3 + 2 + 0 + 1, 2, 1, [5])
    assert account.summary() == (
        "5 examples; 8 of 24 tokens are learned; 2 lines were cut at 6 tokens, 1 lost every"
        " learned token: line 5"
    )


def test_of_two_sides_the_conversation_counts_once_and_both_are_learned_or_none() -> None:
    account = Account(max_tokens=6)
    sides = {1: ("..xx.", "..xxx"), 2: ("...xxxxx", "...x"), 3: (".....xx", "......x")}
    rows = [account.add(line, *map(rendered, masks)) for line, masks in sides.items()]
    # Of the third, one answer is cut off whole: what is left of the other is not learned either.
    assert rows == [b"1,8,8,5,0\n", b"2,9,7,4,2\n", b"3,8,6,0,3\n"]
    assert account == Account(6, 3, 8 + 7 + 6, 5 + 4, 2, 1, [3])


@pytest.mark.parametrize(
    ("account", "says"),
    [
        (Account(9, 1, 1, 0), "1 example; 0 of 1 token are learned"),
        (Account(9, 2, 5, 3), "2 examples; 3 of 5 tokens are learned"),
        (
            Account(9, 2, 9, 3, 1),
            "2 examples; 3 of 9 tokens are learned; 1 line was cut at 9 tokens",
        ),
        (
            Account(9, 4, 9, 3, 3, 2, [1, 7]),
            "4 examples; 3 of 9 tokens are learned; 3 lines were cut at 9 tokens, 2 lost every"
            " learned token: lines 1, 7",
        ),
    ],
)
def test_the_sums_are_told_in_a_sentence(account: Account, says: str) -> None:
    assert account.summary() == says


def test_only_the_first_lost_lines_are_listed() -> None:
    account = Account(max_tokens=2)
    for line in range(1, MAX_LISTED_LINES + 4):
        account.add(line, rendered("..x"))
    listed = ", ".join(str(line) for line in range(1, MAX_LISTED_LINES + 1))
    assert account.summary().endswith(f"lost every learned token: lines {listed}, and 3 more")
