"""Captions that repeat across clips: flagged, and not chosen unless the pictures speak for them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from test_recaption_finish import captions, clips

from recaption.finish import Finishing, finish
from recaption.trust.choose import ChoicePolicy

N = 4000
LOOP = "A man in a suit speaks at a wooden desk in front of a large window at night, and nobody listens."
PICTURES = np.random.default_rng(0).normal(size=(N, 16))


@pytest.fixture(scope="module")
def different() -> pa.Table:
    return clips(*[{"embedding": vector.tolist()} for vector in PICTURES])


def chosen(table: pa.Table) -> int:
    return sum(table["chosen"].to_pylist())


def flagged(table: pa.Table, flag: str) -> int:
    return sum(flag in flags for flags in table["flags"].to_pylist())


def test_one_hallucination_on_4000_clips_is_chosen_nowhere(different: pa.Table) -> None:
    table = finish(captions(*[{"text": LOOP}] * N), different)
    assert (flagged(table, "repeated_across_clips"), chosen(table), flagged(table, "abstained")) == (N, 0, N)
    assert (chosen(finish(table, different)), flagged(table, "abstained")) == (0, N)  # and again
    always = Finishing(choice=ChoicePolicy(least_fit=None, least_agreement=None))
    assert chosen(finish(table, different, config=always)) == N


def test_another_caption_of_the_clip_takes_its_place(different: pa.Table) -> None:
    rows = [{"text": LOOP, "clip_id": f"c{i}"} for i in range(N)]
    rows += [{"text": f"A caption of its own, number {'x' * i}.", "clip_id": f"c{i}", "captioner": "coca"}
             for i in range(50)]  # fmt: skip
    table = finish(captions(*rows), different)
    taken = [row["text"] for row in table.to_pylist() if row["chosen"]]
    assert len(taken) == 50
    assert LOOP not in taken
    assert flagged(table, "abstained") == N - 50


def test_a_known_fit_speaks_for_it(different: pa.Table) -> None:
    """Where the pictures of a few clips really show what the text says, it stays there."""
    said = np.random.default_rng(1).normal(size=16)
    pictures = PICTURES.copy()
    pictures[:5] = said + 0.8 * np.random.default_rng(2).normal(size=(5, 16))
    shown = clips(*[{"embedding": vector.tolist()} for vector in pictures[:1000]])
    own = np.random.default_rng(3).normal(size=(1000, 16)) * 0.3 + pictures[:1000]
    own[:100] = said
    texts = [LOOP] * 100 + [f"A caption of its own, number {'x' * i}." for i in range(900)]
    vectors = (own / np.linalg.norm(own, axis=1, keepdims=True)).astype(np.float32)
    table = finish(captions(*[{"text": text} for text in texts]), shown, vectors=vectors)
    rows = table.to_pylist()
    assert flagged(table, "repeated_across_clips") == 100
    right = sum(row["chosen"] for row in rows[:5])
    wrong = sum(row["chosen"] for row in rows[5:100])
    assert right >= 4
    assert wrong == 0


def test_near_copies_may_share_a_caption(different: pa.Table) -> None:
    blind = clips(*[{}] * 30)  # curated without CLIP: only the decisions know which are copies
    table = captions(*[{"text": LOOP}] * 30)
    copies = {f"c{i}": "c0" for i in range(29)}
    assert chosen(finish(table, blind)) == 0
    assert chosen(finish(table, blind, copies=copies)) == 30
