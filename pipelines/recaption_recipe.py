"""From the configuration of `reelmill recaption` to the recipe of its captions, with everything that must fit.

recipe = make_recipe(RecaptionConfig("films.reel", kinds=("dense", "rewrite")))      # BadInput if it cannot be
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from curate.errors import BadInput
from pipelines.captioners import coca_folder, coca_identity
from recaption.cleaning.language import why_wrong_language
from recaption.coca.folder import FRAME_HEIGHT, N_FRAMES, kinds_known
from recaption.coca.tokenizer import KIND_TOKENS
from recaption.plan import Recipe
from recaption.prompts import PromptTemplate, newest

if TYPE_CHECKING:
    from pipelines.recaption import RecaptionConfig

KINDS = ("short", "dense", "structured", "rewrite")


def make_recipe(config: RecaptionConfig) -> Recipe:
    """The recipe that a configuration asks for. Raises BadInput for a captioner or kind that is not there."""
    kinds = tuple(dict.fromkeys(config.kinds))
    if not kinds or not set(kinds) <= set(KINDS):
        raise BadInput(
            f"--kinds={list(config.kinds)} must be out of {', '.join(KINDS)}: --kinds=[short,dense]."
        )
    if "rewrite" in kinds and "dense" not in kinds:
        raise BadInput("captions of kind rewrite are made from dense ones: give --kinds=[dense,rewrite].")
    check_language(config)
    backend = config.captioner.backend
    if backend == "vllm" and config.engine != "ray":
        raise BadInput("the vllm backend runs inside Ray Data: leave --engine=local out.")
    if backend == "coca":  # its prompt is one token of its own vocabulary
        if not set(kinds) <= set(KIND_TOKENS) or config.window_s is not None:
            raise BadInput(
                "the coca captioner writes short and dense captions of whole clips; for structured, rewrite or "
                "--window_s give --captioner.backend=openai or transformers."
            )
        known = kinds_known(coca_folder(config.captioner.coca))
        if known is not None and not set(kinds) <= set(known):
            raise BadInput(
                f"the captioner in {coca_folder(config.captioner.coca)} has learnt {' and '.join(known)} captions "
                f"only: give --kinds=[{','.join(known)}]."
            )
        prompts = {kind: PromptTemplate(f"coca.{kind}", KIND_TOKENS[kind]) for kind in kinds}
        identity, count, height = coca_identity(config.captioner.coca), N_FRAMES, FRAME_HEIGHT
    else:
        model = getattr(config.captioner, backend)
        windowed = ("window", "merged") if config.window_s is not None and "dense" in kinds else ()
        prompts = {kind: newest(kind, config.prompts) for kind in (*kinds, *windowed)}
        identity, count, height = model.identity(), model.frames, model.frame_height
    frames = config.frames
    frames = frames if frames.count is not None else replace(frames, count=count)
    return Recipe(identity, prompts, frames, height, config.seed, config.window_s, config.facts, config.lang)


def check_language(config: RecaptionConfig) -> None:
    """Raises BadInput for a language that is not known, or that this configuration does not ask for."""
    if config.lang == "en":
        return
    try:
        why_wrong_language("", config.lang)
    except BadInput as error:
        raise BadInput(f"--lang={config.lang}: {error}.") from error
    if config.captioner.backend == "coca" or config.prompts is None:
        raise BadInput(
            f"--lang={config.lang}: the coca captioner and our prompts are English. Give another backend, and "
            "--prompts=FOLDER with prompts that ask for that language."
        )
    if config.facts in ("suffix", "both"):
        raise BadInput(
            f"--lang={config.lang}: the words behind a caption are English; give --facts=hint or none."
        )
