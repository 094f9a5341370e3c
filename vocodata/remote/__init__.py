"""Sources and stores that lie elsewhere: `s3://bucket/prefix` and `https://host/folder/`.

`path.py` is a URL that behaves as a path and hides what must not be shown, `backoff.py` says which
errors pass and how long to wait for that, `s3.py` and `http.py` speak to servers, `objects.py` is
the one door to both, `ranged_file.py` an object that can seek, `tree.py` a source's files, listed
once, and `scratch.py` the place where a scan lies while it is worked on.
"""

from vocodata.remote.path import RemotePath, as_path, is_url, place_of, redacted

__all__ = ["RemotePath", "as_path", "is_url", "place_of", "redacted"]
