"""Conclusions from what is seen: "This suggests that it is happy.", ", suggesting a busy day".

    drop_inferences("A dog wags its tail, suggesting joy. This implies a walk.")   # "A dog wags its tail."

The subject tells a conclusion from an act: an expression suggests something in the caption's mind, a waiter suggests
a dish in the picture. A dial that indicates 30 degrees stays.
"""

from __future__ import annotations

import re

from recaption.cleaning.sentences import Masked, capital, sentence_by_sentence

_HOW = r"(?:(?:strongly|further|also|all|both|together|clearly|subtly|possibly|perhaps|likely|may|might|could|would) )*"
_SUGGESTS = (
    rf"{_HOW}(?:suggests?|impl(?:y|ies)|hints? (?:at|that)|(?:indicates?|means?|shows?) that|"
    r"indicates? (?:an?|some) (?:possible|potential|likely|sense))\b"
)
_CLUE = (
    r"(?:expressions?|postures?|stances?|body language|gestures?|demeanou?rs?|looks?|attire|clothing|clothes|"
    r"outfits?|uniforms?|light|lighting|shadows?|sky|sunlight|weather|setting|scenes?|environment|surroundings|"
    r"background|atmosphere|mood|tone|decor|décor|decorations?|furnishings|furniture|architecture|presence|"
    r"absence|lack|context|styles?|colou?rs?|palette|angles?|movements?|motion|positions?|positioning|placement|"
    r"arrangement|appearance|details?|elements?|equipment|quality|blur|perspective|composition|vegetation|"
    r"foliage|landscape|layout|design|condition|state|smiles?|action|actions|behaviou?r|pace|focus|faces?|eyes|eyebrows|mouth)"
)
_SUBJECT = (
    rf"(?=[^.]*\b{_CLUE}\b[^.]*\b(?:suggest|impl|hint|indicat))(?:the|this|these|his|her|its|their|an?|both|such)\b"
    r"(?:(?!\b(?:that|which|who|is|are|was|were|as|while|when|he|she|they)\b)[^;]){1,120}?"
)
_NEW_SUBJECT = r"(?:the|an?|his|her|its|their|another|two|three|several|he|she|it|they|is|are)\b"
_SENTENCE = re.compile(
    r"(?:and |overall, |together, )?"
    rf"(?:(?:(?:all (?:of )?)?(?:this|that|these|it) {_SUGGESTS}"
    r"|(?:it|this) can be (?:inferred|assumed|deduced|concluded)\b|(?:this|it) gives? the impression that\b).*"
    rf"|{_SUBJECT} {_SUGGESTS}(?:(?!, (?:and|but|while|as) {_NEW_SUBJECT})[^;])*)",
    flags=re.I,
)
_ADVERBS = r"(?:(?:likely|possibly|perhaps|probably|presumably|clearly|strongly|further|all) )*"
_CLAUSE = re.compile(
    rf", (?:(?:and )?{_ADVERBS}(?:suggesting|implying|hinting (?:at|that)|indicating (?:that|it|he|she|they|(?:an?|"
    rf"some) (?:possible|potential|likely)))|which {_SUGGESTS})\b"
    rf"(?:[^,;.()]|\.(?=\d)|,(?! (?:and|but|while|as|with|where|which|who) {_NEW_SUBJECT}))*"
    r"(?P<after>,(?= )|(?=[.;!)]|$))"
)


def drop_inferences(text: str) -> str:
    """The text without the sentences and clauses that tell what the picture suggests."""
    return sentence_by_sentence(text, _one)


def _one(sentence: str) -> str:
    masked = Masked(sentence)
    text = masked.text
    if found := _SENTENCE.match(text):
        text = capital(re.sub(r"^, \w+ ", "", text[found.end() :]))
    text = _CLAUSE.sub(lambda found: found["after"], text)
    return sentence if text == masked.text else masked.unmask(text)
