"""Tokens of lines, by a base's own tokenizer and template, as training will cut and learn them."""

from array import array
from collections.abc import Mapping
from typing import Any

from tunery.datasets.account import Counted, counted
from tunery.datasets.preferences import sides_of
from tunery.datasets.preparing.findings import Finding, Places, Sample, Severity, lines_text
from tunery.datasets.preparing.spread import Spread
from tunery.datasets.preparing.views import LineView
from tunery.datasets.rendering import ChatRenderer


class TokenCounts:
    """Counts the tokens of lines for one base.

    `kept` and `learned` have a number for each index: tokens before the cut, and those of them
    that are learned; 0 for lines that were not counted.
    """

    def __init__(self, renderer: ChatRenderer, base: str, max_tokens: int) -> None:
        self._renderer = renderer
        self.base = base
        self.max_tokens = max_tokens
        self.kept, self.learned = array("I"), array("I")
        self.tokens, self.learned_tokens = Spread(), Spread()
        self.is_lost = bytearray()  # 1 where the cut leaves nothing to learn
        self._cut, self._lost = Sample(), Sample()

    def see(self, index: int, line: LineView) -> None:
        """Count a line; raise InvalidRequest where the base's template refuses it."""
        one = self._counted(line.line)
        while len(self.kept) < index:
            self.kept.append(0)
            self.learned.append(0)
            self.is_lost.append(0)
        self.kept.append(one.kept)
        self.learned.append(one.learned)
        self.is_lost.append(not one.learned)
        self.tokens.add(one.whole)
        self.learned_tokens.add(one.learned)
        if not one.learned:
            self._lost.add(index, f"{one.whole:,} tokens")
        elif one.kept < one.whole:
            self._cut.add(index, f"{one.whole:,} tokens, {one.lost:,} lost that were to be learned")

    def count(self, line: Mapping[str, Any]) -> tuple[int, int]:
        """Return a fit line's tokens before the cut, and those of them that are learned."""
        one = self._counted(line)
        return one.kept, one.learned

    def _counted(self, line: Mapping[str, Any]) -> Counted:
        return counted([self._renderer.line(side) for side in sides_of(line)], self.max_tokens)

    def findings(self, places: Places) -> list[Finding]:
        """Return what was found."""
        found = []
        if self._lost.count:
            count = self._lost.count
            found.append(
                Finding(
                    "nothing_learned",
                    Severity.RECOMMENDED,
                    f"{lines_text(count)} {'teaches' if count == 1 else 'teach'} nothing: all that"
                    f" is to be learned stands behind token {self.max_tokens:,}, where"
                    f" {self.base} cuts.",
                    count,
                    places(self._lost),
                    f"Remove {lines_text(count)} of which nothing is left to learn",
                )
            )
        if self._cut.count:
            count = self._cut.count
            found.append(
                Finding(
                    "truncated_lines",
                    Severity.NOTICE,
                    f"{lines_text(count)} {'is' if count == 1 else 'are'} longer than"
                    f" {self.max_tokens:,} tokens and will be cut there.",
                    count,
                    places(self._cut),
                )
            )
        return found
