"""Guesses: "appears to be" becomes "is", "possibly a chef" goes, and so do sentences that only guess.

    drop_hedges("The animal appears to be a dog. It is unclear whether it is lost.")   # "The animal is a dog."

A word is taken out in place only where the grammar around it is certain; what is quoted or written in capitals
is never touched, nor is a sentence that a sign or somebody says (", reads the board").
"""

from __future__ import annotations

import re

from recaption.cleaning.sentences import Masked, capital, sentence_by_sentence

# "A tree may fall here, warns a sign.": one comma, unlike "A man, likely a judge, reads a letter."
_REPORTED = re.compile(r"[^,]+, (?:reads?|says?|warns?|shouts?|asks?|cries|claims?)\b[^,]*")
_UNSURE = (
    r"(?:unclear|not (?:entirely |quite |immediately )?clear|unknown|not known|uncertain|not certain|"
    r"ambiguous|unspecified|"
    r"undetermined|not (?:explicitly |clearly )?(?:specified|mentioned|stated|given|provided|revealed|"
    r"disclosed|identified|"
    r"identifiable|apparent|evident|indicated|shown|visible|discernible))"
)
_TOLD = (
    r"(?:determined|identified|known|told|discerned|confirmed|verified|inferred|established|made out|"
    r"ascertained|seen)"
)
_ABSTRACT = (
    r"(?:the|its|his|her|their|any)(?: [\w-]+'s)? (?:(?:exact|specific|precise|actual|full|"
    r"overall) )*(?:location|setting|place|identity|"
    r"identities|purpose|context|reasons?|cause|nature|names?|brand|age|gender|time|date|origin|"
    r"destination|relationship|"
    r"meaning|intent|intention|source|contents?|occasion|species|breed|model|make|type|details?|number|"
    r"year|season|weather|intentions?|motives?|motivation|emotions?|city|country|event|outcome|result|"
    r"ending)"
)
_HARD = (
    r"(?:hard|difficult|impossible|not possible|not easy|unclear|not (?:entirely |quite )?clear|unknown|"
    r"not known|uncertain|hard to say)"
)
_IT_IS = r"(?:it is|it's|it isn't|it remains)"
# Said of a thing that can be seen, these still tell nothing of it; "not clear" may be water.
_UNDECIDED = (
    r"(?:unknown|not known|uncertain|not certain|unspecified|undetermined|not (?:explicitly |"
    r"clearly )?(?:specified|mentioned|stated|"
    r"disclosed|indicated)|(?:hard|difficult|impossible|not possible|not easy) to (?:tell|say|determine|"
    r"identify|discern|make out))"
)
_OPEN_QUESTION = (
    rf"{_IT_IS} (?:{_UNSURE}\b|clear (?:why|what|who|whether|if|how|where|to)\b|{_HARD} (?:to (?:tell|say|"
    rf"determine|know|discern|identify|make out|see (?:what|who|whether|if|where|how))\b|whether\b|what\b|"
    rf"if\b|how\b))"
)
_MODAL = r"(?:may|might|could)(?: well| also| possibly| perhaps)? be"
# Whole sentences that only guess.
_GUESS = re.compile(
    "|".join(
        (
            rf"{_OPEN_QUESTION}.*",
            rf"{_ABSTRACT}\b(?:(?!\b(?:that|which|who)\b)[^,;])*? (?:is|are|was|were|"
            rf"remains?) {_UNSURE}\b[^,;]*",
            rf"{_ABSTRACT}\b(?:(?!\b(?:that|which|who)\b)[^,;])*? (?:cannot|can't|can not|"
            rf"could not) be {_TOLD}\b[^,;]*",
            rf"(?:the|his|her|its|their|an?)\b(?:(?!\b(?:that|which|who|as|and)\b)[^,;]){{1,60}}? (?:is|"
            rf"are|was|were|remains?) {_UNDECIDED}\b[^,;]*",
            rf"(?:where|who|what|why|how|when|whether)\b[^,;]* (?:is|remains|was) (?:{_UNSURE}|"
            rf"{_UNDECIDED})\b[^,;]*",
            r"(?:perhaps|maybe|possibly|conceivably)\b.*",
            r"(?:it is|it's)(?: also| quite)? possible that\b.*",
            rf"there {_MODAL} .*",
            r"(?:it may be|it could be|it might be|there is a (?:chance|possibility)) that\b.*",
            r"(?:one|we|you|the viewers?|viewers|the audience) (?:can|could|may) (?:only |just )?(?:guess|"
            r"assume|imagine|speculate)\b.*",
            r"i (?:cannot|can't|am unable to|'m unable to) (?:determine|tell (?:if|whether|what|who|which|"
            r"how|where|from)|say|identify|see|make out)\b.*",
            rf"(?:it|this|that|they|these|those|he|she|the(?: (?!that\b|which\b|"
            rf"who\b)[\w'-]+){{1,4}}) {_MODAL} "
            r"(?!\w+(?:ed|en)\b(?! or\b))(?!seen\b|made\b|held\b|heard\b|found\b).*",
        )
    ),
    flags=re.I,
)
# At the start of a sentence; the rest of it stands.
_LEAD = re.compile(
    r"(?:it (?:appears|seems|would appear|would seem) that |it (?:seems|appears) (?:like )?(?=(?:the|an?|"
    r"he|she|they|there|this)\b)"
    r"|it (?:looks|seems|appears) (?:as if|as though) |it is (?:highly |very |most |quite )?(?:likely|"
    r"probable) that "
    r"|it's (?:highly |very |most |quite )?(?:likely|probable) that |(?:most |very |quite )?likely, "
    r"|(?:apparently|presumably|probably|seemingly|supposedly|in all likelihood)[, ] ?)",
    flags=re.I,
)
_MAYBE = r"(?:(?:quite|or|and) )?(?:possibly|perhaps|maybe|potentially|conceivably)"
_PROBABLY = (
    r"(?:(?:most|very|quite|highly) )?(?:likely|probably|presumably|apparently|supposedly|reportedly|"
    r"seemingly|possibly)"
)
_BRACKETS = re.compile(rf" \((?:{_MAYBE}|{_PROBABLY})\b[^()]*\)")
_ASIDE = re.compile(
    rf", (?:{_MAYBE}\b|(?:which|who|that) {_MODAL}\b)[^,.;()]*(?P<after>,(?= )|(?=[.;!]|$))",
)
_UNCLEAR_TAIL = re.compile(
    rf",? (?:but|though|although|and|while|even though) (?:{_OPEN_QUESTION}|{_ABSTRACT}\b[^,;]*? (?:is|are|"
    rf"remains?) {_UNSURE}"
    rf"|{_ABSTRACT}\b[^,;]*? (?:cannot|can't|can not) be {_TOLD})[^,;.]*(?=[.!]*\s*$)",
    flags=re.I,
)
_WHAT = re.compile(
    r"\bwhat (?:appears?|seems?|looks?) to be |\bwhat (?:looks?|seems?) like |\bwhat (?:could|may|"
    r"might) be "
    r"|\bwhat (?:is|are) (?:most |very |quite )?(?:likely|probably|possibly|presumably|apparently) ",
    flags=re.I,
)
_THERE_SEEMS = re.compile(r"\b([Tt]here) (appear|seem)(s?) to be (?=(\w+))")
_MANY = {"two", "three", "four", "five", "six", "several", "many", "some", "few", "multiple", "numerous"}
_ADVERB = re.compile(rf"(?:(?<=\w )|(?<=, )){_PROBABLY} (?!to\b|that\b|than\b)")
_ATTRIBUTE = re.compile(r"\b(?:an?|the|his|her|their|its|more|less|as|to) $", flags=re.I)
_BE = re.compile(r"\b(is|are|was|were) (?:possibly|perhaps|maybe) ")
_VERB_NEXT = re.compile(
    r"an?\b|the\b|\w+(?:ing|(?<![su])s)\b"
)  # "seemingly ignores", unlike "seemingly frozen"
_LIKELY_AFTER = re.compile(r"(?:\b(?:is|are|was|were|has|have|had|been|be|and|or|who|which|that)|,) $")
_SEEMS = re.compile(r"\b(appear|seem)(s?) to (?P<adverb>\w+ly )?(?P<verb>[a-z]+)\b(?<!\b(?:the)\b)")
_NO_VERB = set(
    [
        "the",
        "a",
        "an",
        "his",
        "her",
        "its",
        "their",
        "our",
        "my",
        "your",
        "this",
        "that",
        "these",
        "those",
        "one",
        "some",
        "each",
        "every",
        "both",
        "all",
        "him",
        "them",
        "me",
        "us",
        "you",
        "it",
        "not",
        "left",
        "right",
        "two",
        "three",
        "four",
    ]
)
_NOT_FINITE = re.compile(
    r"(?:n't|\b(?:to|not|may|might|could|can|will|would|should|does|do|did|must|let|lets|make|makes)) $",
)
_LY_VERBS = {"fly ", "apply ", "reply ", "rely ", "supply ", "multiply "}


