"""Whether the server lets us in at all: a wrong key, model or address is told once, and not by every row.

access = Access(config)
access.learn(answer)                # of every answer
access.denied                       # why nothing will ever come, or None
"""

from __future__ import annotations

from recaption.openai.answer import Answer
from recaption.openai.client import KEY_VARIABLES, api_key, without_key
from recaption.openai.config import OpenAIConfig

#: So many refusals, before anything was answered, are no matter of the request.
REFUSALS = 5
NO_RIGHT, NOT_FOUND = (401, 402, 403), (404,)


class Access:
    """Lives in one event loop; `denied` may be read from anywhere."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._let_in = False
        self._refused = 0
        self.denied: str | None = None

    def learn(self, answer: Answer) -> None:
        """Take note of how the server answered."""
        if answer.http_status == 200:
            self._let_in = True
        elif answer.http_status in NO_RIGHT + NOT_FOUND and not self._let_in:
            self._refused += 1
            if self._refused >= REFUSALS:
                self.denied = self.denied or self._why(answer)

    def _why(self, answer: Answer) -> str:
        config = self._config
        if answer.http_status in NO_RIGHT:
            key = "the key there is not the right one" if api_key() else "no key is set"
            remedy = f"Set {' or '.join(KEY_VARIABLES)} ({key} for this server and model)"
        else:
            remedy = (
                f"Check --captioner.openai.base_url={config.base_url} (mostly it ends in /v1) and "
                f"--captioner.openai.model={config.model}"
            )
        said = " ".join((without_key(answer.error) or "").split())[:500]
        return (
            f"the server refused the first {self._refused} requests and has answered none: {said}. {remedy}, and "
            "run again: what is there is kept."
        )
