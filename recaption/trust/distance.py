"""How far a caption's embedding lies from the one that its clip leads to expect.

    found = distances(pictures, texts)              # unit vectors, row by row of one clip and its caption
    found.own                                       # (M,), each caption's distance from what its clip predicts
    found.random(0.002, rng)                        # the distance that 0.2 % of random pairs stay under

A cosine weighs every direction of the space alike, so a caption that is wrong in one attribute fits nearly as well as
the right one. Here captions are predicted from pictures by ridge regression over the dataset itself, each caption
without its own part in it (leave-one-out, exact by the hat matrix), and what is left over is measured in the metric
of what is commonly left over (Mahalanobis): manners of speaking count little, a wrong colour much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Ridge, in units of the mean eigenvalue of the pictures.
RIDGE = 0.1
#: Added to the covariance of the residuals, in units of its mean eigenvalue: with few captions it is all but unknown.
SHRINKAGE = 3.0
_BLOCK = 2048


@dataclass(frozen=True)
class Distances:
    """Captions beside what their clips predict, in a space where distances are comparable.

    Attributes:
        own: (M,) squared distance of each caption from the prediction of its own clip.
        said: (M, D) captions in that space.
        predicted: (M, D) what the clip of each predicts.
    """

    own: np.ndarray
    said: np.ndarray
    predicted: np.ndarray

    def random(self, share: float, rng: np.random.Generator) -> float:
        """The squared distance that `share` of pairs of a caption and another's clip stay under."""
        rows = rng.permutation(len(self.own))[:_BLOCK]
        others = rng.permutation(len(self.own))[:_BLOCK]
        said, predicted = self.said[rows], self.predicted[others]
        squares = (said**2).sum(1)[:, None] + (predicted**2).sum(1)[None] - 2 * said @ predicted.T
        return float(np.quantile(squares[rows[:, None] != others[None]], share))


def distances(pictures: np.ndarray, texts: np.ndarray) -> Distances:
    """Fit and measure; `pictures` and `texts` are (M, D), centred, and row i of both belongs together.

    Cost: M D^2 and D^3.
    """
    pictures, texts = pictures.astype(np.float64), texts.astype(np.float64)
    n, width = pictures.shape
    values, directions = np.linalg.eigh(pictures.T @ pictures)
    ridge = RIDGE * values.sum() / min(n, width)
    turned = pictures @ directions  # (M, D)
    shrunk = turned / (np.maximum(values, 0) + ridge)
    predicted = shrunk @ (turned.T @ texts)
    left_out = 1 - (shrunk * turned).sum(1)  # 1 - the leverage of each row; above 0 with any ridge
    residual = (texts - predicted) / left_out[:, None]
    covariance = residual.T @ residual / n
    covariance += SHRINKAGE * np.trace(covariance) / width * np.eye(width)
    metric = np.linalg.cholesky(np.linalg.inv(covariance))
    own = ((residual @ metric) ** 2).sum(1)
    return Distances(own, texts @ metric, (texts - residual) @ metric)
