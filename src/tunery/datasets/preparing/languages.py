"""Which language a text is in: by its script, and of Latin letters by its commonest words.

Enough to see that a file mixes languages, and where an answer's is not the question's. It does not
know every language, and says so of a text by naming none.
"""

import re
from collections import Counter

from tunery.datasets.preparing.findings import Finding, Places, Sample, Severity, lines_text
from tunery.datasets.preparing.views import LineView

_LOOKED_AT = 100  # characters
_LEAST_HITS = "2"
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),  # before Chinese, whose characters it also has
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("uk", re.compile("[іїєґ]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
_NOT_LATIN = re.compile("[\u0370-\u0fff\u3040-\uffff]")
_COMMON = {
    "en": "the of and to in is that it for you with on are this be have not what your can please"
    " how my from was at",
    "de": "der die das und ist nicht ich sie ein eine zu mit auf für den dem des von es wie kann"
    " bitte im auch wird haben mein",
    "fr": "le la les des et est une un pas vous je que dans pour il ce sur avec qui au votre mon"
    " ne du nous ma",
    "es": "el la los las que es en un una por con para no se del su como mi pero más está al lo"
    " usted hola puede",
    "it": "il la che di non è un una per con sono del della mi si le gli ma come anche ho nel"
    " questo al grazie",
    "pt": "o a os as que não é um uma para com em do da no na por se mas como meu minha você está"
    " ao mais",
    "nl": "de het een en van is niet dat ik je met op voor zijn er aan maar ook te wat mijn kan"
    " hoe naar",
    "sv": "och att det är en som på för inte jag med av den till har kan ett du min hur vad om",
    "da": "og at det er en som på for ikke jeg med af den til har kan et du min hvordan hvad om"
    " der",
    "pl": "i w na nie to się jest że do z jak co mam czy dla po ale moje mój proszę od jestem",
    "cs": "a je se na to že v s z do jsem jak pro ale není co mám by za tak prosím můj",
    "tr": "ve bir bu için ne ben çok mı mi nasıl değil var ama da de ile olarak daha kadar",  # noqa: RUF001 - letters of Turkish
    "fi": "ja on ei se että en olen mutta kun niin minun voi miten mitä ole jos tai tämä",
}
_NAMES = tuple(_COMMON)
# Of each word, a hexadecimal digit a language, 1 where it is common there: a sum of them counts for
# all languages at once. Of 13 languages it fits a machine's word; 100 characters have fewer than 16
# different common words.
_HITS: dict[str, int] = {}
for _place, _words in enumerate(reversed(_COMMON.values())):
    for _word in dict.fromkeys(_words.split()):
        _HITS[_word] = _HITS.get(_word, 0) + (1 << 4 * _place)


def language_of(text: str) -> str | None:
    """Return a text's language by its two letters, or None where nothing tells."""
    start = text[:_LOOKED_AT]
    if not start.isascii() and _NOT_LATIN.search(start):
        for name, letters in _SCRIPTS:
            if letters.search(start):
                return name
    total = sum(map(_HITS.__getitem__, _HITS.keys() & start.lower().split()))
    if not total:
        return None
    hits = f"{total:0{len(_NAMES)}x}"
    most = max(hits)
    if most < _LEAST_HITS or hits.count(most) > 1:
        return None
    return _NAMES[hits.index(most)]


class Languages:
    """Counts languages of questions and answers; `pairs` is how often each went with each."""

    def __init__(self) -> None:
        self.pairs: Counter[tuple[str, str]] = Counter()
        self._others = Sample()

    def see(self, index: int, line: LineView) -> None:
        """Look at a line."""
        asked, answered = language_of(line.user_text), language_of(line.answer_text)
        self.pairs[asked or "?", answered or "?"] += 1
        if asked is not None and answered is not None and asked != answered:
            self._others.add(index, f"asked in {asked}, answered in {answered}")

    def findings(self, places: Places) -> list[Finding]:
        """Return what was found."""
        found = []
        answers: Counter[str] = Counter()
        for (_, answered), count in self.pairs.items():
            if answered != "?":
                answers[answered] += count
        if len(answers) > 1:
            shares = ", ".join(f"{name} {count:,}" for name, count in answers.most_common(8))
            found.append(
                Finding(
                    "language_mix",
                    Severity.NOTICE,
                    f"Answers are in {len(answers)} languages: {shares}.",
                    sum(answers.values()) - answers.most_common(1)[0][1],
                    data={"answers": dict(answers.most_common())},
                )
            )
        if self._others.count:
            count = self._others.count
            found.append(
                Finding(
                    "language_changes",
                    Severity.NOTICE,
                    f"{lines_text(count)} {'is' if count == 1 else 'are'} answered in another"
                    " language than the question's.",
                    count,
                    places(self._others),
                )
            )
        return found
