"""A Parquet table of which each column is read when it is first asked for.

What a scan's fingerprint and quality measures take is four fifths of a catalogue, and neither
opening a store nor training from it looks at them.
"""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from vocodata.errors import StoreError
from vocodata.remote.path import RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class Columns:
    """A table on disk or in a bucket.

    All columns are of the file as it was when it was opened: a build that goes on writes another
    file under the name, whose rows are others. Threads may ask at once, and forked processes too,
    since nothing is locked and reading moves no position.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, unsaid: Mapping[str, object] = MappingProxyType({})
    ) -> None:
        """Open the file and read what its columns are.

        Args:
            path: The Parquet file; one in a bucket is fetched whole.
            schema: Columns that must be there, and their types.
            unsaid: What stands for columns that may be missing.

        Raises:
            StoreError: Not there, not readable, or without a column that is needed.
        """
        self.path, self.schema, self._unsaid = path, schema, unsaid
        self._known: dict[str, pa.ChunkedArray] = {}
        with self._reading():
            is_remote = isinstance(path, RemotePath)
            self._source = pa.BufferReader(path.read_bytes()) if is_remote else pa.OSFile(str(path))
            self._metadata = pq.ParquetFile(self._source).metadata
            self._there = frozenset(self._metadata.schema.to_arrow_schema().names)
        missing = [name for name in schema.names if name not in {*self._there, *unsaid}]
        if missing:
            msg = (
                f"{path} lacks the columns {', '.join(missing)}: another version wrote it. Build "
                "again with --overwrite."
            )
            raise StoreError(msg)

    def __len__(self) -> int:
        """Rows."""
        return int(self._metadata.num_rows)

    def __contains__(self, name: str) -> bool:
        """Whether the file has a column, in the schema or not."""
        return name in self._there

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """The columns named, or all of the schema.

        Raises:
            StoreError: A column cannot be read.
        """
        wanted = self.schema.names if names is None else list(names)
        unread = [name for name in dict.fromkeys(wanted) if name not in self._known]
        if unread:
            kinds = pa.schema([self.schema.field(name) for name in unread])
            with self._reading():
                table = self.unchecked(unread).select(unread).cast(kinds)
            self._known |= dict(zip(unread, table.columns, strict=True))
        return pa.table([self._known[name] for name in wanted], names=wanted)

    def unchecked(self, names: Sequence[str]) -> pa.Table:
        """Columns as they lie in the file, also such as the schema does not have; not kept."""
        there = [name for name in names if name in self._there or name not in self._unsaid]
        with self._reading():
            table = pq.ParquetFile(self._source, metadata=self._metadata).read(there)
            # Arrow takes texts as they are; Python fails at what is no UTF-8.
            table.validate(full=True)
        for at, name in enumerate(names):
            if name not in there:
                values = pa.repeat(pa.scalar(self._unsaid[name]), len(self))
                table = table.add_column(at, name, values)
        return table

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            msg = (
                f"{self.path} is not there: the folder is no store, or its build has not "
                "finished. Build again with --resume."
            )
            raise StoreError(msg) from error
        except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
            msg = (
                f"{self.path} cannot be read ({error}). Build again with --resume, or restore the "
                "file."
            )
            raise StoreError(msg) from error
