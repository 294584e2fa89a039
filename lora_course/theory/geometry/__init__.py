r"""The geometry of (B, A) -> B A: gauge group, horizontal vectors of three metrics, transport, holonomy."""

from .dimensions import DimensionCounts, dimension_counts
from .factors import Factors, RowFactors, Tangent
from .metrics import EUCLIDEAN, INVARIANT, DampedMetric, EuclideanMetric, InvariantMetric
from .transport import Transport, holonomy, parallel_transport

__all__ = [
    "DimensionCounts",
    "dimension_counts",
    "Factors",
    "RowFactors",
    "Tangent",
    "InvariantMetric",
    "INVARIANT",
    "EuclideanMetric",
    "DampedMetric",
    "EUCLIDEAN",
    "Transport",
    "parallel_transport",
    "holonomy",
]
