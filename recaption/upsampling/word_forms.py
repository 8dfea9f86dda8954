"""Which words count, and when two of them are inflections of one: enough English to compare a prompt with its rewrite.

    forms("running") & forms("runs")         # {"run"}: the same word
    forms("ring") & forms("rise")            # nothing in common

No dictionary and no tagger: suffixes, a table of irregular words, and lists of the words that carry no content.
"""

from __future__ import annotations

import re
from functools import cache


def _words(text: str) -> list[str]:
    return text.split()


#: Words that say nothing of what is to be seen. Directions, numbers and negations are not among them.
EMPTY = frozenset(
    _words(
        """a an the this that these those it its he she they them his her hers their theirs him we us our you
        your i me my mine myself himself herself itself themselves who whom whose which what where when
        why how there here be is are am was were been being do does did doing done have has had having can
        could shall should will would may might must let lets and or but nor so if then than as while
        because though although until whether of in on at to from by with into onto upon over under above
        below between among across through along around about against toward towards near beside besides
        behind before after during off out within inside outside beneath front very quite rather really
        just also too even some any each every all either such same other another again ever please want
        show shows showing make makes making create generate something someone thing things kind sort bit
        lot etc via per like"""
    )
)
#: Words that stand before a noun, or after "is"; with those that the endings tell (noun_phrases) most that prompts use.
ADJECTIVES = frozenset(
    _words(
        """young old new ancient modern dark light bright dim pale vivid deep shallow wet dry hot cold warm
        cool frozen icy hard soft smooth rough sharp blunt round flat curved straight thick thin fat slim
        heavy empty full open closed broken clean dirty dusty muddy sandy rocky grassy snowy sunny cloudy
        rainy foggy misty stormy windy furry fluffy hairy shiny glossy matte metallic wooden woollen happy
        sad angry tired sleepy calm quiet loud busy crowded lonely wild tame cute beautiful pretty ugly
        elegant fancy plain simple complex rich poor strong weak fast slow quick live dead alive fresh ripe
        rotten raw cooked sweet tropical urban rural foreign asian european african american chinese
        japanese indian french italian male female adult elderly senior junior teenage bald blond blonde
        transparent translucent opaque monochrome neon pastel abstract vintage retro gothic rustic electric
        digital mechanical magic magical blurry hazy gentle sleek steep lush dense sparse clear overcast
        starry moonlit sunlit lit bare barefoot naked clockwise counterclockwise lone awake asleep"""
    )
)
NEGATIONS = frozenset(("no", "not", "never", "without", "neither", "cannot"))
_COLOURS = _words("""red green blue yellow orange purple violet white black grey pink brown beige cyan magenta
turquoise teal navy golden silver crimson scarlet maroon lavender indigo olive""")
#: Words of a colour, a size, a number -> what they mean, so that "2" is "two" and "tiny" is "small".
COLOURS = {**{word: word for word in _COLOURS}, "gray": "grey"}
SIZES = {
    **dict.fromkeys(("small", "little", "tiny"), "small"),
    **dict.fromkeys(("large", "big", "huge"), "large"),
    **{
        word: word
        for word in ("giant", "gigantic", "enormous", "medium", "tall", "short", "long", "wide", "narrow")
    },
}
_NUMBERS = _words("""zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty""")
COUNTS: dict[str, int | str] = {
    **{word: number for number, word in enumerate(_NUMBERS)},
    **{str(number): number for number in range(100)},
    **{"single": 1, "pair": 2, "couple": 2, "both": 2, "dozen": 12},
    **{word: word for word in ("few", "several", "many")},
}

_IRREGULAR_VERBS = """go goes went gone; run ran; fall fell fallen; sit sat; stand stood; fly flew flown flies; swim
swam swum; hold held; eat ate eaten; drink drank drunk; ride rode ridden; drive drove driven;
write wrote written; break broke broken; throw threw thrown; catch caught; fight fought; lie lies
lay lain lying; sleep slept; sing sang sung; shine shone; blow blew blown; grow grew grown; rise
rose risen; swing swung; spin spun; wear wore worn; build built; burn burnt; bring brought; leap
leapt; kneel knelt"""
_IRREGULAR = """man men; woman women; child children; foot feet; tooth teeth; mouse mice;
goose geese; wolf wolves; leaf leaves; knife knives; loaf loaves; half halves; shelf shelves; grey
gray; colour color colours colors coloured colored; snow snowy; sand sandy; cloud cloudy; sun
sunny; rain rainy; fog foggy; mist misty; person people; wood wooden; wool woollen woolen"""
_FAMILIES = {
    word: family.split()[0]
    for family in f"{_IRREGULAR_VERBS};{_IRREGULAR}".split(";")
    for word in family.split()
}
IRREGULAR_PLURALS = frozenset(
    _words("men women children people feet teeth mice geese wolves leaves knives loaves halves shelves")
)
IRREGULAR_VERBS = frozenset(_words(_IRREGULAR_VERBS.replace(";", " ")))
#: They end like inflections and are none.
WHOLE = frozenset(
    _words(
        """evening morning building wedding ceiling painting clothing lightning nothing anything everything
        king ring wing string spring thing sling swing bring sing red bed shed seed weed speed hundred
        sled bus gas lens glass grass dress cross class news series species always perhaps this his is was
        has as us yes towards"""
    )
)


@cache
def forms(word: str) -> frozenset[str]:
    """The words that `word` may be an inflection of, itself among them. Two words are one if these meet."""
    word = word.lower()
    found = {word, _FAMILIES.get(word, word)}
    if word not in WHOLE:
        found.update(stem for stem in _stems(word) if len(stem) > 1)
    return frozenset(found | {_FAMILIES[stem] for stem in found if stem in _FAMILIES})


def _stems(word: str) -> list[str]:
    """What is left without -s, -es, -ies, -ing, -ed or -ly."""
    if word.endswith("ies") and len(word) > 4:
        return [f"{word[:-3]}y", word[:-1]]
    if re.search(r"(?:s|x|z|ch|sh|o)es$", word):
        return [word[:-2], word[:-1]]
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        return [word[:-1]]
    if word.endswith("ly") and len(word) > 5:
        return [word[:-2]]
    for suffix in ("ing", "ed"):
        stem = word.removesuffix(suffix)
        if stem == word or len(stem) < 2 or not re.search("[aeiouy]", stem):
            continue
        if re.search(r"([b-df-hj-np-tv-z])\1$", stem):  # running, rolled
            return [stem, stem[:-1]]
        if re.fullmatch(r"[^aeiou]*[aeiouy][^aeiouwxy]", stem):  # staring is of stare, never of star
            return [f"{stem}e"]
        return [stem, f"{stem}e", *([f"{stem[:-1]}y"] if stem.endswith("i") else [])]
    return []
