"""Read the agent's options: flag over environment over file over default.

Every fault is one line that names the option and where it came from; nothing has connected by then.
"""

from __future__ import annotations

import csv
import difflib
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from agents.option_checks import faults
from agents.option_rows import Synonym
from agents.option_table import (
    SEMAPHORE_PREFIX,
    VARIABLE_PREFIX,
    Entry,
    Options,
    entries,
)

__all__ = ["OptionError", "Options", "child_environ", "load", "resolve", "to_environ", "unknown"]

#: As given: one text, texts of a repeated flag (each may be a list), items of a list, a mapping.
Raw = str | list[str] | tuple[str, ...] | dict[str, str]
#: A value as given, the synonym it was given by (if any) and where.
Given = tuple[Raw, Synonym | None, str]

_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE: Final = frozenset({"0", "false", "f", "no", "n", "off", ""})
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NAME: Final = re.compile(r"[A-Za-z0-9._/+-]+")
_ENTRY: Final = re.compile(r"[A-Za-z_]\w*=")
_ARCHES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_NO_PODS: Final = (
    "this agent does not run stages in Kubernetes pods; choose isolation docker or shell instead"
)


class OptionError(Exception):
    """A wrong option: one line naming it, where it was given, and what was expected."""

    def __init__(self, name: str, source: str, message: str) -> None:
        super().__init__(f"{name} ({source}): {message}")


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Options from command line words, environment and the configuration file these name.

    Raises: OptionError for the first thing that is wrong.
    """
    return resolve(_read_flags(argv), environ)


def resolve(flags: Mapping[str, str | Sequence[str]], environ: Mapping[str, str]) -> Options:
    """Options from flags already taken apart (key -> text or texts), environment and file.

    Raises: OptionError for the first thing that is wrong.
    """
    table = entries()
    given: dict[str, Given] = {}
    for key, raw in flags.items():
        given[key] = (raw if isinstance(raw, str) else list(raw), None, "flag")
    for key, one in _read_environ(table, environ).items():
        given.setdefault(key, one)
    if "config" in given:
        for key, one in _read_file(table, _value(table["config"], given["config"])).items():
            given.setdefault(key, one)
    values = {table[key].field: _value(table[key], one) for key, one in given.items()}
    sources = {table[key].field: one[2] for key, one in given.items()}
    return _settle(Options(**values, sources=sources), environ)


def to_environ(options: Options) -> dict[str, str]:
    """The variables that make `load` give these options again: how a child process is told.

    Only what came from flags and the file is named, the child inherits the environment's rest;
    secrets are in it.
    """
    table = {entry.field: entry for entry in entries().values()}
    return {
        table[name].variable: _as_text(getattr(options, name))
        for name, source in options.sources.items()
        if not source.startswith("environment") and name not in ("config", "name_from_env")
    }


def child_environ(options: Options, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a child process with these options.

    What a flag or the file decided is not decided again by other names in the environment, nor by
    the file.
    """
    told = to_environ(options)
    hidden = set[str]()
    for entry in entries().values():
        source = options.sources.get(entry.field, "environment")
        if entry.key == "config" or not source.startswith("environment"):
            hidden |= {entry.variable, *(synonym.name for synonym in entry.row.synonyms)}
    return {name: text for name, text in environ.items() if name not in hidden} | told


def _as_text(value: Any) -> str:
    if value in ((), {}):
        return ","  # an empty text would mean that nothing was said
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return ",".join(_quoted(f"{key}={text}") for key, text in value.items())
    if isinstance(value, tuple):
        return ",".join(_quoted(item) for item in value)
    return str(value)


def _quoted(item: str) -> str:
    return '"' + item.replace('"', '""') + '"' if re.search(r'[",\s]', item) else item


# --- where values come from ---


def _read_flags(argv: Sequence[str]) -> dict[str, str | list[str]]:
    """Take `--key value`, `--key=value`, `--flag`, `--no-flag` apart; lists and maps may repeat."""
    names = {name: entry for entry in entries().values() for name in entry.keys}
    found: dict[str, str | list[str]] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        entry, text = _flag(names, word)
        if text is None:
            if not words or words[0].startswith("--"):
                raise OptionError(f"--{entry.key}", "flag", "a value is missing")
            text = words.pop(0)
        if entry.row.kind in ("list", "map"):
            several = found.setdefault(entry.key, [])
            several.append(text)  # type: ignore[union-attr]
        elif found.setdefault(entry.key, text) != text:
            raise OptionError(f"--{entry.key}", "flag", "given twice with different values")
    return found


