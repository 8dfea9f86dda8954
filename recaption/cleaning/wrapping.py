"""What captioners put around a caption: reasoning, code fences, quotation marks, words to the one who asked.

Each rule takes a text and returns it without its wrapping, or as it is.
"""

from __future__ import annotations

import re

from recaption.cleaning.sentences import Masked, capital, sentences

_TAG = r"(?:think|thinking|thought|reasoning|reflection|scratchpad|analysis)"
_OPEN = rf"(?<!\")(?:<{_TAG}>|<\|begin_of_thought\|>|◁think▷)(?!\")"
_CLOSE = rf"(?<!\")(?:</{_TAG}>|<\|end_of_thought\|>|◁/think▷)(?!\")"
_FENCE = re.compile(r"(`{3,}|~{3,})(?:[\w-]*\n)?(.*?)\n?(?:\s*\1)?", flags=re.S)
_AROUND = [
    re.compile(pattern, flags=re.S)
    for pattern in (
        r'"((?:[^"]|(?<=[\s(])"[^"]+"(?=[\s.,;:!?)]|$))*)"',
        r"'(?!tis\b|twas\b|round\b|cause\b|til\b|em\b)((?:[^']|(?<=\w)'(?=\w))*)'",
        r"«([^«»]*)»",
        r"`([^`]*)`",
        r"(?:\*{1,3})([^*\n]+)(?:\*{1,3})",
        r"(?:_{1,3})([^_\n]+)(?:_{1,3})",
    )
]


def drop_thinking(text: str) -> str:
    """The answer after a model's reasoning; reasoning that was cut off leaves nothing."""
    text = re.sub(rf"{_OPEN}.*?{_CLOSE}", "", text, flags=re.S | re.I)
    text = re.sub(rf"^.*{_CLOSE}", "", text, flags=re.S | re.I)  # some servers swallow the opening tag
    text = re.sub(rf"^\s*{_OPEN}.*$", "", text, flags=re.S | re.I)
    found = re.fullmatch(r"\s*<answer>(.*?)(?:</answer>)?\s*", text, flags=re.S | re.I)
    return found[1] if found else text


def drop_fence(text: str) -> str:
    """The inside of a code fence around the whole text."""
    found = _FENCE.fullmatch(text.strip())
    return found[2] if found else text


def drop_quotes(text: str) -> str:
    """The inside of quotation marks or of marks of emphasis around the whole text."""
    for pattern in _AROUND:
        if found := pattern.fullmatch(text.strip()):
            return found[1]
    return text


