"""Tensors to loss: VoCo pretraining, fine-tuning, prediction. torch; never opens a CT file itself.

The public names below are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocotrain.config import PretrainConfig as PretrainConfig
    from vocotrain.config import load_config as load_config
    from vocotrain.finetune_config import FinetuneConfig as FinetuneConfig
    from vocotrain.finetune_config import load_finetune_config as load_finetune_config
    from vocotrain.finetuning import finetune as finetune
    from vocotrain.models.encoder import VoCoEncoder as VoCoEncoder
    from vocotrain.models.swin_unetr import SwinUNETR as SwinUNETR
    from vocotrain.prediction import predict as predict
    from vocotrain.pretraining import pretrain as pretrain
    from vocotrain.weights import load_weights as load_weights

_HOME = {
    "FinetuneConfig": "vocotrain.finetune_config",
    "PretrainConfig": "vocotrain.config",
    "SwinUNETR": "vocotrain.models.swin_unetr",
    "VoCoEncoder": "vocotrain.models.encoder",
    "finetune": "vocotrain.finetuning",
    "load_config": "vocotrain.config",
    "load_finetune_config": "vocotrain.finetune_config",
    "load_weights": "vocotrain.weights",
    "predict": "vocotrain.prediction",
    "pretrain": "vocotrain.pretraining",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        msg = f"module 'vocotrain' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)
