"""Every way the data room says no, and the short codes that land in `excluded.parquet`.

    VocoDataError
    ├── UnreadableScanError (OSError)       the bytes cannot be read as one CT volume
    ├── RemoteError (RuntimeError)          a server refuses, or does not answer; exit code 4
    ├── GeometryError (ValueError)          the voxels have no usable place in the patient
    ├── ImplausibleScanError (ValueError)   readable, yet not a CT that training should see
    ├── NotEnoughMemoryError (MemoryError)  a scan that will not fit, by its header
    ├── ManifestError (ValueError)          the list of sources is wrong
    ├── PresetError (ValueError)            no such row in presets.yaml
    ├── StoreError (ValueError)             a store that is damaged, or not a store
    │   ├── StoreExistsError (FileExistsError)
    │   ├── StoreLockedError            another build is at work there
    │   ├── StoreUnreachableError (ConnectionError)   its server does not answer; exit code 4
    │   └── DiskFullError               exit code 4
    ├── LedgerError (ValueError)            the build's ledger is damaged or of another build
    ├── SaltError (ValueError)              the salt that hides identifiers is lost or another one
    ├── SourceLostError (FileNotFoundError)  a source went away during the build; exit code 4
    ├── SchedulerError (ConnectionError)    the Dask scheduler cannot be reached, or went away
    ├── BuildInterruptedError               stopped by a signal; resumable
    └── SampleUnavailableError (OSError)    the sample scans cannot be fetched

Each has a `code`, a key of `REASONS`, and a `detail` for people, and survives pickling whole.
"""

from __future__ import annotations

from typing import Self

