"""The Fréchet distance between two sets of features: how far what a model draws is from what there is.

    frechet_distance(features_of_drawn, features_of_true)        # both (N, D)

Of Gaussians with the means and covariances of the sets (Dowson & Landau, 1982; Heusel et al., arXiv:1706.08500):

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)

FID takes Inception's features and FVD those of I3D; with others the figures are other figures. It grows as sets get
smaller, even between two sets of the same source: compare only sets of one size.
"""

from __future__ import annotations

import numpy as np


def frechet_distance(one: np.ndarray, two: np.ndarray) -> float:
    """In squared units of the features. Raises ValueError for fewer than two rows, which have no covariance."""
    if min(len(one), len(two)) < 2:
        raise ValueError(f"a covariance needs at least two rows, there are {len(one)} and {len(two)}")
    x, y = np.asarray(one, np.float64), np.asarray(two, np.float64)
    between = x.mean(axis=0) - y.mean(axis=0)
    c1, c2 = np.cov(x, rowvar=False).reshape(x.shape[1], -1), np.cov(y, rowvar=False).reshape(x.shape[1], -1)
    root = _root(c1)
    # (C1 C2)^½ has the trace of (C1^½ C2 C1^½)^½, which is symmetric.
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ c2 @ root), 0, None)).sum()
    return float(max(0.0, between @ between + np.trace(c1) + np.trace(c2) - 2 * cross))


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root; what rounding makes negative is zero."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
