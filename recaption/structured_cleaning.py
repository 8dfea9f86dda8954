"""The cleaning rules on structured captions: field by field, then on all fields together.

    cleaned, fields = clean_structured('{"subject": "A red disc.", "action": "No people are visible.", ...}')
    cleaned.text, cleaned.status, fields["action"]              # "A red disc.", "ok", None

A field that falls becomes null. The caption falls with its subject, with words before the object that refuse, and
with fields that together are a loop or in another language.
"""

from __future__ import annotations

from recaption.cleaning.absence import drop_absence
from recaption.cleaning.clean import Cleaned, clean
from recaption.cleaning.refusal import is_refusal
from recaption.cleaning.repetition import why_repetitive
from recaption.structured import as_sentence, prose, read_structured, unwrapped

Fields = dict[str, str | None]
#: What is written in the picture may be in any language and person: it is quoted.
QUOTED = "on_screen_text"
#: Flag of a caption of which one field said what another said before; only the first is kept.
COPIES = "drop_copies"
#: Flag of a caption of which a field refused, went round in circles or was in another language.
FALLEN = "drop_field"


def clean_structured(
    text_raw: str, *, truncated: bool = False, camera: str | None = None, lang: str = "en"
) -> tuple[Cleaned, Fields | None]:
    """The fields as one text with its status, and the fields themselves, null unless the status is ok.

    `truncated`: the captioner was stopped by its length limit. `camera`: what was measured, in words; it takes the
    place of what the captioner thinks. `lang`: as in `clean`, and BadInput likewise.
    """
    text = unwrapped(text_raw)
    if is_refusal(text.partition("{")[0].strip()):
        return Cleaned(None, "refused"), None
    found = read_structured(text_raw)
    if found.fields is None:
        return _unread(text, found.error, truncated), None
    fields = dict(found.fields)
    flags: dict[str, None] = {}
    seen: set[str] = set()
    for name, value in found.fields.items():
        cleaned = _field(name, value, lang)
        if name == "subject" and cleaned.text is None:
            return Cleaned(None, cleaned.status, cleaned.error and f"subject: {cleaned.error}"), None
        flags |= dict.fromkeys(cleaned.flags)
        if cleaned.status in ("refused", "repetitive", "wrong_lang"):
            flags[FALLEN] = None
        fields[name] = cleaned.text
        if cleaned.text in seen:
            fields[name] = None
            flags[COPIES] = None
        seen |= {cleaned.text} if cleaned.text else set()
    # A field may be too short to tell its language, or to be a loop by itself.
    whole = clean(prose({name: value for name, value in fields.items() if name != QUOTED}), lang=lang)
    if whole.text is None:
        return Cleaned(None, whole.status, whole.error), None
    if camera:
        fields["camera"] = as_sentence(camera[:1].upper() + camera[1:])
    return Cleaned(prose(fields), "ok", flags=tuple(flags)), fields


def _field(name: str, value: str | None, lang: str) -> Cleaned:
    if value is None:
        return Cleaned(None, "ok")
    if name == QUOTED:
        why = why_repetitive(value)
        text = None if why else as_sentence(drop_absence(value))
        return Cleaned(text, "repetitive" if why else "ok", why, ("drop_absence",) if text != value else ())
    cleaned = clean(value, lang=lang)
    text = as_sentence(cleaned.text)
    if cleaned.text is not None and text is None:
        return Cleaned(None, "error", f"says that there is nothing: {cleaned.text}", cleaned.flags)
    return Cleaned(text, cleaned.status, cleaned.error, cleaned.flags)


def _unread(text: str, error: str | None, truncated: bool) -> Cleaned:
    """What an answer without a fitting object is: a loop, or bad JSON."""
    if why := why_repetitive(text):
        return Cleaned(None, "repetitive", why)
    cut = "cut off by the length limit before the object ended (raise max_tokens): " if truncated else ""
    return Cleaned(None, "bad_json", f"{cut}{error}")