REASONS: dict[str, str] = {
    "unreadable": "The file could not be read; the detail says why.",
    "file_missing": "The file or folder is not there.",
    "folder_with_file_name": "A folder has the name of a file, such as scan.nii.gz.",
    "empty_file": "The file has no bytes.",
    "unknown_format": "The name ends in none of the formats that are read.",
    "wrong_magic": "The file's first bytes are not those of the format its name says.",
    "truncated_gzip": "The gzip stream ends too early.",
    "corrupt_gzip": "The gzip stream is damaged: checksum, length or block.",
    "truncated_file": "The file holds fewer voxels than its header says.",
    "corrupt_header": "The header contradicts itself.",
    "overlong_gzip": "The gzip stream holds far more than the header says: a decompression bomb.",
    "archive_unsafe_path": "The archive's name for the file leads out of the archive.",
    "archive_link": "The archive holds a link, device or sparse file in place of the scan.",
    "archive_encrypted": "The archive's copy of the file is encrypted.",
    "archive_compression": "The archive packed the file in a way that is not read.",
    "archive_bomb": "The file is larger than declared, or than any scan.",
    "archive_crc": "The file's bytes do not have the checksum that the archive says.",
    "archive_corrupt": "The file's bytes in the archive are damaged.",
    "archive_truncated": "The archive ends within the file.",
    "archive_duplicate": "The archive holds two files of the same name.",
    "unsupported_dtype": "The voxels are of a kind that cannot be HU, such as RGB or complex.",
    "not_three_dimensional": "The volume is not one three-dimensional image.",
    "bad_affine": "The affine holds NaN or infinity, or squashes space flat.",
    "zero_spacing": "A voxel has no extent along an axis.",
    "negative_spacing": "A spacing is below zero, so the way an axis runs is not known.",
    "no_geometry": "The header gives no place in the patient.",
    "sheared_grid": "The voxel axes are not at right angles.",
    "no_dicom": "The folder holds no DICOM image.",
    "corrupt_dicom": "A DICOM file is damaged or lacks an attribute that is needed.",
    "unsupported_dicom": "The DICOM object or its compression cannot be read.",
    "not_ct": "The DICOM modality is not CT.",
    "not_hu": "The DICOM series is scaled to something else than HU, such as iodine.",
    "localizer": "The DICOM series holds localizer (scout) images.",
    "mixed_series": "The DICOM folder holds more than one series.",
    "scattered_series": "Slices of the DICOM series lie in several folders and do not add up.",
    "mixed_patients": "The slices of a DICOM series are of more than one patient.",
    "mixed_geometry": "The slices of a DICOM series differ in size, spacing or orientation.",
    "single_slice": "The DICOM series has one slice, so no spacing along z.",
    "duplicate_slices": "Two slices lie at the same position.",
    "missing_slices": "The slices leave a gap of one or more slices.",
    "uneven_slices": "The distances between slices differ.",
    "shifted_slices": "Slices of a series lie beside one another, not in one line.",
    "gantry_tilt": "The slices are stacked at an angle that no tilted gantry explains.",
    "non_finite_hu": "Voxels are NaN or infinite.",
    "constant_volume": "All voxels have the same value.",
    "implausible_hu": "The values cannot be HU.",
    "implausible_spacing": "A voxel is too small or too large for CT.",
    "implausible_size": "The volume is too small or too large for CT.",
    "small_field": "The scan is narrower or shorter than a patient's part.",
    "large_field": "The scan is wider or longer than a patient.",
    "few_slices": "There are few axial slices.",
    "coarse_spacing": "Voxels are coarse along an axis.",
    "screenshot": "Values run from 0 to 255: grey levels, not HU.",
    "shifted_hu": "Air is near 0 and water near 1000: 1024 was not subtracted.",
    "off_scale": "The air around the patient is not near -1000 HU.",
    "no_air": "Nothing is below -500 HU.",
    "no_soft_tissue": "Hardly anything is between -150 and 150 HU.",
    "no_bone": "Hardly anything is above 150 HU.",
    "truncated_range": "Values are cut off inside the range of tissue.",
    "extreme_hu": "There are values far beyond metal, or far below padding.",
    "flat_slices": "There are slices that hold one value.",
    "repeated_slices": "There are slices that repeat the one before.",
    "little_body": "Little of the scan is body.",
    "much_padding": "Most of the scan is padding.",
    "much_table": "Much lies apart from the body.",
    "maybe_back_to_front": "Bone lies towards the front of the scan.",
    "maybe_upside_down": "Organs lie as if the head were at the feet of the scan.",
    "maybe_mirrored": "Heart and liver are on the other side.",
    "listed": "A list of scans to leave out names it.",
    "empty_foreground": "No voxel is above the preset's foreground threshold.",
    "labels_missing": "The label file is not there.",
    "labels_unreadable": "The label file cannot be read.",
    "labels_not_integers": "The label file holds values that are not integers from 0 to 65535.",
    "label_grid_mismatch": "The labels do not lie on the scan's grid.",
    "manifest": "The manifest is wrong.",
    "preset": "The preset is not known.",
    "store": "The store is damaged or not a store.",
    "store_exists": "The output is there already.",
    "store_locked": "Another build is writing to the store.",
    "disk_full": "The disk or the quota is full.",
    "accounting": "Scans found are not those in the catalogue and the excluded ones together.",
    "scheduler": "The Dask scheduler cannot be reached, or went away.",
    "interrupted": "The build was stopped by a signal.",
    "kills_worker": "Processing the scan ended its worker three times; most often out of memory.",
    "out_of_memory": "The scan does not fit the memory.",
    "io_error": "The file system refused to read the scan.",
    "source_unreachable": "The server that has the scan refused it or did not answer.",
    "source_changed": "The scan changed on its server after it was listed.",
    "unexpected_error": "Processing failed in a way nobody foresaw; the detail says how.",
    "ledger": "The ledger is damaged or belongs to another build.",
    "salt": "The salt that hides identifiers is lost, too short, or another one.",
    "sample_unavailable": "The sample scans could not be fetched.",
}


