"""Answers that refuse or that ask for the video, told by their first words alone.

What somebody in the clip says or what is written there may be in the first person too: a refusal needs the words
of a service (describe, assist, provide ...) or an excuse that goes on with "I".
"""

from __future__ import annotations

import re

from recaption.cleaning.sentences import Masked, sentences

_SERVICE = (
    r"(?:help|assist|describe|view|watch|access|provide|generate|create|analy[sz]e|process|comply|fulfill?|"
    r"identify|"
    r"determine|discuss|answer|write|caption|comment|open|produce|offer|share|engage|load|interpret|"
    r"recogni[sz]e|"
    r"complete|perform|summari[sz]e|continue with|make out|do (?:that|this|so)\b|"
    r"see (?:any|the|an|a|what|frames|images|pictures|videos|it)\b|tell (?:who|what|which|where|if|whether|"
    r"you)\b|"
    r"(?:support|confirm|speculate|respond))"
)
_NOT = (
    r"(?:can't|cannot|can not|could not|couldn't|won't|will not|would not|wouldn't|"
    r"(?:do not|don't)(?: want to| wish to)?|(?:won't|will not) be able to|am unable to|'m unable to|"
    r"was unable to|"
    r"(?:am|'m|was) (?:not|only) (?:able|permitted|allowed|supposed|in a position) to|wasn't able to|"
    r"am not capable of|'m not capable of|must decline to|have to (?:decline|refuse)(?: to)?|refuse to|"
    r"'d rather not|"
    r"regret that I cannot|need to)"
)
_MEDIA = r"(?:videos?|images?|frames?|clips?|footage|pictures?|file|link|attachment)"
_MISSING = r"(?:provided|attached|uploaded|included|given|sent|shared|received|found)"
_AI = (
    r"(?:AI|artificial intelligence|(?:large |text-based |purely )*(?:language |text )?model|(?:AI |"
    r"virtual )?assistant)"
)
_REFUSAL = re.compile(
    "|".join(
        (
            # An excuse, then what "I" cannot do.
            r"(?:(?:I'm|I am) (?:(?:really|very|so|truly|deeply) )?(?:sorry|afraid)|Sorry|(?:My |"
            r"Our )?[Aa]pologies|"
            r"I (?:sincerely )?apologi[sz]e|Regrettably|Unfortunately)\b(?! (?:reads|is|says|flashes)\b)"
            r"(?=[.,!]|,? but\b| that\b| I\b| about\b| for\b| to say\b)[^\"]{0,120}?\b(?:I|for me)\b",
            rf"I ?{_NOT} {_SERVICE}",
            rf"I ?(?:can't|cannot|don't|do not|am unable to|'m unable to) {_SERVICE}",
            rf"I (?:regret that I|have to (?:decline|refuse)|must (?:decline|refuse)|"
            rf"refuse to)\b(?=[ ,].*\b(?:{_SERVICE}|request|clip|as))",
            rf"I (?:do not|don't) (?:have|feel) (?:access|the (?:ability|capability|tools)|comfortable|"
            rf"any {_MEDIA})",
            r"I lack the (?:ability|capability)",
            rf"(?:I'm|I am) (?:just |only )?an? {_AI}\b",
            rf"I (?:would|will|'d) need (?:the|to see)\b[^.]*\b{_MEDIA}",
            rf"As an? {_AI},? [^.\"]*\bI\b",
            rf"As an? {_AI}, I\b",
            # No subject: "Unable to process the video."
            rf"(?:(?:Error|ERROR|Sorry)[:,.]? )?(?:[Uu]nable to|[Nn]ot able to|[Ff]ailed to|[Cc]annot|[Cc]an't|"
            rf"[Cc]ould not|[Cc]ouldn't) (?:{_SERVICE}|decode|read|display|play|retrieve|fetch)"
            rf"(?: an?| the| this| your| any)? (?:[\w-]+ ){{0,3}}?(?:{_MEDIA}|content|request|descriptions?|"
            rf"captions?)\b(?: [^,]*)?(?:[.!]|$|, (?:as|because|since|please)\b)",
            rf"(?:Error|ERROR|Failure)(?: while| when| in)? (?:processing|loading|reading|decoding|opening|"
            rf"analy[sz]ing) (?:the |this |your )?{_MEDIA}\b[^,]*$",
            # The video did not come.
            rf"(?:Unfortunately, )?(?:[Ii]t (?:seems|looks|appears)(?: like)?(?: that)? )?"
            rf"(?:[Yy]ou (?:have not|haven't|did not|didn't|forgot to) (?:{_MISSING}|provide|attach|upload|"
            rf"share|send)"
            rf"|[Nn]o (?:visual content|{_MEDIA}) (?:was|were|has been|have been) {_MISSING}"
            rf"|[Tt]he {_MEDIA}(?: (?:you|that) [\w ]{{1,20}})? (?:did not|didn't|could not be|couldn't be|"
            rf"failed to) (?:load|come|open|upload|be)"
            rf"|[Tt]he {_MEDIA} (?:was|were|is|are|has been|have been)(?: not|n't) {_MISSING})",
            rf"There (?:are|is) no {_MEDIA} (?:for me|to describe)",
            rf"(?:Please|Could you(?: please)?|Can you(?: please)?|Kindly) (?:provide|upload|share|send|"
            rf"attach)(?: me)?(?: with)? "
            rf"(?:the|a|an|your|some)(?: [\w-]+)? ?{_MEDIA}",
            r"(?:My|Our) (?:guidelines|policy|policies|programming|instructions) (?:do not|does not|don't|"
            r"doesn't|prevents?|prohibits?|forbids?)\b",
            r"(?:This|The|Your) (?:request|content|video|clip|prompt) (?:goes against|violates|is against|"
            r"may violate) (?:my|our|the)\b",
        )
    )
)
# In the first sentence, whatever its form: "There was an error, and I cannot see the frames".
_FIRST_PERSON = re.compile(r"\b(?:I|I'm|I'd|I've)\b|\bfor me\b|\ballow me\b")
_DENIED = re.compile(
    r"\b(?:not|cannot|unable|sorry|apolog\w+|unfortunately|decline|refuse|none|no|only|lack|beyond|"
    r"appropriate|impossible)\b|n't\b",
    flags=re.I,
)
_TOPIC = re.compile(
    r"\b(?:describ\w+|descriptions?|captions?|videos?|clips?|images?|frames?|footage|pictures?|help|assist|"
    r"provide|requests?|"
    r"content|visuals?|view|watch|analy[sz]e|identify|text)\b",
    flags=re.I,
)
_SAID = re.compile(
    r"\b(?:says?|reads?|shouts?|asks?|mouths|whispers|title|subtitle|bubble|sign|slogan|shirt|(?:written|"
    r"printed|painted|carved|sprayed|"
    r"embroidered))\b"
)
_YOURS = re.compile(
    rf"\b{_MEDIA}\b.*\b(?:your (?:message|request|question)|you (?:want|sent|mention|provided|uploaded|"
    rf"would))\b",
)
_NOT_THERE = re.compile(
    rf"(?:(?:[Uu]nfortunately|[Rr]egrettably),? )?(?:[Ii]t (?:seems|looks|"
    rf"appears)(?: like)?(?: that)? )?[Tt]he {_MEDIA} "
    rf"(?:is|are|was|were|could|did|has|have)(?: been| be)?(?: not|n't)?(?: been| be)? ?(?:missing|"
    rf"{_MISSING}|load(?:ed)?|opened|processed|analy[sz]ed|decoded|accessed|retrieved|played|"
    r"described)\b[^,]*[.]?\s*"
)


def is_refusal(text: str) -> bool:
    """First person at the start only: what somebody in the clip says stays."""
    if _REFUSAL.match(text):
        return True
    first = Masked((sentences(text) or [""])[0]).text
    if _SAID.search(first):
        return False
    if _FIRST_PERSON.search(first) and _DENIED.search(first) and _TOPIC.search(first):
        return True
    return bool(_YOURS.search(first) or _NOT_THERE.fullmatch(first))