def drop_hedges(text: str) -> str:
    """The text without guesses: whole sentences go, words go or change in place."""
    return sentence_by_sentence(text, _one)


def _one(sentence: str) -> str:
    masked = Masked(sentence)
    text = masked.text
    if _REPORTED.fullmatch(text):
        return sentence
    if _GUESS.fullmatch(text.strip()):
        return ""
    if found := _LEAD.match(text):
        text = capital(text[found.end() :])
    text = _UNCLEAR_TAIL.sub("", text)
    text = _BRACKETS.sub("", text)
    text = _ASIDE.sub(_take_aside, text)
    text = capital(_WHAT.sub("", text)) if _WHAT.match(text) else _WHAT.sub("", text)
    text = _THERE_SEEMS.sub(_there_is, text)
    text = _BE.sub(r"\1 ", text)
    text = _ADVERB.sub(_take_adverb, text)
    text = _SEEMS.sub(_finite, text)
    return sentence if text == masked.text else masked.unmask(text)


def _take_aside(found: re.Match[str]) -> str:
    following = found.string[found.end() :].lstrip()
    listed = re.match(r"(?:and|but|while|as|or|so|an?|the|with|which|who)\b", following)
    return "," if found["after"] == "," and listed else ""


def _there_is(found: re.Match[str]) -> str:
    many = not found[3] or found[4].lower() in _MANY
    return f"{found[1]} {'are' if many else 'is'} "


