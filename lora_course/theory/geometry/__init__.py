r"""The geometry of (B, A) -> B A: gauge group, horizontal vectors of two metrics, transport, holonomy."""

from .dimensions import DimensionCounts, dimension_counts
from .factors import Factors, Tangent
from .metrics import EUCLIDEAN, INVARIANT, EuclideanMetric, InvariantMetric
from .transport import Transport, holonomy, parallel_transport

__all__ = [
    "DimensionCounts",
    "dimension_counts",
    "Factors",
    "Tangent",
    "InvariantMetric",
    "INVARIANT",
    "EuclideanMetric",
    "EUCLIDEAN",
    "Transport",
    "parallel_transport",
    "holonomy",
]
