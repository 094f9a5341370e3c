import json
from pathlib import Path

import pytest

from vocotrain import doctor


def test_this_machine_is_fit_and_every_row_has_a_value(tmp_path):
    checks = doctor.examine(tmp_path)
    assert doctor.is_fit(checks), [check for check in checks if check.status == "bad"]
    assert all(check.value for check in checks)
    names = {check.name for check in checks}
    assert {"Python", "torch", "GPU", "c-blosc2", "memory", "disk", "write speed"} <= names
    json.dumps([vars(check) for check in checks])


def test_whatever_is_not_ok_comes_with_advice(tmp_path):
    checks = [
        *doctor.examine(tmp_path),
        doctor.check_python((3, 10, 2)),
        *doctor.check_packages(["surely-not-installed>=2", "numpy>=999"]),
        doctor.check_memory(2**30),
        doctor.check_shared_memory(tmp_path / "missing"),
        doctor.check_write_speed(tmp_path / "missing"),
    ]
    assert all(check.advice for check in checks if check.status != "ok")


def test_an_old_python_is_bad():
    check = doctor.check_python((3, 10, 2))
    assert (check.status, check.value) == ("bad", "3.10.2")
    assert "3.11 or newer" in check.advice


@pytest.mark.parametrize(
    ("requirement", "value"),
    [
        ("surely-not-installed>=2", "missing"),
        ("numpy>=999", "expected >=999"),
    ],
)
def test_a_missing_or_old_package_is_bad_and_the_command_to_install_it_is_named(requirement, value):
    (check,) = doctor.check_packages([requirement])
    assert check.status == "bad"
    assert value in check.value
    assert f"pip install '{requirement}'" in check.advice
    assert not doctor.is_fit([check])


def test_packages_of_extras_are_not_asked_for():
    assert doctor.check_packages(['surely-not-installed; extra == "dev"']) == []


def test_little_memory_is_a_warning_and_not_a_refusal():
    check = doctor.check_memory(2**30)
    assert check.status == "warn"
    assert doctor.is_fit([check])


def test_a_container_without_cores_to_spare_is_said():
    assert doctor.check_cores(64, 2).value.startswith("2 of 64")


def test_the_probe_leaves_nothing_behind(tmp_path):
    check = doctor.check_write_speed(tmp_path)
    assert "MB/s" in check.value
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_row_and_not_a_crash():
    check = doctor.check_write_speed(Path("/proc"))
    assert check.status == "warn"
    assert "cannot write in /proc" in check.value
