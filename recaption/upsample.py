"""Prompt upsampling: a short prompt becomes a caption in the manner of those that the model was trained on.

    upsampler = Upsampler(OpenAICaptioner(OpenAIConfig(model="Qwen/Qwen3-8B")), words=(62, 74), cache="rewrites")
    upsampler(["a red disc moves left"], variants=2)       # two Upsampled, each with another setting

A model trained on long captions draws best what is asked for at that length, as DALL·E 3 and Sora found.
Any captioner serves: it is sent text alone. A rewrite that loses or changes something of the prompt is asked for
again, and in the end the prompt is used as it stands; so it is where the backend fails. Only a server that refuses
its key or does not know its model raises, after five answers of that kind.
"""

from __future__ import annotations

import hashlib
import json
import string
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from curate.errors import BadInput
from recaption.captioner import Captioner, CaptionRequest, CaptionResult
from recaption.cleaning.clean import clean
from recaption.prompts import PromptTemplate, newest
from recaption.reading import USABLE
from recaption.upsampling.cache import UpsampleCache
from recaption.upsampling.check import CHECK_VERSION, Synonyms, what_is_lost

WORDS = (15, 80)
#: Models count badly: a rewrite may be this share longer or shorter than was asked for.
TOLERANCE = 0.25
_MARK = "\nPrompt: "
_VARIATION = (
    "Several descriptions are written for this prompt; this is number $number. Choose for it a setting, light and "
    "style of its own, other than the ones that come to mind first, wherever the prompt leaves them open."
)
_NO_FRAMES = np.zeros((0, 1, 1, 3), np.uint8)


@dataclass(frozen=True)
class Upsampled:
    """A prompt and what stands for it.

    Attributes:
        original: the prompt as it was given.
        text: what the model is to be given: the rewrite, or the prompt as it was given.
        accepted: whether `text` is the rewrite.
        reason: why the prompt was kept, or a remark on the rewrite; null if there is nothing to say.
        variant: number of the rewrite, from 0.
        seed: of the sampling that made the rewrite.
    """

    original: str
    text: str
    accepted: bool
    reason: str | None
    variant: int
    seed: int


