"""Keys for TCP: who may speak to a broker, and how the broker proves that it is the one.

    KEYS_DIR/broker.key    the broker's key pair, mode 0600; on the broker's host only
    KEYS_DIR/broker.pub    its public key; on every host
    KEYS_DIR/NAME.key      the key pair of a caller or a worker, mode 0600; on its host only
    KEYS_DIR/NAME.pub      its public key, to be taken to the broker's host
    KEYS_DIR/callers/      public keys of those who may ask; on the broker's host
    KEYS_DIR/workers/      public keys of those who may work, agents among them

The files are ZeroMQ certificates, with the role of a pair in their metadata. Who has several pairs for one
role says with `key_name` which.

Knows: the files, what a connection needs of them. Must not know: sockets (that is `link`), whom a broker
refused. Over 300 lines: to make, to allow, to read and to check keys are four views on the same files.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.auth import load_certificate
from zmq.utils import z85

from headway import tcp
from headway.errors import SettingsError
from headway.settings import BrokerSettings, Shared

BROKER, CALLER, WORKER = "broker", "caller", "worker"
FOLDERS = {CALLER: "callers", WORKER: "workers"}
PAIR, PUBLIC = ".key", ".pub"
PLAIN = "plain"
_ANY_PAIR, _ANY_PUBLIC = f"[!.]*{PAIR}", f"[!.]*{PUBLIC}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}", re.ASCII)
_ROLE = re.compile(r'^\s*role\s*=\s*"?(caller|worker|broker)"?\s*$', re.MULTILINE)
_FILE = """#   {what}
metadata
    name = "{name}"
    role = "{role}"
curve
    public-key = "{public}"
"""
_FILE_BYTES_MAX = 65536


@dataclass(frozen=True)
class Curve:
    """The keys of one end of a connection, as ZeroMQ takes them. `broker` is the other end's public key;
    empty at the broker itself, which asks its folders who may come."""

    public: bytes
    secret: bytes = field(repr=False)
    broker: bytes = b""


@dataclass(frozen=True)
class Entry:
    """A key that is there. `allowed`: in the broker's folders; else a pair, or another's public key.
    `problem` is what is wrong with the file, or ""."""

    name: str
    role: str
    public: str
    allowed: bool
    pair: bool
    problem: str = ""


# ---- what a connection needs ----


def to_broker(settings: Shared, address: str, role: str) -> Curve | None:
    """The keys for a connection to a broker there; None where none are used.

    Raises: SettingsError for an address of TCP that is none; for keys that are missing, wrong, or to be read
    by others.
    """
    if not tcp.is_tcp(address):
        return None
    tcp.check(address, "broker")
    if tcp.is_everywhere(address):
        raise SettingsError(f"broker: the address {address} is where a broker listens; name its host")
    if settings.tcp_security == PLAIN:
        return None
    folder = settings.keys_path
    own = folder / f"{_own_name(settings, role)}{PAIR}"
    public, secret = _pair(own, _advice(folder, role))
    broker = _public(folder / f"{BROKER}{PUBLIC}", "copy it from the broker's host")
    return Curve(public, secret, broker)


def of_broker(settings: BrokerSettings) -> Curve | None:
    """The keys of the broker itself, if it listens at TCP with keys. Raises: SettingsError as `to_broker`."""
    addresses = {key: getattr(settings, key) for key in ("callers_tcp", "workers_tcp")}
    for key, address in addresses.items():
        if address:
            tcp.check(address, key)
    if addresses["callers_tcp"] and addresses["callers_tcp"] == addresses["workers_tcp"]:
        raise SettingsError("workers_tcp: callers and workers need a port each")
    if not any(addresses.values()) or settings.tcp_security == PLAIN:
        return None
    folder = settings.keys_path
    return Curve(*_pair(folder / f"{BROKER}{PAIR}", _advice(folder, BROKER)))


class Allowed:
    """The public keys in one of the broker's folders, as they are now. From any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._names: dict[bytes, str] = {}

    def look(self) -> list[str]:
        """Read the folder again if it has changed; returns what is wrong in it, if it has."""
        seen = _signature(self._folder)
        if seen == self._seen:
            return []
        names: dict[bytes, str] = {}
        problems = []
        for path in sorted(self._folder.glob(_ANY_PUBLIC)):
            try:
                names[_public(path, "remove it")] = path.stem
            except SettingsError as error:
                problems.append(str(error))
        self._names, self._seen = names, seen
        return problems

    def name_of(self, public: bytes) -> str | None:
        """What the key is called, if it is allowed."""
        return self._names.get(public)

    def __len__(self) -> int:
        return len(self._names)


