"""From a recipe and `--set` words to a checked, frozen settings tree; all faults in one message.

YAML is read safely, and numbers as YAML 1.2 writes them, so `1e-3` is a number. The tree is then
validated in strict JSON mode: lists are taken for tuples, text is never taken for numbers.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vocodata.expectations import expected
from vocotrain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

Tree = dict[str, Any]
Key = tuple[str | int, ...]


class Settings(BaseModel):
    """One part of a settings tree: frozen, strict, no unknown keys, no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


SettingsT = TypeVar("SettingsT", bound=Settings)


class _Loader(yaml.SafeLoader):
    """Safe YAML with the numbers of YAML 1.2 and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (PyYAML's own signature)
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {min(twice)!r} is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def recipe_text(path: Path) -> str:
    """What a recipe's file holds.

    Raises:
        ConfigError: It cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"Recipe file {path} cannot be read: {error.strerror}. Check the path."
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"Recipe file {path} is no text in UTF-8 ({error.reason}). Give a YAML file."
        raise ConfigError(msg) from error


def read_tree(text: str, where: str) -> Tree:
    """Read a YAML mapping.

    Args:
        text: The YAML.
        where: What to call it in an error, such as the file's name.

    Raises:
        ConfigError: Not YAML, not a mapping, or a key is there twice.
    """
    try:
        tree = _plain(text)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        msg = f"{where} is not readable YAML: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if not isinstance(tree, dict):
        msg = f"{where} holds {type(tree).__name__}; expected keys and values at the top level."
        raise ConfigError(msg)
    return tree


def merged(tree: Mapping[str, Any], values: Mapping[str, Any], sets: Iterable[str]) -> Tree:
    """Put values over a tree.

    Args:
        tree: What a recipe holds; stays as it is.
        values: Dotted key to value, taken as they are.
        sets: Words `a.b=c`, the value read as YAML; they win.

    Raises:
        ConfigError: Some words have no key or no value; all of them are named.
    """
    result: Tree = json.loads(json.dumps(tree))
    faults: list[str] = []
    for key, value in values.items():
        _put(result, key, value, faults)
    for word in sets:
        key, equals, text = word.partition("=")
        if not equals or not all(key.strip().split(".")):
            faults.append(f"--set {word!r}: expected key=value, such as train.steps=100.")
            continue
        try:
            value = _plain(text)
        except (yaml.YAMLError, RecursionError, ValueError, TypeError):
            faults.append(f"--set {word!r}: the value is not plain YAML; put it in quotes.")
            continue
        _put(result, key.strip(), value, faults)
    _refuse(faults, "the command line")
    return result


def validated(
    schema: type[SettingsT],
    tree: Mapping[str, Any],
    where: str,
    *,
    flags: Mapping[str, str] | None = None,
) -> SettingsT:
    """Check a tree against its schema.

    Args:
        schema: The settings class.
        tree: Plain values, as YAML or JSON gives them.
        where: What to call it in an error.
        flags: Dotted key to the option that gives it, and what it may say, for keys that have one.

    Raises:
        ConfigError: Every fault, with its key.
    """
    try:
        return schema.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        faults = [
            sentence
            for fault in error.errors()
            for sentence in _sentences(schema, fault, flags or {})
        ]
        msg = _report(faults, where)
        raise ConfigError(msg) from None


def keys_of(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted leaf keys of a schema, in order."""
    keys: list[str] = []
    for name, field in schema.model_fields.items():
        part = _part_of(field.annotation)
        keys += keys_of(part, f"{prefix}{name}.") if part else [prefix + name]
    return keys


def closest(word: str, known: Sequence[str]) -> str:
    """A "did you mean" for an unknown word, or nothing.

    >>> closest("vocco", ["voco", "tiny"])
    " Did you mean 'voco'?"
    """
    last = {key.rsplit(".", 1)[-1]: key for key in reversed(known)}
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not found:
        short = difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.6)
        found = [last[name] for name in short]
    return f" Did you mean {found[0]!r}?" if found else ""


def _plain(text: str) -> Any:  # noqa: ANN401 (whatever the YAML holds)
    """Values that JSON has too: an anchor may stand within what it names, a tag may ask for bytes.

    Raises:
        YAMLError: Not YAML.
        RecursionError: Nested too deep.
        ValueError: It holds itself.
        TypeError: It has a value or a key that JSON has not.
    """
    value = yaml.load(text, _Loader)  # noqa: S506 (a subclass of SafeLoader)
    json.dumps(value)
    return value


def _put(tree: Tree, key: str, value: object, faults: list[str]) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        group: object = tree.setdefault(parent, {})
        if not isinstance(group, dict):
            faults.append(f"{key}: {parent!r} is a value, not a group of keys.")
            return
        tree = group
    tree[name] = value


def _sentences(schema: type[BaseModel], fault: ErrorDetails, flags: Mapping[str, str]) -> list[str]:
    """What to say about one fault: a group that is missing is told by the keys that it needs."""
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return [f"{key}: no such key.{closest(key, keys_of(schema))}"]
    if fault["type"] == "missing":
        needed = _needed(schema, key) or {key: "one more value"}
        return [
            f"{leaf}: missing; expected {what}. "
            f"Give {flags.get(leaf) or f'--set {leaf}=...'}, or write it into a recipe."
            for leaf, what in needed.items()
        ]
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return [message]
    came, words = json.dumps(fault["input"], default=str), expected(fault)
    if words is not None:
        return [f"{key} is {came}; expected {words}."]
    stop = "" if message.endswith((".", "?")) else "."
    return [f"{key} is {came}: {message[0].lower()}{message[1:]}{stop}"]


def _needed(schema: type[BaseModel], key: str, prefix: str = "") -> dict[str, str]:
    """Dotted keys without a default at or below a key, each with what the schema says of it."""
    needed: dict[str, str] = {}
    for name, field in schema.model_fields.items():
        path, part = prefix + name, _part_of(field.annotation)
        is_at = f"{path}.".startswith(f"{key}.")
        if part is not None and (is_at or key.startswith(f"{path}.")):
            needed |= _needed(part, key, f"{path}.")
        elif part is None and is_at and field.is_required():
            words = (field.description or "a value").removesuffix(".")
            needed[path] = words[0].lower() + words[1:]
    return needed


def _refuse(faults: Sequence[str], where: str) -> None:
    if faults:
        msg = _report(faults, where)
        raise ConfigError(msg)


def _report(faults: Sequence[str], where: str) -> str:
    head = f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in {where}:"
    return "\n".join([head, *(f"  {fault}" for fault in faults)])


def _part_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None