_NUMBER = r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten|sixteen)"
_PLAIN_WORD = (
    r"(?:short|brief|given|provided|entire|whole|full|present|current|following|attached|uploaded|video|"
    r"particular|first|last|final|"
    rf"(?:sequence|series|set) of|{_NUMBER}(?:[- ](?:seconds?|frames?))?|{_NUMBER}-second(?:-long)?)"
)
# Never "aerial", "animated", "black-and-white": such words are part of the caption.
_MEDIUM = (
    rf"(?:the|this|these|your) (?:{_PLAIN_WORD} )*"
    r"(?:(?:video|film)(?: (?:clip|sequence|footage|segment|frames?))?|clip|footage|images?|scene|frames?|"
    r"sequence|shot|"
    r"picture|recording|snippet)(?: (?:you )?(?:have )?(?:provided|sent|shared|uploaded|given))?"
)
_SHOWS = (
    r"(?:(?:primarily|mainly|mostly|clearly|simply) )?(?:shows?|depicts?|features?|captures?|displays?|"
    r"presents?|showcases?|illustrates?|portrays?|highlights?|contains?|"
    r"documents?|demonstrates?|focus(?:es)? on|consists? of|is (?:about|of)|(?:begins?|opens?|"
    r"starts?)(?: off)? (?:with|on))(?: us)?"
)
_SEEN = (
    r"(?:(?:we|you|one)(?: can)? (?:see|sees|observe|observes)(?: that)?|what (?:we|you)(?: can)? see is|"
    r"we are shown|it can be seen that|it is shown that)"
)
_WHAT = r"(?:[\w-]+ ){0,4}?(?:caption|description|summary|sentence|paragraph|answer|response|version)"
_LABEL = (
    r"(?:(?:the|my|short|dense|brief|detailed|final|video|clip|image|scene|suggested|one-sentence) )*"
    r"(?:caption|description|answer|output|summary|response|title)(?: (?:for|of) (?:the|this) (?:video|"
    r"clip|image|scene|frames))?"
)
_AGREEING = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|all right|great|gladly|understood|"
    r"got it|yes|"
    r"no problem|yes, of course)"
)
# Talk before the caption begins: "Okay, so", "Alright, let's see."
_FILLER = (
    rf"(?:(?:(?:{_AGREEING}|well|right|so|now|hmm)[,.!:]* )+|(?:{_AGREEING}[,.!:]* )?(?:so,? )?let(?:'s| me) "
    r"(?:see|look|take a look|describe|analy[sz]e|break|start)\b[^.:!\n\"]{0,60}[.:!]\s+)"
)
_TOPIC = r"(?:video|clip|footage|frames?|images?|scene)"
# "In the picture the man holds up, a dog is visible": a picture in the picture.
_HELD_UP = (
    r"(?:an?|the|his|her) (?:(?!(?:an?|the|his|her|its|their|two|three)\b)[\w'-]+ ){1,4}?[\w'-]+"
    r"(?: (?:in|on|at|above|over|behind|to|from|of|with|for) (?:an?|the|his|her) [\w'-]+)?, "
    r"(?:an?|the|his|her|its|two|three|four|several|some|many|there|people)\b"
)
_PREAMBLE = re.compile(
    "|".join(
        (
            rf"{_FILLER}(?={_MEDIUM} {_SHOWS}\b|in {_MEDIUM}\b|here(?:'s| is| are) |this is (?:an?|the) |(?:based on|"
            rf"from|according to) {_MEDIUM}\b|{_SEEN}\b)",
            rf"{_FILLER}(?:we have|I (?:can )?see)\s+(?=(?:an?|the|two|three|several|some|many)\s)",
            rf"(?:{_AGREEING}[,.!:]* )?(?:so,? )?let(?:'s| me) [^.:!\n\"]{{0,40}}\b{_TOPIC}\b[^.:!\n\"]{{0,30}}"
            r"[.:!]\s+",
            rf"[*_#\s]*(?:\[{_LABEL}\]|\({_LABEL}\)|【{_LABEL}】|<{_LABEL}>)[*_ ]*:?[*_]*\s*(?=[\w\"'*_])"
            r"(?!(?:is|are|appears?|reads?|flash(?:es)?|blinks?)\b)",
            rf"{_AGREEING}[!.]+\s+(?=[A-Z\"*#<`_])|{_AGREEING}:\s+(?-i:(?=[A-Z\"*#<`_]))",
            rf"{_AGREEING}[!.,]+ (?-i:I)\b[^.:!\n\"]{{0,60}}[.:!]\s*",
            rf"{_AGREEING}(?:[!.:,]+\s+(?=(?:below|the|this|in)\b)|[!.:,]*\s+(?=here(?:'s| is| are)\b))",
            rf"here(?:'s| is| are) {_WHAT}\b[^.:\n]{{0,80}}(?::\s*|\.?\s*\n+)",
            rf"(?:{_AGREEING}[!,.:]+ )?here you (?:go|are)[:!.]\s*|here(?:'s| is) what (?:happens|is shown|"
            rf"can be seen|i see)\b[^.:\n]{{0,60}}:\s*",
            rf"below (?:is|you (?:can|will) find) {_WHAT}\b[^.:\n]{{0,80}}:\s*",
            rf"the following (?:is {_WHAT}|{_WHAT} describes?)\b[^.:\n]{{0,80}}:\s*",
            rf"[*_#\s]*{_LABEL}(?: is)?[*_ ]*:[*_]*\s*",
            rf"(?:#+ *|\*\*){_LABEL}(?:\*\*)? *\n+",
            rf"(?:based on|from|according to|judging by|judging from|across|throughout|as (?:seen|"
            rf"shown) in) {_MEDIUM},\s*"
            rf"(?:{_SEEN}\s+)?",
            rf"in {_MEDIUM}(?:,\s*(?:{_SEEN}\s+)?|\s+{_SEEN}\s+|\s+(?=(?:an?|the)\s)(?!{_HELD_UP}))",
            rf"{_SEEN}\s+(?=(?:an?|the|two|three|several|some|many)\s)|(?:we|you|one) can see\s+|"
            rf"what (?:we|you)(?: can)? see is\s+",
            rf"(?!the (?:frames?|pictures?|scene) {_SHOWS} (?!an?\b|the\b|two\b|three\b|several\b|some\b|"
            rf"many\b))"
            rf"{_MEDIUM} {_SHOWS}\s+(?:that\s+)?(?:a scene (?:of|where|in which|with)\s+)?(?!its\b|their\b|"
            rf"that\b)",
            rf"(?:this is |these are )(?:an? |the )?(?:{_PLAIN_WORD} )*(?:footage|video|clip|images?|"
            rf"frames?) (?:of|showing) ",
            r"(?![^.]* (?:plays?|is shown|is projected|runs|hangs|glows|loops) (?:on|in|at|behind|above|"
            r"beside)\b)"
            r"an? (?:(?:short |brief )*video(?: clip)?|(?:short |brief )+clip) (?:of|showing|that shows|"
            r"which shows|depicting) ",
            r"an? clip (?:of|showing|that shows) (?=(?:an?|the|two|three|four|several|some|many|people)\s)",
        )
    ),
    flags=re.I,
)


