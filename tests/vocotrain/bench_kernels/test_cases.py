import pytest

from vocotrain.bench_kernels.cases import attention_cases
from vocotrain.errors import BenchmarkSettingsError, ModelSizeError


def test_a_stage_has_half_the_side_and_twice_the_channels_of_the_one_before():
    cases = list(attention_cases(["B"], [64], [], maps=2))
    assert [case.side for case in cases] == [32, 16, 8, 4]
    assert [case.channels for case in cases] == [48, 96, 192, 384]
    assert [case.heads for case in cases] == [3, 6, 12, 24]
    assert cases[0].name == "B 64^3 stage 1"
    assert cases[0].map_xyz == (32, 32, 32)
    assert cases[0].shifts == ((0, 0, 0), (3, 3, 3))


def test_sizes_crops_and_stages_are_combined():
    cases = list(attention_cases(["B", "H"], [64, 96], [1, 3], maps=None))
    assert [case.name for case in cases][:4] == [
        "B 64^3 stage 1",
        "B 64^3 stage 3",
        "B 96^3 stage 1",
        "B 96^3 stage 3",
    ]
    assert len(cases) == 8


def test_a_gpu_gets_a_training_step_and_other_crops_as_many_voxels():
    (of_64, of_96, of_128) = attention_cases(["B"], [64, 96, 128], [1], maps=None)
    assert (of_64.maps, of_96.maps, of_128.maps) == (22, 8, 3)


@pytest.mark.parametrize(("crop_vox", "stage"), [(64, 5), (8, 4)])
def test_a_stage_that_is_not_there_is_refused(crop_vox, stage):
    with pytest.raises(
        BenchmarkSettingsError, match=rf"Stage {stage} of size 'B' at a crop of {crop_vox}\^3"
    ):
        list(attention_cases(["B"], [crop_vox], [stage], maps=1))


def test_an_unknown_size_is_refused():
    with pytest.raises(ModelSizeError, match="no model size 'Z'"):
        list(attention_cases(["Z"], [64], [], maps=1))