def _flag(names: Mapping[str, Entry], word: str) -> tuple[Entry, str | None]:
    """The option a command line word names, and the value within the word if there is one."""
    if not word.startswith("--"):
        raise OptionError(word, "flag", "expected an option that starts with --")
    name, equals, text = word[2:].partition("=")
    entry = names.get(name)
    if entry is None and not equals and name.startswith("no-"):
        denied = names.get(name[3:])
        if denied is not None and denied.row.kind == "flag":
            return denied, "false"
    if entry is None:
        raise unknown(name, f"--{name}", "flag", names)
    if equals:
        return entry, text
    return entry, "true" if entry.row.kind == "flag" else None


def unknown(key: str, name: str, source: str, known: Iterable[str]) -> OptionError:
    """The fault of an option `key`, given as `name`, that is not among `known`."""
    if key.startswith("kubernetes-"):
        return OptionError(name, source, _NO_PODS)
    close = difflib.get_close_matches(key, list(known), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return OptionError(name, source, f"there is no such option{hint}")


def _read_environ(table: Mapping[str, Entry], environ: Mapping[str, str]) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for key, entry in table.items():
        one = _own_variable(entry, environ) or _other_variable(entry, environ)
        if one is not None:
            found[key] = one
    _refuse_unknown_variables(table, environ)
    return found


def _own_variable(entry: Entry, environ: Mapping[str, str]) -> Given | None:
    name = entry.variable
    if environ.get(name):
        return environ[name], None, f"environment {name}"
    return _from_secret_file(entry, name, environ)


def _from_secret_file(entry: Entry, name: str, environ: Mapping[str, str]) -> Given | None:
    """A secret may stand in a file that `<variable>_FILE` names."""
    path = environ.get(f"{name}_FILE", "") if entry.row.secret else ""
    if not path:
        return None
    source = f"environment {name}_FILE"
    try:
        return Path(path).read_text().strip(), None, source
    except (OSError, UnicodeDecodeError) as fault:
        raise OptionError(entry.key, source, f"cannot read {path}: {_reason(fault)}") from fault


def _other_variable(entry: Entry, environ: Mapping[str, str]) -> Given | None:
    """The value other agents' variables give; two that disagree are a contradiction."""
    first: Given | None = None
    for synonym in entry.row.synonyms:
        text = environ.get(synonym.name)
        if not text:
            continue
        text = synonym.read(text, environ) if synonym.read else text
        source = f"environment {synonym.name}"
        if first is None:
            first = (text, synonym, source)
        elif first[0] != text and synonym.name.lower() != source_name(first).lower():
            raise OptionError(entry.key, source, f"contradicts {source_name(first)}")
    return first


def source_name(given: Given) -> str:
    """The variable a value came from."""
    return given[2].rpartition(" ")[2]


def _refuse_unknown_variables(table: Mapping[str, Entry], environ: Mapping[str, str]) -> None:
    known = {entry.variable for entry in table.values()}
    known |= {f"{entry.variable}_FILE" for entry in table.values() if entry.row.secret}
    for name in sorted(environ):
        for prefix in (VARIABLE_PREFIX, SEMAPHORE_PREFIX):
            key = name.removeprefix(prefix).lower().replace("_", "-")
            if not name.startswith(prefix) or name in known:
                continue
            if prefix == VARIABLE_PREFIX or key.startswith("kubernetes-"):
                raise unknown(key, name, "environment", table)


def _read_file(table: Mapping[str, Entry], path: str) -> dict[str, Given]:
    names = {name: entry for entry in table.values() for name in entry.keys}
    source = f"file {path}"
    found: dict[str, Given] = {}
    for key, data in _file_items(path, source):
        entry = names.get(str(key))
        if entry is None or entry.key == "config":
            raise unknown(str(key), str(key), source, names)
        if data is None:
            continue
        if entry.key in found:
            raise OptionError(str(key), source, f"{entry.key} is given twice")
        found[entry.key] = (_from_yaml(entry, data, source), None, source)
    return found


def _file_items(path: str, source: str) -> list[tuple[Any, Any]]:
    try:
        data = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as fault:
        raise OptionError("config", source, f"cannot read it: {_reason(fault)}") from fault
    except yaml.YAMLError as fault:
        text = " ".join(str(fault).split())
        raise OptionError("config", source, f"is not YAML: {text}") from fault
    if data is None:
        return []
    if not isinstance(data, dict):
        raise OptionError("config", source, "expected a mapping of option to value")
    return list(data.items())


def _from_yaml(entry: Entry, data: Any, source: str) -> Raw:
    kind = entry.row.kind
    if isinstance(data, list) and kind in ("list", "map"):
        return tuple(_scalar(entry, item, source) for item in data)
    if isinstance(data, dict) and kind == "map":
        return {str(key): _scalar(entry, item, source) for key, item in data.items()}
    return _scalar(entry, data, source)


def _scalar(entry: Entry, data: Any, source: str) -> str:
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, (str, int, float)):
        return str(data)
    raise OptionError(entry.key, source, f"expected {_expected(entry)}, got {type(data).__name__}")


