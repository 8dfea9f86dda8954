"""Which caption is shown, of how many sentences and fields: shares, purity, and plain webdataset over the shards."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import webdataset

from curate.shards import TarWriter, to_json
from model.errors import BadInput
from train.blend import Blended, Choice, blend, captions_of, choose_kind, draw_caption, field_texts
from train.caption_counts import count, count_names, ratios
from train.config import CaptionBlend
from train.sentences import sentence_ends

SENTENCES = (
    "A red disc moves left.",
    "The hill is green.",
    "It is noon.",
    "The camera is still.",
    "All is calm.",
)
FIELDS = {"style": "rendered", "subject": "A red disc.", "mood": None, "camera": "the camera is still",
          "background": " a green\n hill ", "lighting": ""}  # fmt: skip
CAPTIONS: dict[str, Any] = {
    "original": "my holiday", "short": "a red disc", "dense": " ".join(SENTENCES), "structured": FIELDS,
}  # fmt: skip
ALL = {"original": 1, "short": 1, "dense": 5, "structured": ("subject", "background", "camera", "style")}
EVERY = CaptionBlend(drop_share=0, cut_share=0)
N = 20_000


def draws(config: CaptionBlend, outline: dict = ALL, seed: int = 0) -> list[Choice]:
    return [
        draw_caption(outline, seed=seed, clip_id=f"{n:016x}", epoch=n % 7, config=config) for n in range(N)
    ]


def shares(choices: list[Choice], of: Callable[[Choice], object]) -> dict:
    return {value: n / len(choices) for value, n in Counter(map(of, choices)).items()}


def near(expected: dict, tolerance: float = 0.012) -> dict:
    return pytest.approx(expected, abs=tolerance)  # 3.4 standard deviations of a share of one half


# Sentences -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A red disc. It moves left! Does it stop?", ["A red disc.", " It moves left!", " Does it stop?"]),
        ("no stop at all", ["no stop at all"]),
        ("One. two is lower case, so not a sentence. Three", ["One. two is lower case, so not a sentence.", " Three"]),
        ("Mr. Li of the U.S. Army walks 3.5 m. He stops.", ["Mr. Li of the U.S. Army walks 3.5 m. He stops."]),
        ("Mr. Li of the U.S. Army walks. He stops.", ["Mr. Li of the U.S. Army walks.", " He stops."]),
        ('A sign reads "STOP." It is red... Then "Go" (left.) 4 cars pass.  ',
         ['A sign reads "STOP."', " It is red...", ' Then "Go" (left.)', " 4 cars pass."]),
        ("一只红色的圆盘。它向左移动！很安静", ["一只红色的圆盘。", "它向左移动！", "很安静"]),
        ("", []),
        (" \n", []),
    ],
)  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    ends = sentence_ends(text)
    assert [text[a:b] for a, b in zip([0, *ends], ends, strict=False)] == sentences


# The draw --------------------------------------------------------------------------------------------------


def test_the_blend_is_that_of_dalle_3() -> None:
    assert CaptionBlend() == CaptionBlend(
        original=0.05, short=0.3, dense=0.7, structured=0.3, drop_share=0.1, cut_share=0.1, field_keep=0.8,
        shuffle_share=0.5,
    )  # fmt: skip


def test_kinds_come_by_their_weights() -> None:
    config = CaptionBlend(original=0.05, short=1, dense=2, structured=2, drop_share=0.1)
    found = draws(config)
    assert shares(found, lambda c: c.is_dropped) == near({True: 0.1, False: 0.9})
    shown = [choice for choice in found if choice.kind]
    expected = {"original": 0.05, "short": 0.95 / 5, "dense": 0.95 * 2 / 5, "structured": 0.95 * 2 / 5}
    assert shares(shown, lambda c: c.kind) == near(expected)


def test_the_share_of_a_kind_that_is_missing_goes_to_the_others() -> None:
    config = replace(EVERY, original=0.05, short=1, dense=3, structured=4)
    for outline, expected in (
        (
            {"original": 1, "short": 1, "dense": 5},
            {"original": 0.05, "short": 0.95 / 4, "dense": 0.95 * 3 / 4},
        ),
        ({"original": 1, "short": 1}, {"original": 0.05, "short": 0.95}),
        ({"short": 1, "structured": ("subject",)}, {"short": 0.2, "structured": 0.8}),
        ({"short": 1, "dense": 5, "merged": 5}, {"short": 0.25, "dense": 0.375, "merged": 0.375}),
        ({"original": 1}, {"original": 1.0}),
        ({"dense": 5, "short": 0, "structured": ()}, {"dense": 1.0}),  # captions without words
        ({}, {None: 1.0}),
    ):
        assert shares(draws(config, outline), lambda c: c.kind) == near(expected)


def test_a_weight_of_zero_means_never() -> None:
    assert choose_kind(0.5, ["original"], replace(EVERY, original=0)) is None
    assert choose_kind(0.5, ["short", "dense"], replace(EVERY, original=1)) is None
    assert choose_kind(0.999, ["original", "short", "dense"], replace(EVERY, original=1)) == "original"
    assert choose_kind(0.0, ["short", "dense"], replace(EVERY, dense=0)) == "short"
    assert choose_kind(0.0, ["short"], replace(EVERY, short=0)) is None
    assert choose_kind(1 - 2**-53, ["original", "short", "dense", "structured"], EVERY) == "structured"


def test_long_captions_are_cut_after_a_number_of_sentences_drawn_evenly() -> None:
    outline = {"short": 1, "dense": 5}
    found = draws(replace(EVERY, short=0.5, dense=0.5, cut_share=0.4), outline)
    short, dense = ([c for c in found if c.kind == kind] for kind in ("short", "dense"))
    assert set(short) == {Choice("short", 1)}
    expected = {1: 0.1, 2: 0.1, 3: 0.1, 4: 0.1, 5: 0.6}
    assert shares(dense, lambda c: c.n_sentences) == near(expected)
    assert all(c.is_cut == (c.n_sentences < 5) for c in dense)


def test_fields_are_kept_and_ordered_by_their_shares() -> None:
    found = draws(replace(EVERY, field_keep=0.6, shuffle_share=0.5), {"structured": ALL["structured"]})
    for name in ("background", "camera", "style"):
        assert shares(found, lambda c, name=name: name in c.fields) == near({True: 0.6, False: 0.4})
    assert all("subject" in c.fields for c in found)
    assert all(c.n_sentences == len(c.fields) for c in found)
    whole = [c for c in found if len(c.fields) == 4]
    orders = shares(whole, lambda c: c.fields)
    assert len(orders) == 24
    assert orders.pop(ALL["structured"]) == pytest.approx(0.5 + 0.5 / 24, abs=0.03)
    assert all(share == pytest.approx(0.5 / 24, abs=0.015) for share in orders.values())


def test_a_structured_caption_keeps_at_least_one_field() -> None:
    found = draws(replace(EVERY, field_keep=0), {"structured": ("camera", "style")})
    assert shares(found, lambda c: c.fields) == near({("camera",): 0.5, ("style",): 0.5})
    assert set(draws(replace(EVERY, field_keep=0))) >= {Choice("structured", 1, ("subject",))}


def test_the_draw_depends_on_seed_clip_and_epoch_alone() -> None:
    def sequence(outline: dict = ALL, clip: str = "aa", seed: int = 1, first: int = 0) -> list[Choice]:
        epochs = range(first, first + 60)
        config = CaptionBlend(cut_share=0.5)
        return [
            draw_caption(outline, seed=seed, clip_id=clip, epoch=epoch, config=config) for epoch in epochs
        ]

    turned = {
        kind: found[::-1] if isinstance(found, tuple) else found for kind, found in list(ALL.items())[::-1]
    }
    assert list(turned) != list(ALL)
    assert sequence() == sequence() == sequence(turned)
    for other in (sequence(clip="ab"), sequence(seed=2), sequence(first=1)):
        assert other != sequence()
    assert sequence(first=20)[:40] == sequence()[20:]


def test_another_share_leaves_the_other_decisions() -> None:
    many, few = draws(CaptionBlend(drop_share=0.5)), draws(CaptionBlend(drop_share=0.1))
    assert all(a == b for a, b in zip(many, few, strict=True) if not a.is_dropped)
    cut, whole = draws(replace(EVERY, cut_share=1)), draws(EVERY)
    assert [c.kind for c in cut] == [c.kind for c in whole]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"original": 1.5}, r"captions.original is 1.5, must be from 0 to 1"),
        ({"dense": -1}, r"captions.dense is -1, must be 0 or more"),
        ({"short": float("inf")}, r"captions.short is inf, must be 0 or more"),
        ({"field_keep": float("nan")}, r"captions.field_keep is nan, must be from 0 to 1"),
    ],
)
def test_shares_that_make_no_sense_are_refused(changes: dict, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        CaptionBlend(**changes)


# Words -----------------------------------------------------------------------------------------------------


def test_the_text_is_what_was_drawn() -> None:
    def shown(epoch: int) -> Blended:
        return blend(CAPTIONS, seed=0, clip_id="aa", epoch=epoch, config=CaptionBlend(cut_share=0.5))

    texts = {
        "subject": "A red disc.", "background": "a green hill.", "camera": "the camera is still.",
        "style": "rendered.",
    }  # fmt: skip
    assert list(field_texts(FIELDS).items()) == list(texts.items())
    kinds = Counter()
    for epoch in range(400):
        found = shown(epoch)
        kinds[found.kind] += 1
        expected = {
            "original": "my holiday",
            "short": "a red disc",
            "dense": " ".join(SENTENCES[: found.n_sentences]),
            "structured": " ".join(texts[name] for name in found.fields),
            None: "",
        }
        assert found.text == expected[found.kind]
        of_outline = draw_caption(ALL, seed=0, clip_id="aa", epoch=epoch, config=CaptionBlend(cut_share=0.5))
        assert vars(found) == vars(of_outline) | {"text": found.text}
    assert set(kinds) == {None, *CAPTIONS}


def test_captions_of_a_record() -> None:
    captions = [
        {"kind": "dense", "text": "A window.", "flags": ["part"]},
        {"kind": "dense", "text": "First.", "flags": []},
        {"kind": "dense", "text": "Second."},
        {"kind": "short", "text": " "},
        {"kind": "structured", "text": None, "structured": FIELDS},
        {"kind": "rewrite", "text": None, "structured": {"subject": None}},
    ]
    assert captions_of({"captions": captions}) == {"dense": "First.", "structured": FIELDS}
    rendered = {"kind": "structured", "text": "A red disc. The camera is still."}
    assert captions_of({"captions": [rendered]}) == {"structured": rendered["text"]}
    assert captions_of({}) == captions_of({"captions": None}) == {}
    assert blend({}, seed=0, clip_id="aa", epoch=0, config=EVERY) == Blended(None, text="")


def test_counts_of_ranks_add_up_to_the_ratios() -> None:
    names = count_names(["short", "dense", "structured", "dense"])
    one = [Choice("dense", 2, is_cut=True), Choice("dense", 5), Choice(None, is_dropped=True)]
    two = [
        Choice("structured", 3, ("subject", "mood", "style")),
        Choice("structured", 1, ("subject",)),
        Choice(None),
    ]
    counts = [a + b for a, b in zip(count(names, one), count(names, two), strict=True)]
    assert ratios(names, counts) == {
        "clips": 6, "dropped": 1 / 6, "no_caption": 1 / 6, "kinds": {"dense": 0.5, "short": 0.0, "structured": 0.5},
        "cut": 0.25, "fields": 2.0,
    }  # fmt: skip
    nothing = ratios(names, count(names, []))
    assert nothing["clips"] == 0
    assert nothing["dropped"] is nothing["kinds"]["dense"] is nothing["fields"] is None


# Plain webdataset ------------------------------------------------------------------------------------------


def show(sample: dict, epoch: int) -> tuple[str, Blended]:
    key = sample["__key__"]
    config = CaptionBlend(cut_share=0.5)
    return key, blend(captions_of(sample["json"]), seed=3, clip_id=key, epoch=epoch, config=config)


def test_plain_webdataset_shows_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    for shard in range(4):
        with (tmp_path / f"{shard}.tar").open("wb") as file:
            tar = TarWriter(file)
            for number in range(25):
                captions = [
                    {"kind": kind, "text": text} for kind, text in CAPTIONS.items() if kind != "structured"
                ]
                captions.append({"kind": "structured", "text": None, "structured": FIELDS})
                tar.add(f"{shard:04x}{number:04x}", "json", to_json({"captions": captions[number % 3 :]}))
            tar.close()
    tars = sorted(map(str, tmp_path.glob("*.tar")))

    def epoch(number: int, workers: int) -> dict[str, Blended]:
        data = webdataset.WebDataset(tars, shardshuffle=False).decode().map(partial(show, epoch=number))
        return dict(webdataset.WebLoader(data, batch_size=None, num_workers=workers))

    alone = epoch(0, workers=0)
    assert len(alone) == 100
    assert {found.kind for found in alone.values()} == {None, *CAPTIONS}
    assert epoch(0, workers=2) == alone
    assert epoch(1, workers=0) != alone


def test_blending_needs_no_torch() -> None:
    code = "import sys, train.blend, train.caption_counts; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
