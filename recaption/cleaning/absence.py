"""Sentences and clauses that only say what is absent: "No people are visible", ", with no text in sight".

A text encoder reads "no people" as people, so they go. What stays: motion that does not happen ("the camera does
not move", "no camera movement is visible"), attributes ("a man with no shirt", "there are no leaves on the trees"),
signs ("No parking signs"), exceptions ("no text except the word SALE"), and whatever is quoted.
"""

from __future__ import annotations

import re

from recaption.cleaning.sentences import Masked, capital, sentence_by_sentence

_STAYS = re.compile(
    r"\b(?:motions?|movements?|moves?|moving|camera|panning|pan|tilt|zoom|cuts?|transitions?|shake|wind|"
    r"except|apart from|other than|besides|"
    r"aside from|save for|"
    r"but an?|but the|but it|but they|but he|but she|and it|and they|and he|and she|until|so|because|since|"
    r"which|who|reads|while|when|once|before|after|as (?:an?|the|it|he|she|they|his|her|its|their)|"
    r"no (?:parking|smoking|entry|trespassing|swimming|fishing|diving|stopping|waiting|littering|hunting|"
    r"loitering|dumping|"
    r"camping|cycling|u-turn|vacancy|exit|photography)\b[\w ]* (?:signs?|notices?|boards?|plates?))\b|;|: |"
    r", (?:only|just)\b",
    flags=re.I,
)
_PERCEIVED = (
    r"(?:(?:clearly |readily |immediately |otherwise |directly )?(?:visible|present|seen|shown|discernible|"
    r"legible|readable|"
    r"recogni[sz]able|identifiable|noticeable|apparent|evident|depicted|displayed|included|indicated|"
    r"mentioned|provided|given|"
    r"available|detected|spotted|observed|heard|audible|distinguishable)|in sight|in view|to be seen|anywhere)"
)
_WHERE = (
    r"(?:in frame|in the vicinity|in the (?:frame|scene|video|clip|shot|picture|image|background|foreground)|"
    r"around|nearby)"
)
_VISIBLE = rf"(?:{_PERCEIVED}|{_WHERE})"
_CAN_BE = (
    r"(?:can|could) be (?:seen|heard|identified|spotted|found|made out|discerned|observed|read|detected|"
    r"noticed|recogni[sz]ed|"
    r"distinguished)"
)
_TEXTS = (
    r"(?:text|texts|logos?|people|persons|watermarks?|brands?|brand names|branding|subtitles|captions|"
    r"writing)(?: or \w+)?"
)
_MEDIUM = r"(?:video|clip|footage|scene|image|frames?|picture|shot|sequence)"
_THERE = (
    r"there(?: do| does)(?: not|n't) (?:appear|seem) to be any(?:one|body|thing)?\b|there(?:'s| is| are|'re| was|"
    r" were)(?: also| clearly| absolutely)? (?:no\b|nothing\b|nobody\b|not any(?:one|body|thing)?\b)|"
    r"there (?:isn't|aren't|is not|are not|wasn't|weren't) any(?:one|body|thing)?\b"
)
# What is told to be absent for its own sake; anything else may be a part that a thing in the picture lacks.
_THINGS = (
    r"(?:one|people|persons?|humans?|human (?:presence|activity|figures?)|life|individuals?|pedestrians?|passers-?by|"
    r"bystanders?|onlookers?|spectators?|audience|figures?|characters?|animals?|wildlife|creatures?|birds?|vehicles?|"
    r"cars?|traffic|boats?|texts?|writing|words|letters|logos?|watermarks?|subtitles?|captions?|titles?|overlays?|"
    r"graphics|dialogue|narration|speech|sounds?|music|audio|voices?|brands?|branding|objects?|items?|elements?|"
    r"details?|landmarks?|buildings?|structures?|furniture)"
)
_FOR_ITS_OWN_SAKE = (
    r"(?:(?:other|else|additional|further|(?:clearly |immediately )?(?:visible|audible|discernible|noticeable|"
    r"obvious|apparent|legible|readable|recogni[sz]able|identifiable)|on-screen|specific|significant|notable)\b|"
    rf"(?:[\w-]+,? ){{0,2}}?{_THINGS}\b)"
)
_LIVING = r"(?:people|persons?|humans?|human beings|one|one else|pedestrians?|passers-?by|bystanders)"
# "There is nothing left", "no leaves on the trees": a thing in the picture lacks something.
_OF_A_THING = re.compile(
    r"(?!there [^,;]{0,30}\b(?:nobody|anyone|anybody)\b)(?:and |also,? |additionally,? |overall,? )?"
    rf"(?:{_THERE}) (?!{_FOR_ITS_OWN_SAKE})(?:[^,;.]*?\b(?<!the )left\b"
    r"(?! (?:side|hand|corner|edge|half|part|of)\b)|[^,;.]*?\b(?:anymore|any more|any longer)\b|"
    r"(?:(?!\b(?:visible|present|seen)\b)[^,;.])*?\b(?:on|in|inside|at|around|under|over|to|between|behind|beneath|"
    r"above|along|from) (?:the|his|her|its|their|either|any of the|both|one of the) "
    rf"(?!(?:[\w-]+ )?(?:{_MEDIUM}|screen|background|foreground|vicinity|surroundings|area|view)\b))",
    flags=re.I,
)
_NOBODY = r"(?:(?:absolutely )?(?:no\b|none of\b|neither\b)|nothing\b|nobody\b|no one\b)"
# The words between "no" and "is visible", or from "with no" to "visible": no verb, and no second subject.
_NAMED = (
    r"(?:(?!\b(?:is|are|was|were|while|as|when|that|which|who|than|but|and (?:an?|the|his|her|its|their|it|he|she|"
    r"they))\b)[^;])"
)
_NOUN = (
    r"(?!(?:is|are|was|were|has|have|had|can|could|stands?|sits?|lies|remains?|hangs?|while|as|when|that|which|who|but|an?|"
    r"the|his|her|its|their|past|through|over|along|down|up|into|to|on|at|from|by)\b)[\w'-]+"
)
# To the end of the sentence, if no new clause begins.
_REST = r"(?:(?!,? (?:and|but) (?:an?|the|his|her|its|their|two|three|four|several|some|many|he|she|they|it)\b)[^;])*"
_SENTENCE = re.compile(
    r"(?:and |also,? |additionally,? |overall,? )?(?:"
    rf"(?:{_THERE}){_REST}"
    rf"|there is an absence of\b[^;]*|(?:the|this) {_MEDIUM} lacks?\b[^;]*|nothing else (?:happens|occurs|"
    rf"is happening|is going on)\b[^,;]*|(?:the|this) {_MEDIUM} is (?:devoid|free) of\b[^;]*"
    rf"|{_NOBODY}{_NAMED}{{0,80}}?\b(?:(?:is|are|was|were) {_VISIBLE}|{_CAN_BE}|(?:appears?|is|are) (?:in|on|"
    rf"within) the {_MEDIUM}|"
    r"appears?(?: (?:on|in) (?:the |this )?(?:screen|{_MEDIUM}))?(?=[.!]*\s*$))[^,;]*"
    r"(?:, (?:creating|making|adding|giving|keeping|leaving|focusing|emphasi[sz]ing|highlighting|contributing|"
    r"enhancing|allowing)\b[^;]*)?"
    rf"|(?:the|this) {_MEDIUM} (?:does not|doesn't|do not|don't) (?:contain|show|include|feature|display|"
    rf"depict|have|present|reveal)\b[^;]*"
    rf"|(?:the|this) {_MEDIUM} (?:contains?|has|have|shows?|includes?|features?|displays?) no\b{_REST}"
    rf"|(?:the|his|her|its|their)\b(?:(?!\b(?:that|which|who|whose)\b)[^,;]){{1,60}}? (?:is|"
    rf"are) not (?:{_VISIBLE})\b[^,;]*"
    r"|(?:the|his|her|its|their)\b(?:(?!\b(?:that|which|who|whose)\b)[^,;]){1,60}? (?:cannot|can't|"
    r"can not) be (?:seen|read|made out|heard)\b[^,;]*"
    r")[.!]*\s*",
    flags=re.I,
)
_LEADING = re.compile(
    rf"(?:(?:{_THERE})[^,;]{{1,60}}|{_NOBODY}{_NAMED}{{1,60}}? (?:(?:is|are|was|were) {_VISIBLE}|{_CAN_BE})[^,;]*|"
    rf"(?:the|this) {_MEDIUM} (?:(?:does not|doesn't|do not|don't) (?:contain|show|include|feature|display|have)|"
    r"(?:contains?|has|have|shows?|includes?|features?) no|lacks)\b[^,;]{1,60}), (?:but|and) (?=(?:an?|the|two|"
    r"three|four|several|some|many)\s)",
    flags=re.I,
)
_TRAILING = re.compile(
    rf"(?:,|;)? ?(?:\b(?:and|but|while|though|although) )?(?:\b(?:{_THERE})[^,;.]*"
    rf"|(?:(?<=[,;] )|(?<=and ))(?:no\b|neither\b)[^,;.]{{1,60}}? (?:(?:is|are) {_VISIBLE}|"
    rf"{_CAN_BE})[^,;.]*"
    rf"|(?:(?<=[,;] )|(?<=and ))(?:nobody|no one|nothing)(?: else)? (?:is {_VISIBLE}|{_CAN_BE})[^,;.]*"
    r"|(?<=and )(?:does not|doesn't|do not|don't) (?:contain|show|include|feature|"
    r"display) any\b[^,;.]*)(?=[.!]*\s*$)",
    flags=re.I,
)
_WITHIN = re.compile(
    rf"(?P<before>,? )(?:and )?(?:with no|without any|without)\b (?:{_VISIBLE} {_TEXTS}"
    rf"|(?<=any )visible {_NOUN}(?:,? (?:or|and) {_NOUN}| (?!\w+s\b){_NOUN})?"
    rf"|(?:(?:{_NOUN},? ){{1,7}}?{_PERCEIVED}|(?:(?:other|additional|further|visible) {_NOUN}|(?:{_NOUN},? (?:or |"
    rf"and )?){{0,2}}?{_THINGS}(?: else)?)(?:,? (?:or|and) {_NOUN})? {_WHERE})"
    rf"(?: (?:in|on|within) the (?:{_MEDIUM}|\w+)| inside| outside| anywhere| here)?"
    rf"|(?<=no )(?:other )?{_LIVING}(?:,? or (?:other )?{_NOUN})?(?: (?:in|on|within) the \w+)?)"
    r"(?P<after>,(?= )|(?=[.;!]|$))",
    flags=re.I,
)
_STILL_LISTED = re.compile(r" (?:and|but|while|as|or|so|an?|the|two|three|with)\b")


def drop_absence(text: str) -> str:
    """The text without the sentences and clauses that only tell what cannot be seen or heard."""
    return sentence_by_sentence(text, _one)


def _one(sentence: str) -> str:
    masked = Masked(sentence)
    text = masked.text
    found = _LEADING.match(text)
    if found and not _tells(found[0].removesuffix(" but ")):
        text = capital(text[found.end() :])
    if not _tells(text) and _SENTENCE.fullmatch(text):
        return ""
    text = _WITHIN.sub(_take_clause, text)
    found = _TRAILING.search(text)
    if (
        found
        and found.start()
        and not _tells(re.sub(r"^\W*(?:(?:and|but|while|though|although) )?", "", found[0]))
    ):
        text = text[: found.start()] + text[found.end() :]
    return sentence if text == masked.text else masked.unmask(text)


def _tells(text: str) -> bool:
    """True for what is more than absence: motion, exceptions, signs, or a thing that lacks a part."""
    return bool(_STAYS.search(text) or _OF_A_THING.match(text))


def _take_clause(found: re.Match[str]) -> str:
    if _STAYS.search(found[0]):
        return found[0]
    if found["after"] != ",":
        return ""
    return "," if found["before"] == " " or _STILL_LISTED.match(found.string, found.end()) else ""
