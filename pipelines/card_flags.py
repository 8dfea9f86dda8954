"""What the flags of captions mean, in the words of a dataset card."""

from __future__ import annotations

from recaption.cleaning.repeats import FLAG as REPEATED
from recaption.finish import ABSTAINED
from recaption.reading import PART, SUFFIX, TOO_LONG, TOO_SHORT, WORDS
from recaption.structured_cleaning import COPIES, FALLEN
from recaption.trust.scores import SUSPECT

_LEAST, _MOST = WORDS["dense"]
MEANINGS = {
    "world_captioner": "by the embedded captioner, which knows only the demo's world",
    ABSTAINED: "none of the clip's captions of this kind was trusted, so none is chosen",
    SUSPECT: "fits its clip much worse than its clip leads to expect: perhaps the caption of another one",
    REPEATED: "stands on more different clips than chance explains",
    "fact:camera": "contradicts the measured camera motion",
    "fact:motion": "contradicts the measured motion",
    "fact:text": "contradicts the measured text in the picture",
    TOO_SHORT: f"has fewer than the {_LEAST} words that were asked for",
    TOO_LONG: f"has more than the {_MOST} words that were asked for",
    PART: "tells of one window of a long clip; such a one is never chosen",
    SUFFIX: "measured facts were put behind what the captioner wrote",
    "repaired": "was sent back once, as its JSON did not fit",
    "second_try": "was asked for once more with another seed, as the first answer could not be used",
    COPIES: "fields that said the same were made null",
    FALLEN: "fields that could not stand were made null",
    "drop_thinking": "thinking aloud was taken out",
    "drop_control_tokens": "control tokens of the chat were taken out",
    "drop_fence": "a code fence around it was taken off",
    "drop_quotes": "quotation marks around it were taken off",
    "drop_preamble": "words before the caption were taken off (such as: here is a caption)",
    "drop_closing": "words after the caption were taken off",
    "drop_hedges": "hedges were taken out (appears to be)",
    "drop_inferences": "conclusions were taken out (suggesting joy)",
    "drop_absence": "sentences that say only what is absent were taken out",
}