class VocoDataError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: Short fixed reason, a key of `REASONS`.
        detail: What was expected, what came, where, and what to do.
    """

    default_code = "unreadable"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        """Keep the sentence and the code; the code is the class's own unless one is given."""
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        assert self.code in REASONS, f"reason code {self.code!r} is not in REASONS"

    def __str__(self) -> str:
        """The sentence alone, whatever builtin the class also is."""
        return self.detail

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the code and the notes, which the default would lose."""
        return _restore, (type(self), self.detail, self.code, self.__dict__)

    def named(self, where: str) -> Self:
        """The same error with the scan's name in front; for the door that knows the name."""
        return type(self)(f"{where}: {self.detail}", code=self.code)


def _restore(
    kind: type[VocoDataError], detail: str, code: str, state: dict[str, object]
) -> VocoDataError:
    error = kind(detail, code=code)
    error.__dict__.update(state)
    return error


class UnreadableScanError(VocoDataError, OSError):
    """The bytes cannot be read as one CT volume."""


class RemoteError(VocoDataError, RuntimeError):
    """A server refuses, does not answer, or cannot be spoken to.

    No OSError, so that nobody takes it for a damaged file.
    """

    default_code = "source_unreachable"
    exit_code = 4


class RemoteRefusedError(RemoteError):
    """A server does not allow it."""


class GeometryError(VocoDataError, ValueError):
    """The voxels have no usable place in the patient."""

    default_code = "bad_affine"


class ImplausibleScanError(VocoDataError, ValueError):
    """Readable, yet not a CT that training should see."""

    default_code = "implausible_hu"


class NotEnoughMemoryError(VocoDataError, MemoryError):
    """A scan that will not fit the memory it may take; known before a voxel is read.

    Attributes:
        needed_bytes: What it was predicted to take.
    """

    default_code = "out_of_memory"
    needed_bytes = 0

    def named(self, where: str) -> Self:
        """The same error with the scan's name in front."""
        error = super().named(where)
        error.needed_bytes = self.needed_bytes
        return error


class ManifestError(VocoDataError, ValueError):
    """The manifest, or what it points to, is wrong."""

    default_code = "manifest"


class PresetError(VocoDataError, ValueError):
    """A preset that is not in presets.yaml, or a row there that is wrong."""

    default_code = "preset"


class StoreError(VocoDataError, ValueError):
    """A store that is damaged, or a folder that is not a store."""

    default_code = "store"


class StoreExistsError(StoreError, FileExistsError):
    """The output is there already, and nobody asked to resume or overwrite."""

    default_code = "store_exists"


class StoreLockedError(StoreError):
    """Another build is writing to the same store."""

    default_code = "store_locked"


class DiskFullError(StoreError):
    """No room for what must be written; nothing half-written is left behind."""

    default_code = "disk_full"
    exit_code = 4


class StoreUnwritableError(StoreError):
    """The file system refuses what must be written, for another reason than room."""

    exit_code = 4


class StoreUnreachableError(StoreError, ConnectionError):
    """The server of a store refuses, or does not answer; the build can be resumed."""

    exit_code = 4


class SourceLostError(VocoDataError, FileNotFoundError):
    """A source's files went away while a build read them; the build can be resumed."""

    default_code = "file_missing"
    exit_code = 4


class SchedulerError(VocoDataError, ConnectionError):
    """Dask's scheduler or workers cannot be reached, went away, or are not of this build's kind."""

    default_code = "scheduler"
    exit_code = 4


class BuildInterruptedError(VocoDataError):
    """The build was stopped by a signal, cleanly: what is done is kept.

    Attributes:
        signum: The signal; the command's exit code is 128 + signum.
        done: Scans settled so far, of `found`.
        found: Scans the manifest names.
    """

    default_code = "interrupted"
    signum = 2
    done = 0
    found = 0


class LedgerError(VocoDataError, ValueError):
    """The build's ledger is damaged or belongs to another build."""

    default_code = "ledger"


class SaltError(VocoDataError, ValueError):
    """The salt that hides identifiers is lost, too short, or another one than before."""

    default_code = "salt"
    exit_code = 2


class SampleUnavailableError(VocoDataError, OSError):
    """The sample scans are not cached and cannot be fetched."""

    default_code = "sample_unavailable"