# ---- making, allowing, revoking ----


def make(folder: Path, name: str, role: str) -> tuple[Path, Path]:
    """A new pair; the paths of its two files. Raises: SettingsError where there is one of that name."""
    _check_name(name)
    if (name == BROKER) != (role == BROKER):
        raise SettingsError(f"the pair with the role {BROKER}, and no other, is called {BROKER}")
    pair, public = folder / f"{name}{PAIR}", folder / f"{name}{PUBLIC}"
    for path in (pair, public):
        if path.exists():
            raise SettingsError(f"{path} is there already; remove it first, if nobody needs it")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    public_key, secret_key = (key.decode() for key in zmq.curve_keypair())
    what = f'Public key of the {role} "{name}".'
    _write(public, 0o644, _FILE.format(what=what, name=name, role=role, public=public_key))
    what = f'SECRET key of the {role} "{name}". It stays on this host; others get {public.name}.'
    text = _FILE.format(what=what, name=name, role=role, public=public_key)
    try:
        _write(pair, 0o600, f'{text}    secret-key = "{secret_key}"\n')
    except OSError:
        public.unlink()
        raise
    return pair, public


def allow(folder: Path, file: Path, role: str = "", name: str = "") -> Path:
    """Let the owner of a public key in; role and name are the file's own where they are not given.

    Raises: SettingsError for what is no public key, or a name that another key has.
    """
    public = _public(file, "")
    role = role or role_of(file)
    if role not in FOLDERS:
        raise SettingsError(f"{file}: say its role: {' or '.join(FOLDERS)}")
    name = name or file.stem
    _check_name(name)
    into = folder / FOLDERS[role] / f"{name}{PUBLIC}"
    if into.exists():
        if _public(into, "") == public:
            return into
        raise SettingsError(f"another key is allowed as {name} ({into}): revoke it first, or name this one")
    into.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = _FILE.format(what=f'Allowed {role} "{name}".', name=name, role=role, public=public.decode())
    hidden = into.with_name(f".{into.name}.{os.getpid()}")
    _write(hidden, 0o644, text)
    hidden.rename(into)  # a broker never sees half of it
    return into


def revoke(folder: Path, name: str, role: str = "") -> list[Path]:
    """Keep the owner of a key out from now on; the files that were removed. Raises: SettingsError for a name
    that none has."""
    _check_name(name)
    roles = [role] if role else list(FOLDERS)
    found = [folder / FOLDERS[role] / f"{name}{PUBLIC}" for role in roles]
    there = [path for path in found if path.exists()]
    if not there:
        raise SettingsError(f"no key is allowed as {name} in {folder}")
    for path in there:
        path.unlink()
    return there


def listed(folder: Path) -> list[Entry]:
    """Every key in the folder, and what is wrong with it; never a secret."""
    pairs = [_entry(path, pair=True) for path in sorted(folder.glob(_ANY_PAIR))]
    have = {entry.name for entry in pairs}
    others = [_entry(p) for p in sorted(folder.glob(_ANY_PUBLIC)) if p.stem not in have]
    allowed = [
        _entry(path, role=role)
        for role, inner in FOLDERS.items()
        for path in sorted((folder / inner).glob(_ANY_PUBLIC))
    ]
    return pairs + others + allowed


