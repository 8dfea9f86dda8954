"""Clips that show the same thing: k-means over CLIP embeddings, and inside a cluster cosine >= threshold.

    cluster, copies = semantic_copies(clips, passed, order, SemanticConfig(min_similarity=0.95))

After SemDeDup (Abbas et al., 2023): only pairs of one cluster are compared, so the cost is not quadratic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import BadInput

_BLOCK = 2048  # rows compared with their cluster at once


@dataclass(frozen=True)
class SemanticConfig:
    """Which clips count as showing the same thing.

    Attributes:
        min_similarity: cosine of two clips' embeddings from which on the worse one is a copy; null is off.
            The embedded CLIP knows only the demo's world: use a real model for real footage.
        balance: weight kept clips by the inverse square root of their cluster's size.
        cluster_rows: clips per k-means cluster, on average.
        seed: of k-means.
    """

    min_similarity: float | None = None
    balance: bool = False
    cluster_rows: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cluster_rows < 1:
            raise BadInput(f"semantic.cluster_rows is {self.cluster_rows}: a cluster has at least 1 clip.")


def semantic_copies(
    clips: pa.Table, passed: np.ndarray, order: np.ndarray, config: SemanticConfig
) -> tuple[np.ndarray, dict[int, tuple[int, float]]]:
    """Cluster of each row (-1 for none), and row of each copy -> (row of the better one, cosine).

    Rows outside `passed` (bool mask) and rows without embedding are left alone; only embeddings of one model
    and one length are compared, and none that has no direction (zeros, not finite) or whose model is not told.
    `order`: rank of each row, the best copy first.
    """
    cluster = np.full(len(clips), -1, np.int32)
    copies: dict[int, tuple[int, float]] = {}
    models = np.array(clips["embedding_model"].to_pylist(), dtype=object)
    lengths = pc.fill_null(pc.list_value_length(clips["embedding"]), 0).to_numpy()
    known = passed & (lengths > 0) & (models != None)  # noqa: E711  (elementwise)
    for model, length in sorted({(str(models[row]), int(lengths[row])) for row in np.flatnonzero(known)}):
        rows = np.flatnonzero(known & (models == model) & (lengths == length))
        vectors = pc.list_flatten(clips["embedding"].take(rows)).to_numpy().astype(np.float32)
        vectors = vectors.reshape(-1, length)
        norms = np.linalg.norm(vectors, axis=1)
        directed = np.isfinite(norms) & (norms > 0)
        rows = rows[directed]
        if not len(rows):
            continue
        vectors = vectors[directed] / norms[directed, None]
        labels = _clusters(vectors, config)
        cluster[rows] = labels + cluster.max() + 1
        if config.min_similarity is not None:
            for label in range(labels.max() + 1):
                members = np.flatnonzero(labels == label)
                members = members[np.argsort(order[rows[members]])]
                for worse, better, cosine in _inside(vectors[members], config.min_similarity):
                    copies[int(rows[members[worse]])] = (int(rows[members[better]]), cosine)
    return cluster, copies


def balance(cluster: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Sampling weights: kept clips by 1 / sqrt(kept clips of their cluster), of mean 1; others have 1."""
    weight = np.ones(len(cluster))
    known = keep & (cluster >= 0)
    if known.any():
        weight[known] = 1 / np.sqrt(np.bincount(cluster[known])[cluster[known]])
        weight[known] /= weight[known].mean()
    return weight.astype(np.float32)


def _clusters(vectors: np.ndarray, config: SemanticConfig) -> np.ndarray:
    """Labels from 0; vectors are of unit length, so that Euclidean k-means is the spherical one."""
    from sklearn.cluster import MiniBatchKMeans

    count = max(1, len(vectors) // config.cluster_rows)
    if count == 1:
        return np.zeros(len(vectors), np.int64)
    means = MiniBatchKMeans(count, batch_size=4096, max_iter=20, n_init=1, random_state=config.seed)
    return np.asarray(means.fit_predict(vectors)).astype(np.int64)


def _inside(vectors: np.ndarray, least: float) -> list[tuple[int, int, float]]:
    """(worse, better, cosine) of one cluster in the order of quality; a copy stands for no other clip."""
    found = []
    copy = np.zeros(len(vectors), bool)
    for begin in range(0, len(vectors), _BLOCK):
        similar = vectors[begin : begin + _BLOCK] @ vectors.T
        for i, row in enumerate(similar, begin):
            if copy[i]:
                continue
            for j in np.flatnonzero(row[i + 1 :] >= least) + i + 1:
                if not copy[j]:
                    copy[j] = True
                    found.append((int(j), i, float(row[j])))
    return found
