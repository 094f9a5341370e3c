"""Every way the training room says no.

    VocoTrainError
    ├── ConfigError (ValueError)                the recipe, `--set` or their combination is wrong
    │   └── ResumeMismatchError                 the run to resume was started with other settings
    ├── CropOutsideGridError (ValueError)       a crop leaves the base grid
    ├── DeviceUnavailableError (RuntimeError)   the device or precision asked for is not there
    ├── RunExistsError (FileExistsError)        the output folder is not empty
    ├── RunLockedError (RuntimeError)           another process writes this run
    ├── CheckpointError (ValueError)            no complete checkpoint to resume from
    ├── StoreMismatchError (ValueError)         the store is not the one the run was started on
    ├── LabelsError (ValueError)                no scan has the labels that the task needs
    ├── ScanReadError (OSError)                 a field of a scan cannot be read from the store
    ├── LoaderDiedError (RuntimeError)          a process that reads fields was killed
    ├── TrainingDivergedError (ArithmeticError) the loss is not finite
    ├── BenchmarkSettingsError (ValueError)     a benchmark of something that does not exist
    ├── BenchmarkError (RuntimeError)           a benchmark's reader is wrong, or its process died
    ├── ModelSizeError (ValueError)             no such size, or a row that cannot be built
    ├── InputShapeError (ValueError)            a batch the model cannot take
    ├── WeightsFileError (ValueError)           a file of weights that cannot be read
    │   └── UnsafeWeightsError                  it asks for code to be run; it was not
    ├── WeightsMismatchError (ValueError)       the weights are of another model
    └── TrainingStoppedError (RuntimeError)     SIGINT or SIGTERM, after a clean checkpoint

All of them survive pickling, so an error in a loader's worker arrives whole.
"""

from __future__ import annotations


class VocoTrainError(Exception):
    """Base of all errors of this package."""


class ConfigError(VocoTrainError, ValueError):
    """The recipe, a `--set`, or the combination of settings is wrong."""


class ResumeMismatchError(ConfigError):
    """The run to resume was started with settings that may not change on the way."""


class CropOutsideGridError(VocoTrainError, ValueError):
    """A crop leaves the base grid, so it has no position label."""


class DeviceUnavailableError(VocoTrainError, RuntimeError):
    """The device or the precision asked for is not available here."""


class RunExistsError(VocoTrainError, FileExistsError):
    """The output folder is not empty, and nobody asked to resume."""


class RunLockedError(VocoTrainError, RuntimeError):
    """Another process is writing this run folder."""


class CheckpointError(VocoTrainError, ValueError):
    """A checkpoint is damaged, or there is none to resume from."""


class StoreMismatchError(VocoTrainError, ValueError):
    """The store differs from the one the run was started on."""


class LabelsError(VocoTrainError, ValueError):
    """The labels of a scan, or of all scans, are not those that the task needs."""


class ScanReadError(VocoTrainError, OSError):
    """A field of a scan cannot be read from the store."""


class LoaderDiedError(VocoTrainError, RuntimeError):
    """A process that reads fields was killed, as a machine does that runs out of memory."""


class TrainingDivergedError(VocoTrainError, ArithmeticError):
    """The loss is not finite; the last complete checkpoint is from before."""


class BenchmarkSettingsError(VocoTrainError, ValueError):
    """A benchmark was asked for something that does not exist."""


class BenchmarkError(VocoTrainError, RuntimeError):
    """What is measured gives wrong results, or its process died: there are no numbers."""


class ModelSizeError(VocoTrainError, ValueError):
    """There is no such size, or its numbers do not make a model."""


class InputShapeError(VocoTrainError, ValueError):
    """A batch whose shape the model cannot take."""


class WeightsFileError(VocoTrainError, ValueError):
    """A file or folder of weights cannot be read or is not what it should be."""


class UnsafeWeightsError(WeightsFileError):
    """A pickle that asks for code to be run; nothing of it was."""


class WeightsMismatchError(VocoTrainError, ValueError):
    """The weights belong to another model than the one to be filled."""


class TrainingStoppedError(VocoTrainError, RuntimeError):
    """The run was asked to stop and did, after a clean checkpoint.

    Attributes:
        signal_number: What asked: `signal.SIGINT` or `signal.SIGTERM`.
        exit_code: What a shell expects then: 128 + the signal's number.
    """

    def __init__(self, detail: str, signal_number: int = 15) -> None:
        """Keep the sentence and the signal."""
        super().__init__(detail, signal_number)
        self.signal_number = int(signal_number)
        self.exit_code = 128 + self.signal_number

    def __str__(self) -> str:
        """The sentence alone."""
        return str(self.args[0])