def drop_preamble(text: str) -> str:
    """`Here is a caption:`, `The video shows` and their like at the start; the rest gets its capital back."""
    rest = text
    while found := _PREAMBLE.match(rest):
        rest = rest[found.end() :]
    if rest == text or not rest:
        return rest
    return capital(rest) if text.lstrip("*#_ ")[:1].isupper() else rest


# Words to the asker, from the start of a sentence.
_CLOSING = re.compile(
    r"[\s*_(\[–—-]*(?:"
    r"(?:please )?(?:let me|tell me|feel free|don't hesitate|do not hesitate)\b|(?:i )?hope (?:this|that|"
    r"it)\b|"
    r"(?:would|do|did|should|may) you\b|is this what you\b|(?:shall|should|can|may|could) i\b|"
    r"is there anything\b|happy to (?:help|assist)\b|"
    r"if you\b[^.!?]*\b(?:ask|know|i|i'd|i'll|i'm|share|send|me|free)\b|thank(?:s| you) for\b|"
    r"have a (?:nice|great|good)\b|enjoy[!.]*$|"
    r"(?:please )?note(?: that|:)?[*_:]*\s.*\b(?:caption|description|described?|frames|images)\b|"
    r"as (?:requested|instructed)\b|"
    r"(?:this|the above|my) (?:caption|description|summary)\b|this is (?:the|an?|"
    r"my) (?:[\w-]+ )?(?:caption|description|summary)\b|"
    r"the (?:caption|description|summary)(?: above)? (?:above|is|was|relies|captures|\w+ly|describes|"
    r"covers|summari[sz]es|follows)\b|"
    r"i(?:'d| would|'m| am) (?:be )?(?:happy|glad)\b|(?:that's|that is|this is) all\b|(?:word count|"
    r"total words|(?:approximately |about |around )?\d+ words)\b|"
    r"(?:end of (?:the )?(?:caption|description)|(?:caption|description) ends)\b)",
    flags=re.I,
)
_FIRST_PERSON = re.compile(r"\bI(?:'m|'ve|'d|'ll)?\b")
_TO_THE_ASKER = (
    r"\b(?:frames|images?|videos?|clips?|captions?|descriptions?|version|details?|you|your|help|helps)\b"
)
_SAID = re.compile(r", (?:says?|reads?|shouts?|asks?)\b|\b(?:reads?|says?)\b[:,]? ")
_ABOUT_ITSELF = re.compile(r"the (?:caption|description|summary)", flags=re.I)


def drop_closing(text: str) -> str:
    """Offers and remarks to the one who asked, behind the caption: `I hope this helps!`, `(Word count: 84)`."""
    while True:
        lines = text.rstrip().rsplit("\n", 1)
        last = (sentences(lines[-1]) or [""])[-1]
        if not _is_closing(last):
            return text
        text = text.rstrip()[: -len(last)] if last else text
        text = text.rstrip()


def _is_closing(sentence: str) -> bool:
    masked = Masked(sentence).text
    if _SAID.search(masked):
        return False
    if _FIRST_PERSON.search(masked) and re.search(_TO_THE_ASKER, masked):
        return True
    if not _CLOSING.match(masked):
        return False
    # "The description under the painting is set in gold" is of something in the picture.
    about = _ABOUT_ITSELF.match(masked.lstrip("*_([ "))
    return not about or bool(
        re.search(r"\b(?:frames|images?|video|clip|visible|useful|above|your)\b", masked)
    )