def _take_adverb(found: re.Match[str]) -> str:
    before = found.string[: found.start()]
    if _ATTRIBUTE.search(before):
        return found[0]
    if found[0] == "seemingly " and not _VERB_NEXT.match(found.string, found.end()):
        return found[0]
    verb_next = _VERB_NEXT.match(found.string, found.end())
    if found[0].endswith("likely ") and not (verb_next or _LIKELY_AFTER.search(before)):
        return found[0]
    return ""


def _finite(found: re.Match[str]) -> str:
    """`appears to run` -> `runs`, `appear to run` -> `run`, `seems to be` -> `is`; as it was if that is no verb."""
    verb, adverb = found["verb"], found["adverb"] or ""
    plain = (
        verb in _NO_VERB or adverb in _LY_VERBS or (verb.endswith("s") and not verb.endswith(("ss", "us")))
    )
    if plain or _NOT_FINITE.search(found.string[: found.start()]):
        return found[0]
    if not found[2]:
        return adverb + ("are" if verb == "be" else verb)
    return adverb + _third_person(verb)


def _third_person(verb: str) -> str:
    irregular = {"be": "is", "have": "has", "do": "does", "go": "goes"}
    if verb in irregular:
        return irregular[verb]
    if verb.endswith(("s", "x", "z", "ch", "sh")):
        return verb + "es"
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"
