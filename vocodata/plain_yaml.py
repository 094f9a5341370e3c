"""YAML of a manifest: loaded safely, no key twice, nothing that holds itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from vocodata.errors import ManifestError

if TYPE_CHECKING:
    from pathlib import Path


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (PyYAML's signature)
        seen: set[str] = set()
        for key in (str(key_node.value) for key_node, _ in node.value):
            if key in seen:
                problem = f"key {key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_plain_yaml(path: Path) -> object:
    """What a YAML file holds.

    Raises:
        ManifestError: It is not there, or is not plain YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document: object = yaml.load(text, Loader=_Loader)  # noqa: S506 (a safe loader)
        # An anchor may stand within what it names.
        json.dumps(document, default=str)
    except FileNotFoundError as error:
        msg = f"Manifest {path} is not there. Correct the path, or write one."
        raise ManifestError(msg) from error
    except OSError as error:
        msg = f"Manifest {path} cannot be read ({error.strerror or error}); expected a YAML file."
        raise ManifestError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"Manifest {path} cannot be read as text ({error}). Save it as UTF-8."
        raise ManifestError(msg) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        msg = f"{path} is not plain YAML: {error}"
        raise ManifestError(msg) from error
    return document
