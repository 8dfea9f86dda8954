"""Clips that show the same thing are found by their embeddings, and clusters are balanced."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curate.decide import DecideConfig, decide
from curate.errors import BadInput
from curate.semantic import SemanticConfig, balance, semantic_copies
from curate.tables import CLIPS


def table(vectors: np.ndarray, models: list[str] | None = None) -> pa.Table:
    rows = [
        {
            "clip_id": f"{i:024x}",
            "source_id": "s",
            "start_s": 0.0,
            "end_s": 3.0,
            "width": 8,
            "height": 8,
            "embedding": vector.tolist(),
            "embedding_model": models[i] if models else "a",
        }
        for i, vector in enumerate(vectors)
    ]
    return pa.Table.from_pylist(rows, schema=CLIPS)


def test_known_copies_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(1000, 64))
    copies = originals[:200] + 0.1 * rng.normal(size=(200, 64))  # cosine about 0.995
    clips = table(np.concatenate([originals, copies]))
    config = SemanticConfig(min_similarity=0.95, cluster_rows=100)
    cluster, found = semantic_copies(clips, np.ones(1200, bool), np.arange(1200), config)
    assert set(cluster.tolist()) <= set(range(12))
    right = sum(better == row - 1000 for row, (better, _) in found.items())
    assert right == len(found)
    assert right >= 190


def test_a_semantic_copy_names_the_better_and_only_models_alike_are_compared() -> None:
    clips = table(np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.0]]), ["a", "a", "b"])
    rows = decide(clips, DecideConfig(semantic=SemanticConfig(min_similarity=0.95))).to_pylist()
    assert [row["keep"] for row in rows] == [True, False, True]
    assert rows[1]["reason"] == f"semantic copy of {0:024x} (cosine 0.995 >= 0.95)"
    assert rows[1]["duplicate_of"] == f"{0:024x}"
    assert [row["cluster"] for row in rows] == [0, 0, 1]


def test_weights_are_inverse_square_roots_of_mean_one() -> None:
    cluster = np.array([0, 0, 0, 0, 1, 1, -1])
    keep = np.array([True, True, True, True, True, False, True])
    # 1/2 four times and 1 once: their mean is 0.6.
    assert balance(cluster, keep) == pytest.approx([5 / 6] * 4 + [5 / 3, 1, 1])


def test_embeddings_that_cannot_be_compared_are_left_alone() -> None:
    clips = table(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), ["a", "a", "a"])
    rows = clips.to_pylist()
    rows[1]["embedding_model"] = None
    rows[2]["embedding"] = [1.0, 0.0, 0.0]
    clips = pa.Table.from_pylist(rows, schema=CLIPS)
    config = SemanticConfig(min_similarity=0.9)
    cluster, found = semantic_copies(clips, np.ones(3, bool), np.arange(3), config)
    assert cluster.tolist() == [0, -1, 1]
    assert found == {}


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_embeddings_without_a_direction_are_left_alone(bad: list[float]) -> None:
    clips = table(np.array([[1.0, 0.0], bad, bad, [1.0, 0.01]]))
    config = SemanticConfig(min_similarity=0.0)
    cluster, found = semantic_copies(clips, np.ones(4, bool), np.arange(4), config)
    assert cluster.tolist() == [0, -1, -1, 0]
    assert list(found) == [3]


def test_a_cluster_has_rows() -> None:
    with pytest.raises(BadInput, match="cluster_rows"):
        SemanticConfig(cluster_rows=0)