class Upsampler:
    """Rewrites prompts by a captioner, and keeps what it made in a cache if it is given one."""

    def __init__(
        self,
        captioner: Captioner,
        words: tuple[int, int] = WORDS,
        *,
        seed: int = 0,
        tries: int = 3,
        temperature: float | None = None,
        synonyms: Synonyms | None = None,
        prompts: str | Path | None = None,
        cache: str | Path | None = None,
    ) -> None:
        """Make ready; nothing is asked yet. Raises BadInput for bounds or a prompt file that cannot be used.

        Args:
            captioner: who rewrites.
            words: least and most words to ask for.
            seed: of the sampling; each variant and each try takes one of its own from it.
            tries: most rewrites asked for of one prompt and variant.
            temperature: of the sampling; null takes the captioner's own.
            synonyms: word -> phrases that say the same, beyond plain inflections.
            prompts: folder with upsample.vN.txt; null takes ours.
            cache: folder for rewrites; null keeps none.
        """
        if not 1 <= words[0] <= words[1]:
            raise BadInput(
                f"{words[0]} to {words[1]} words cannot be asked for: give least and most, such as [15,80]."
            )
        if tries < 1:
            raise BadInput(f"{tries} tries make no rewrite: give at least 1.")
        self.captioner, self.words, self.seed, self.tries = captioner, words, seed, tries
        self.temperature, self.synonyms = temperature, dict(synonyms or {})
        self.template = newest("upsample", prompts)
        render(
            self.template, "a prompt", words, 0
        )  # a file that cannot be filled in is told before anything is asked
        self.cache = UpsampleCache(cache) if cache is not None else None

    def __call__(self, prompts: list[str], variants: int = 1) -> list[Upsampled]:
        """`variants` rewrites of each prompt: all of the first prompt, then all of the second, ..."""
        if variants < 1:
            raise BadInput(f"{variants} variants of a prompt: give at least 1.")
        wanted = [(prompt, variant) for prompt in dict.fromkeys(prompts) for variant in range(variants)]
        done: dict[tuple[str, int], Upsampled] = {}
        for prompt, variant in wanted:
            if found := self._without_asking(prompt, variant):
                done[prompt, variant] = found
        for attempt in range(self.tries):
            waiting = [key for key in wanted if key not in done]
            answers = self._ask(waiting, attempt) if waiting else {}
            for prompt, variant in waiting:
                others = {done[prompt, v].text: v for v in reversed(range(variant)) if (prompt, v) in done}
                last = attempt == self.tries - 1
                judged = self._judge(
                    prompt, variant, attempt, answers.get((prompt, variant)), others, last=last
                )
                if judged is not None:
                    done[prompt, variant] = judged
        return [done[prompt, variant] for prompt in prompts for variant in range(variants)]

    def _without_asking(self, prompt: str, variant: int) -> Upsampled | None:
        count, most = len(prompt.split()), self.words[1]
        if not count:
            return self._keep(prompt, variant, 0, "it is empty")
        if count > most:
            return self._keep(prompt, variant, 0, f"it has {count} words, a rewrite {most} at most")
        found = self.cache.read(self._key(prompt, variant)) if self.cache else None
        if found is None:
            return None
        known = Upsampled(**found)
        # A rewrite that would not pass today is as good as none.
        return None if known.accepted and self._objection(prompt, known.text) else known

    def _ask(self, waiting: list[tuple[str, int]], attempt: int) -> dict[tuple[str, int], CaptionResult]:
        requests = {
            self._key(prompt, variant): CaptionRequest(
                clip_id=self._key(prompt, variant),
                kind="rewrite",
                frames=_NO_FRAMES,
                frame_times_s=(),
                prompt=render(self.template, prompt, self.words, variant),
                seed=self._seed(variant, attempt),
                temperature=self.temperature,
            )
            for prompt, variant in waiting
        }
        results = {result.clip_id: result for result in self.captioner.caption(list(requests.values()))}
        keys = {(prompt, variant): self._key(prompt, variant) for prompt, variant in waiting}
        return {which: results[key] for which, key in keys.items() if key in results}

    def _judge(
        self,
        prompt: str,
        variant: int,
        attempt: int,
        result: CaptionResult | None,
        others: dict[str, int],
        *,
        last: bool,
    ) -> Upsampled | None:
        """What came of a try; None if another is to be made."""
        if (
            result is None or result.status == "error"
        ):  # it has tried again itself; nothing to keep for next time
            told = "it gave no answer" if result is None else result.error or "it does not say how"
            return self._keep(prompt, variant, attempt, f"the backend failed: {told}")
        cleaned = clean(result.text_raw or "", truncated=result.status == "truncated")
        status = cleaned.status if result.status in USABLE else result.status
        text = cleaned.text if status in USABLE else None
        if text is not None:
            objection = self._objection(prompt, text)
        else:
            why = ": ".join(filter(None, [status, cleaned.error or result.error]))
            objection = "is a refusal" if status == "refused" else f"cannot be used ({why})"
        same = others.get(text or "")
        if (objection or same is not None) and not last:
            return None
        if objection or text is None:
            found = self._keep(prompt, variant, attempt, f"the rewrite {objection}")
        else:
            remark = None if same is None else f"the same words as variant {same}"
            found = Upsampled(prompt, text, True, remark, variant, self._seed(variant, attempt))
        if self.cache:
            self.cache.write(self._key(prompt, variant), asdict(found))
        return found

    def _objection(self, prompt: str, text: str) -> str | None:
        count, (least, most) = len(text.split()), self.words
        if not least * (1 - TOLERANCE) <= count <= most * (1 + TOLERANCE):
            return f"has {count} words, {least} to {most} were asked for"
        return what_is_lost(prompt, text, self.synonyms)

    def _keep(self, prompt: str, variant: int, attempt: int, reason: str) -> Upsampled:
        return Upsampled(prompt, prompt, False, reason, variant, self._seed(variant, attempt))

    def _seed(self, variant: int, attempt: int) -> int:
        digest = hashlib.blake2b(f"{self.seed}/{variant}/{attempt}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") >> 1  # 31 bits: servers take no more

    def _key(self, prompt: str, variant: int) -> str:
        """32 hex digits of all that decides the rewrite."""
        identity = self.captioner.identity
        parts = [
            prompt,
            variant,
            [identity.captioner, identity.model, identity.revision, identity.sampling],
            hashlib.blake2b(f"{self.template.text}\0{_VARIATION}".encode(), digest_size=8).hexdigest(),
            self.words,
            [self.seed, self.tries, self.temperature],
            [CHECK_VERSION, self.synonyms],
        ]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def render(template: PromptTemplate, prompt: str, words: tuple[int, int], variant: int) -> str:
    """What a backend is sent. Raises BadInput if the file asks for other facts, or the prompt does not stand last."""
    number = string.Template(_VARIATION).substitute(number=variant + 1)
    facts = {"least": words[0], "most": words[1], "variation": number if variant else ""}
    one_line = " ".join(prompt.split())
    try:
        text = string.Template(template.text).substitute(facts, prompt=one_line)
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"prompt {template.prompt_id} asks for {error}; only $prompt, $least, $most and $variation are filled in "
            "(write $$ for a dollar)."
        ) from error
    if prompt_in(text) != one_line:
        raise BadInput(f"prompt {template.prompt_id} must end with the line `Prompt: $prompt`.")
    return "\n".join(line for line in text.splitlines() if line)


def prompt_in(rendered: str) -> str | None:
    """The user's prompt in what a backend was sent; None if that is something else."""
    _, mark, prompt = rendered.rpartition(_MARK)
    return prompt if mark else None
