"""How many tokens of prompts a step takes: as many as there is time for. Knows no row.

Every token of a prompt holds up the texts that are being made beside it. What a token costs is
learned from the steps themselves.
"""

LEAST = 16
"""Tokens of prompts that a step takes in any case, so that no prompt waits for ever."""
_SHARE = 1.5  # of the time that the tokens being made take alone
_FIXED = 6.0  # times what a step costs in any case: shorter ones would mostly pay that
_NEWEST = 0.3  # the weight of the last step in what a token is thought to cost


class Pace:
    """Keeps steps that also make tokens within `step_s` seconds.

    Where making the tokens alone takes longer than that, prompts may add half of it, and no step
    need be shorter than six times what the least one takes. A step that makes no token takes
    `most` tokens of prompts.
    """

    def __init__(self, most: int, step_s: float, least_s: float = 0.0) -> None:
        """`least_s` is what a step of next to nothing takes, where that is known."""
        self._most = most
        self._least_allowed_s = max(step_s, _FIXED * least_s)
        self._token_s = 0.0
        self._budget = LEAST

    def budget(self, decoding: int) -> int:
        """Return how many tokens of prompts the next step may take beside so many being made."""
        return min(self._most, self._budget) if decoding else self._most

    def took(self, seconds: float, decoding: int, prompt: int) -> None:
        """Learn from a step: its time, and its tokens that were made and of prompts."""
        rows = decoding + prompt
        if prompt >= LEAST:
            cost = seconds / rows
            weight = _NEWEST if self._token_s else 1.0
            self._token_s += weight * (cost - self._token_s)
        if not self._token_s:
            return
        alone = seconds * decoding / rows
        allowed = max(self._least_allowed_s, _SHARE * alone)
        more = round((allowed - seconds) / self._token_s)
        self._budget = max(LEAST, prompt + more)
