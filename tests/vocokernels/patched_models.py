"""Patched against unpatched MONAI, whichever version is imported.

Also run by itself, as a program, to test another version: `python patched_models.py` prints the
version and exits with 1 if results differ.
"""

import copy
import sys
import warnings

import monai
import torch
from monai.networks.nets.swin_unetr import SwinTransformer, SwinUNETR

from vocokernels import patch_monai


def swin_transformer(*, window=(3, 3, 3), use_v2=True, use_checkpoint=False, **settings):
    """Maps of a small input: not divisible by the window first, and smaller than it in the end."""
    model = SwinTransformer(
        in_chans=1,
        embed_dim=8,
        window_size=window,
        patch_size=(2, 2, 2),
        depths=(2, 1, 2, 1),
        num_heads=(1, 2, 4, 8),
        use_v2=use_v2,
        use_checkpoint=use_checkpoint,
        **settings,
    )
    return with_biases(model)


def swin_unetr(**settings):
    """The smallest that MONAI builds: four stages on 32^3 or more."""
    if int(monai.__version__.split(".")[1]) < 5:
        settings["img_size"] = (32, 32, 32)  # checked and not used
    heads = {"depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    model = SwinUNETR(in_channels=1, out_channels=2, feature_size=12, **heads, **settings)
    return with_biases(model)


def with_biases(model):
    """Fresh tables and biases are near zero, so an error in them would not show."""
    for name, parameter in model.named_parameters():
        if "relative_position_bias_table" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def results(model, x):
    """Outputs and the gradients of the input and every parameter, with their names."""
    x = x.clone().requires_grad_()
    model.zero_grad(set_to_none=True)
    out = model(x)
    outs = list(out) if isinstance(out, (list, tuple)) else [out]
    sum((one.double() * one.double().cos().detach()).sum() for one in outs).backward()
    found = {f"output {number}": one.detach() for number, one in enumerate(outs)}
    found |= {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found | {"input": x.grad}


def largest_difference(model, x):
    """Between a model and its patched copy, over the norm of each result."""
    patched = copy.deepcopy(model)
    patch_monai(patched)
    theirs, ours = results(model, x), results(patched, x)
    assert theirs.keys() == ours.keys()
    assert list(model.state_dict()) == list(patched.state_dict())
    # a key's bias moves all logits of a query alike where there are no pads: its gradient is noise
    floor = 1e-9 * max(one.norm() for one in theirs.values())
    return max(
        float((ours[name] - theirs[name]).norm() / (theirs[name].norm() + floor)) for name in theirs
    )


def main():
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    differences = {
        f"{kind} v{2 if use_v2 else 1}": largest_difference(
            make(use_v2=use_v2).double(), x.double()
        )
        for kind, make, x in (
            ("SwinTransformer", swin_transformer, torch.randn(2, 1, 14, 10, 18)),
            ("SwinUNETR", swin_unetr, torch.randn(1, 1, 32, 32, 64)),
        )
        for use_v2 in (False, True)
    }
    sys.stdout.write(f"{monai.__version__} {differences}\n")
    return 0 if max(differences.values()) < 1e-9 else 1


if __name__ == "__main__":
    sys.exit(main())