def role_of(file: Path) -> str:
    """The role that a file's metadata say, or "". Raises: SettingsError."""
    found = _ROLE.search(_text(file, ""))
    return found[1] if found else ""


# ---- files ----


def _own_name(settings: Shared, role: str) -> str:
    folder = settings.keys_path
    if settings.key_name:
        _check_name(settings.key_name)
        return settings.key_name
    pairs = [path for path in sorted(folder.glob(_ANY_PAIR)) if path.stem != BROKER]
    names = [path.stem for path in pairs if _role_or_none(path) == role]
    if len(names) > 1:
        raise SettingsError(f"key_name: {folder} has several keys of a {role}: {', '.join(names)}; say which")
    if not names:
        raise SettingsError(f"keys_dir: there is no key of a {role} in {folder}: {_advice(folder, role)}")
    return names[0]


def _role_or_none(path: Path) -> str:
    try:
        return role_of(path)
    except SettingsError:
        return ""


def _advice(folder: Path, role: str) -> str:
    name = BROKER if role == BROKER else "NAME"
    return (
        f"make one with `headway keys make --keys-dir {folder} --role {role} {name}`"
        f', or set tcp_security = "{PLAIN}" if the network is to be trusted'
    )


def _pair(path: Path, advice: str) -> tuple[bytes, bytes]:
    _check_private(path, advice)
    public, secret = _loaded(path, advice)
    if secret is None:
        raise SettingsError(f"keys_dir: {path} holds no secret key: it is no pair")
    _check_key(path, secret)
    return public, secret


def _public(path: Path, advice: str) -> bytes:
    public, secret = _loaded(path, advice)
    if secret is not None:
        raise SettingsError(f"keys_dir: {path} holds a secret key, which belongs on its owner's host alone")
    return public


def _loaded(path: Path, advice: str) -> tuple[bytes, bytes | None]:
    _text(path, advice)  # for the reason why it cannot be read, and its bound
    try:
        public, secret = load_certificate(path)
    except (OSError, ValueError):
        raise SettingsError(f"keys_dir: {path} is no key file") from None
    _check_key(path, public)
    return public, secret


def _text(path: Path, advice: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX).decode()
    except OSError as error:
        raise SettingsError(f"keys_dir: {path}: {error.strerror}{advice and '; ' + advice}") from None
    except ValueError:
        raise SettingsError(f"keys_dir: {path} is no key file") from None


def _check_key(path: Path, key: bytes) -> None:
    try:
        good = len(key) == 40 and len(z85.decode(key)) == 32
    except Exception:  # z85 raises what comes
        good = False
    if not good:
        raise SettingsError(f"keys_dir: {path} is no key file: a key has 40 characters")


def _check_private(path: Path, advice: str) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SettingsError(f"keys_dir: {path}: {error.strerror}; {advice}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise SettingsError(f"keys_dir: others can read {path} (mode {stat.S_IMODE(mode):04o}): chmod 600 it")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r} is not a name for a key: letters, digits, _, . and -")


def _entry(path: Path, role: str = "", pair: bool = False) -> Entry:
    allowed = bool(role)
    try:
        role = role or role_of(path)
        public = (_pair(path, "")[0] if pair else _public(path, "")).decode()
    except SettingsError as error:
        return Entry(path.stem, role, "", allowed, pair, str(error).removeprefix("keys_dir: "))
    return Entry(path.stem, role, public, allowed, pair)


def _write(path: Path, mode: int, text: str) -> None:
    """A new file, with exactly this mode from its beginning."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        os.fchmod(fd, mode)


def _signature(folder: Path) -> object:
    """What changes when a public key comes, goes or is another."""
    try:
        entries = [e for e in os.scandir(folder) if e.name.endswith(PUBLIC) and not e.name.startswith(".")]
        found = [(e.name, e.stat()) for e in entries]
    except OSError:
        return ()
    return tuple(sorted((name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in found))
