"""What is raised where an answer breaks the contract."""

from _pytest.outcomes import Failed


class ContractBroken(Failed):
    """An answer is not what OpenAI's contract says.

    Not an Exception: the SDK turns every Exception of its HTTP client into a connection error, and
    a test that waits for one of those must not be satisfied by this.
    """
