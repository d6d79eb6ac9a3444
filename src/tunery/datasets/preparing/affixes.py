"""What all texts of a file begin and end with, spaces around them, and capitals only."""

from tunery.datasets.preparing.findings import Finding, Places, Sample, Severity, lines_text
from tunery.datasets.preparing.views import LineView
from tunery.domain.files import LineFormat

SEPARATOR = "\n\n###\n\n"  # of OpenAI's tool
_LEAST_LINES = 5
_LEAST_CHARACTERS = 12  # of a question's beginning that is worth a word
_THIRD = 3


def _common(one: str, other: str) -> str:
    """Return what both begin with."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return one[:place]
    return min(one, other, key=len)


class _Common:
    """What all texts so far begin or end with."""

    def __init__(self, *, end: bool) -> None:
        self._end = end
        self._text: str | None = None

    def see(self, text: str) -> None:
        known = self._text
        if known is None:
            self._text = text
        elif self._end:
            if not text.endswith(known):
                self._text = _common(known[::-1], text[::-1])[::-1]
        elif not text.startswith(known):
            self._text = _common(known, text)

    @property
    def text(self) -> str:
        return self._text or ""


class Affixes:
    """Looks at how questions and answers begin and end.

    Of prompts and completions, which are raw text, it recommends what OpenAI's tool does. But for
    an end of completions: here, a token that ends the answer is learned.
    """

    def __init__(self) -> None:
        self._asked = _Common(end=False), _Common(end=True)
        self._answered = _Common(end=False), _Common(end=True)
        self._watched = True  # as long as there is anything in common
        self._lines = self._pairs = self._loud = self._chats = 0
        self._prompted = False
        self._spaced, self._unspaced = Sample(), Sample()

    def see(self, index: int, line: LineView) -> None:
        """Look at a line."""
        self._lines += 1
        answer = line.answer_text
        if self._watched:
            self._compare(line.user_text, answer)
        if line.kind is LineFormat.COMPLETION:
            self._pairs += 1
            self._prompted = self._prompted or bool(line.asked)
            if not answer[0].isspace():
                self._unspaced.add(index)
        elif line.kind is LineFormat.CHAT:
            self._chats += 1
            if answer and (answer[0].isspace() or answer[-1].isspace()):
                self._spaced.add(index)
        if answer.isupper() and len(answer) > _LEAST_CHARACTERS:
            self._loud += 1

    def _compare(self, asked: str, answer: str) -> None:
        for commons, text in ((self._asked, asked), (self._answered, answer)):
            for common in commons:
                common.see(text)
        self._watched = any(common.text for common in (*self._asked, *self._answered))

    @property
    def separator(self) -> str:
        """Return what every prompt ends with, or nothing."""
        text = self._asked[1].text
        return text if self._pairs and not text.isalnum() else ""

    def completion_prefix(self) -> str:
        """Return what every completion begins with besides a space, or nothing."""
        text = self._answered[0].text if self._pairs and self._lines >= _LEAST_LINES else ""
        kept = text.lstrip()
        every_text = self._answered[1].text
        return "" if not kept or text == every_text else kept

    def findings(self, places: Places) -> list[Finding]:
        """Return what was found."""
        found = self._of_pairs(places) if self._pairs else self._of_chats(places)
        if self._loud * _THIRD > self._lines:
            found.append(
                Finding(
                    "upper_case",
                    Severity.NOTICE,
                    f"{lines_text(self._loud, 'answer')} are in capitals only: models know a mix"
                    " of small and capital letters better.",
                    self._loud,
                )
            )
        return found

    def _of_chats(self, places: Places) -> list[Finding]:
        found = []
        if self._spaced.count:
            count = self._spaced.count
            found.append(
                Finding(
                    "space_around_answers",
                    Severity.RECOMMENDED,
                    f"{lines_text(count, 'answer')} {'begins' if count == 1 else 'begin'} or end"
                    " with white space, which would be learned.",
                    count,
                    places(self._spaced),
                    f"Take white space off {lines_text(count, 'answer')}",
                )
            )
        prefix = self._asked[0].text
        if self._lines >= _LEAST_LINES and len(prefix.strip()) >= _LEAST_CHARACTERS:
            found.append(
                Finding(
                    "common_question_start",
                    Severity.NOTICE,
                    f"Every question begins with {_shown(prefix)}: once that is learned, it can be"
                    " left out, of training and of requests alike.",
                    self._lines,
                )
            )
        return found

    def _of_pairs(self, places: Places) -> list[Finding]:
        found = []
        if self._prompted and self._lines >= _LEAST_LINES and not self.separator:
            found.append(
                Finding(
                    "prompt_separator",
                    Severity.RECOMMENDED,
                    "Prompts do not end alike: nothing tells where the completion is to begin.",
                    self._pairs,
                    fix=f"Add the separator {SEPARATOR!r} to every prompt",
                )
            )
        prefix = self.completion_prefix()
        if prefix:
            found.append(
                Finding(
                    "common_completion_start",
                    Severity.RECOMMENDED,
                    f"Every completion begins with {_shown(prefix)}, which tells them nothing.",
                    self._pairs,
                    fix=f"Take {_shown(prefix)} off every completion",
                )
            )
        if self._unspaced.count and self._prompted:
            count = self._unspaced.count
            found.append(
                Finding(
                    "completion_space",
                    Severity.RECOMMENDED,
                    f"{lines_text(count, 'completion')} {'does' if count == 1 else 'do'} not begin"
                    " with a space, which the tokens of most words have.",
                    count,
                    places(self._unspaced),
                    f"Put a space before {lines_text(count, 'completion')}",
                )
            )
        return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