# --- what values mean ---


def _value(entry: Entry, given: Given) -> Any:
    raw, synonym, source = given
    try:
        return _PARSERS[entry.row.kind](entry, raw, synonym)
    except ValueError as fault:
        raise OptionError(entry.key, source, str(fault) or f"expected {_expected(entry)}") from None


def _expected(entry: Entry) -> str:
    words = {
        "text": "text",
        "path": "a path",
        "flag": "true or false",
        "number": "a whole number",
        "size": "a size such as 512MiB",
        "duration": "a duration such as 90s or 5m",
        "list": "a list",
        "map": "NAME=VALUE entries",
    }
    row = entry.row
    bounds = ""
    if row.high is not None:
        bounds = f" from {row.low:g} to {row.high:g}"
    elif row.low:
        bounds = f" of at least {row.low:g}"
    return words[row.kind] + bounds


def _parse_text(entry: Entry, raw: Raw, synonym: Synonym | None) -> str:
    text = _one(entry, raw)
    if entry.row.choices and text.lower() not in entry.row.choices:
        if text.lower() == "kubernetes":
            raise ValueError(_NO_PODS)
        if entry.key == "cache-backend" and text.lower() in ("gcs", "sftp"):
            raise ValueError(f"caches in {text} are not supported yet: use s3 or directory")
        shown = ", ".join(entry.row.choices)
        raise ValueError(f"expected one of {shown}, got {text!r}")
    text = text.lower() if entry.row.choices else text
    return _clean_server(text) if entry.key == "server" else text


def _clean_server(text: str) -> str:
    """Drone 0.5's agents were given `ws://host/ws/broker`."""
    text = re.sub(r"^ws(s?)://", r"http\1://", text).removesuffix("/ws/broker").rstrip("/")
    if "://" in text and not re.match(r"https?://[^/]+", text):
        raise ValueError(f"expected an http or https address, got {text!r}")
    return text


def _parse_path(entry: Entry, raw: Raw, synonym: Synonym | None) -> str | Path:
    path = Path(_one(entry, raw)).expanduser()
    if entry.row.must_exist and not path.exists():
        raise ValueError(f"{path} does not exist")
    return path if isinstance(entry.default, Path) else str(path)


def _parse_flag(entry: Entry, raw: Raw, synonym: Synonym | None) -> bool:
    text = _one(entry, raw).strip().lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"expected true or false, got {text!r}")
    return text in _TRUE


def _parse_number(entry: Entry, raw: Raw, synonym: Synonym | None) -> int:
    text = _one(entry, raw).strip()
    if not re.fullmatch(r"-?\d+", text):
        raise ValueError(f"expected {_expected(entry)}, got {text!r}")
    return int(_bounded(entry, int(text), text))


def _parse_size(entry: Entry, raw: Raw, synonym: Synonym | None) -> int:
    text = _one(entry, raw).strip()
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"expected {_expected(entry)}, got {text!r}")
    power = " kmgt".index(match[2].lower() or " ")
    return int(_bounded(entry, int(float(match[1]) * 1024**power), text))


def _parse_duration(entry: Entry, raw: Raw, synonym: Synonym | None) -> float:
    text = _one(entry, raw).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _bounded(entry, float(text), text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"expected {_expected(entry)}, got {text!r}")
    return _bounded(entry, sum(float(number) * _SECONDS[unit] for number, unit in parts), text)


def _bounded(entry: Entry, value: float, text: str) -> float:
    low, high = entry.row.low, entry.row.high
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"expected {_expected(entry)}, got {text!r}")
    return value


def _parse_list(entry: Entry, raw: Raw, synonym: Synonym | None) -> tuple[str, ...]:
    if isinstance(raw, dict):
        raise ValueError("expected a list, got a mapping")
    if isinstance(raw, tuple):
        return raw
    texts = [raw] if isinstance(raw, str) else raw
    if synonym is not None and synonym.spaces:
        texts = [",".join(text.split()) for text in texts]
    return tuple(item for text in texts for item in _split(text))


