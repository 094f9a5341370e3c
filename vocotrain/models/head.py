"""The projection head of VoCo.

Shape letters: N crops, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from vocotrain.errors import InputShapeError


class ProjectionHead(nn.Module):
    """Three linear layers, with batch norm and ReLU between them.

    The batch norms have no weights and no running statistics: each batch is normalised by itself,
    in training and in evaluation, over all crops it has. So a feature's projection depends on the
    batch it comes in, and one crop alone has none.

    Source: the released VoCo code, whose student and teacher are both such heads.
    """

    def __init__(self, in_features: int, *, hidden: int = 1024, out: int = 1024) -> None:
        """Widths; `in_features` is the encoder's `feature_width`."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_features, hidden),
            nn.BatchNorm1d(hidden, affine=False, track_running_stats=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden, affine=False, track_running_stats=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )

    def forward(self, feature_ND: Tensor) -> Tensor:
        """Project features.

        Raises:
            InputShapeError: Fewer than two crops, which batch norm cannot tell apart.
        """
        if feature_ND.ndim != 2 or len(feature_ND) < 2:
            msg = (
                f"The projection head expects features (N, D) of at least two crops, got "
                f"{tuple(feature_ND.shape)}: its batch norm has no statistics of one crop. Use a "
                "batch with more crops."
            )
            raise InputShapeError(msg)
        projection_ND: Tensor = self.layers(feature_ND)
        return projection_ND
