import json

import torch

from vocotrain.device import chosen_precision
from vocotrain.environment import environment


def test_it_tells_versions_and_arithmetic():
    told = environment(torch.device("cpu"), chosen_precision("bf16", "cpu"), processes=2)
    assert told["packages"]["torch"] == torch.__version__
    assert (told["device"], told["precision"], told["processes"]) == ("cpu", "bf16", 2)
    assert told["threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(told)) == told


def test_a_package_that_is_not_installed_is_told_as_such(monkeypatch):
    monkeypatch.setattr("vocotrain.environment._PACKAGES", ("torch", "no-such-package"))
    told = environment(torch.device("cpu"), chosen_precision("fp32", "cpu"), processes=1)
    assert told["packages"] == {"torch": torch.__version__, "no-such-package": None}