def _parse_map(entry: Entry, raw: Raw, synonym: Synonym | None) -> dict[str, str]:
    if isinstance(raw, dict):
        return raw
    separator = synonym.separator if synonym and synonym.separator else entry.row.separator
    pairs = {}
    items = _spaced(raw) if synonym is not None and synonym.spaces else ()
    for item in items or _parse_list(entry, raw, Synonym("")):
        name, found, text = _divide(item, separator)
        if not name or not found:
            raise ValueError(f"expected NAME{separator[0]}VALUE, got {_hidden(entry, item)}")
        pairs[name] = text
    return pairs


def _spaced(raw: Raw) -> tuple[str, ...]:
    """Entries between blanks, if it is that: Semaphore's agent knows no commas in a variable."""
    words = raw.split() if isinstance(raw, str) else []
    return tuple(words) if all(_ENTRY.match(word) for word in words) and len(words) > 1 else ()


def _hidden(entry: Entry, item: str) -> str:
    return "an entry without a name" if entry.row.secret else repr(item)


def _divide(item: str, separators: str) -> tuple[str, str, str]:
    places = [place for mark in separators if (place := item.find(mark)) >= 0]
    if not places:
        return item, "", ""
    place = min(places)
    return item[:place].strip(), item[place], item[place + 1 :]


def _split(text: str) -> list[str]:
    """Items of a comma separated text; an item in double quotes may contain commas."""
    lines = text.splitlines()
    rows = csv.reader(lines, skipinitialspace=True)
    return [item.strip() for row in rows for item in row if item.strip()]


def _one(entry: Entry, raw: Raw) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"expected {_expected(entry)}, got several values")
    return raw


def _reason(fault: Exception) -> str:
    return getattr(fault, "strerror", None) or str(fault)


_PARSERS: Final[Mapping[str, Callable[[Entry, Raw, Synonym | None], Any]]] = {
    "text": _parse_text,
    "path": _parse_path,
    "flag": _parse_flag,
    "number": _parse_number,
    "size": _parse_size,
    "duration": _parse_duration,
    "list": _parse_list,
    "map": _parse_map,
}


# --- what values mean together ---


def _settle(options: Options, environ: Mapping[str, str]) -> Options:
    """Fill in what depends on other options or this machine, and refuse contradictions."""
    options = _settle_name(options, environ)
    options = _settle_server(options)
    for fault in faults(options):
        raise OptionError(*fault)
    changes: dict[str, Any] = {
        "state_dir": options.state_dir.expanduser(),
        "log_level": _log_level(options),
        "rpc_dump_http": options.rpc_dump_http or options.trace,
    }
    if "arch" not in options.sources:
        changes["arch"] = _ARCHES.get(platform.machine(), options.arch)
    if options.work_dir == Path():
        changes["work_dir"] = changes["state_dir"] / "work"
    if options.disconnect_after_job:
        changes["concurrency"] = 1
    if options.ui_password and not options.http_bind:
        changes["http_bind"] = ":3000"
    return replace(options, **changes)


def _settle_name(options: Options, environ: Mapping[str, str]) -> Options:
    source = options.sources.get("name", "")
    if options.name_from_env:
        origin = options.sources["name_from_env"]
        if options.name:
            raise OptionError("name-from-env", origin, f"contradicts name ({source})")
        name, source = environ.get(options.name_from_env, ""), origin
        if not name:
            raise OptionError("name-from-env", origin, f"{options.name_from_env} is not set")
        options = replace(options, name=name, sources={**options.sources, "name": origin})
    if options.name:
        _check_name(options.name, source)
    return options


def _check_name(name: str, source: str) -> None:
    """Semaphore wants 8 to 80 characters; Drone's runners carry host names, which are shorter."""
    least = 1 if "DRONE_" in source else 8
    if not least <= len(name) <= 80 or not _NAME.fullmatch(name):
        what = f"expected {least} to 80 characters of A-Z a-z 0-9 . - _ / +"
        raise OptionError("name", source, f"{what}, got {name!r}")


def _settle_server(options: Options) -> Options:
    if not options.server or "://" in options.server:
        if options.no_https and options.server.startswith("https://"):
            raise OptionError("no-https", options.sources["no_https"], "contradicts server")
        return options
    scheme = "http" if options.no_https else "https"
    return replace(options, server=f"{scheme}://{options.server}")


def _log_level(options: Options) -> str:
    if options.trace:
        return "trace"
    return "debug" if options.debug else options.log_level
