"""
Make the service that twistd runs: what reads the environment, and owns the reactor.
"""

from __future__ import annotations

import fcntl
import os
import platform
import resource
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from attrs import define, field
from dotenv import dotenv_values
from OpenSSL.crypto import Error as CryptoError
from sqlalchemy.exc import SQLAlchemyError
from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.scripts import twistd
from twisted.scripts._twistd_unix import UnixAppLogger

from forgereg import logs, traces
from forgereg.assembly import Assembly, open_records
from forgereg.blobs.store import BlobStore
from forgereg.certificates import look_at_term, read_certificates
from forgereg.config import (
    TABLE,
    Row,
    SettingInvalid,
    Settings,
    defaults,
    find_strangers,
    read_settings,
)
from forgereg.endpoint import parse_endpoint
from forgereg.flow.threads import InThread
from forgereg.machine import Machine
from forgereg.metrics import Metrics
from forgereg.nix.fitness import NixUnfit, check_nix
from forgereg.nix.flake import Command
from forgereg.nix.process import Processes
from forgereg.notify import Systemd
from forgereg.parts import Parts
from forgereg.records.records import Records
from forgereg.secrets import Secrets, read_secrets
from forgereg.traces import NoTraces, Tracer
from forgereg.web.listening import shown_address

_log = logs.logger(__name__)

#: Of the directory where the registry was started, wherever it goes from there.
_ENV_FILE = os.path.abspath(".env")
#: How long one thread may keep others from the interpreter, in seconds.
_SWITCH_SECONDS = 0.0005
#: Threads for short work on disk and records.
_DISK_THREADS = 8
#: As many scripts as FORGE_MAX_BUILDS may allow; none is there before it is needed.
_SCRIPT_THREADS = 1000


def _stop(message: str) -> NoReturn:
    """End the start with one line."""
    raise SystemExit(f"forge-registry: {message}")


_DEFAULTS = defaults(os.environ, os.path.expanduser("~"), platform.machine())


def _describe(row: Row) -> str:
    default = _DEFAULTS[row.variable] or "none"
    unit = f" {row.unit}" if row.unit else ""
    return f"{row.help} ({row.variable}) [default: {default}{unit}]"


class Options(usage.Options):
    """The settings as options of twistd."""

    synopsis = "[options]"
    #: What looks like a setting and is none → what to do; since the last `read`.
    strangers: Mapping[str, str] = {}
    longdesc = (
        "Serve the images of a Nix flake as an OCI registry. Every option can also be"
        " an environment variable, named in parentheses, or a line in the file .env."
    )
    optParameters = [[row.option, None, None, _describe(row)] for row in TABLE]

    def opt_version(self) -> None:
        """Show the registry's version."""
        print(f"forge-registry {_version()}")
        sys.exit(0)

    def postOptions(self) -> None:
        try:
            self.settings = self.read()
        except SettingInvalid as e:
            _stop(str(e))

    def read(self) -> Settings:
        """
        Read the settings from where they are. Blocking.

        :raises SettingInvalid: one makes no sense.
        """
        given = {row.name: self[row.option] for row in TABLE}
        try:
            env_file = dotenv_values(_ENV_FILE)
        except (OSError, UnicodeDecodeError) as e:
            raise SettingInvalid(f"the file .env cannot be read: {e}") from e
        self.strangers = find_strangers(os.environ, env_file)
        return read_settings(given, os.environ, env_file, _DEFAULTS)


def _version() -> str:
    try:
        return version("forge-registry")
    except PackageNotFoundError:
        return "(a checkout that is not installed)"


def makeService(options: Options) -> IService:
    """Make the service; what cannot work stops the start with one line."""
    from twisted.internet import reactor

    settings = options.settings
    logs.set_level(settings.log_level)
    logs.set_format(settings.log_format)
    try:
        endpoint = open_endpoint(settings, reactor)
        traces.are_wanted(os.environ)
    except ValueError as e:
        _stop(str(e))
    command = Command(settings.system, settings.store)
    # Before anything is started, which would find its address in the environment.
    systemd = Systemd.of(
        os.environ, os.getpid(), reactor, lambda: time.monotonic_ns() // 1000
    )
    env = nix_environment(os.environ, settings)
    try:
        nix_version = check_nix(command, env)
    except NixUnfit as e:
        _stop(str(e))
    state = _StateDir(Path(settings.state_dir))
    recent = logs.Recent()
    globalLogPublisher.addObserver(recent)
    # Two for each client that is sent a blob.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return _Running(
        options,
        command,
        env,
        nix_version,
        state,
        endpoint,
        reactor,
        options.parent or {},
        systemd,
        recent,
    )


def open_endpoint(settings: Settings, reactor: Any) -> IStreamServerEndpoint:
    """
    Find out where to listen, and read the files of TLS. Blocking.

    :raises ValueError: it is no endpoint; the text says why.
    """
    port = settings.port
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, settings.endpoint)
        return endpoint
    except (ValueError, TypeError, LookupError, OSError, CryptoError, VerifyError) as e:
        if isinstance(e, LookupError) and port.startswith("systemd:"):
            what = f"--port is {port!r}, and systemd gave no such socket"
            raise ValueError(what) from e
        raise ValueError(f"--port is {port!r}, which is no endpoint: {e}") from e


def nix_environment(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """What nix runs with: all that we have, and nothing that could ask a question."""
    env = {
        "XDG_CACHE_HOME": f"{settings.state_dir}/cache",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        **environ,
        "GIT_TERMINAL_PROMPT": "0",
    }
    if "HOME" in environ and "XDG_CACHE_HOME" not in environ:
        del env["XDG_CACHE_HOME"]
    return env


def _boot_id() -> str:
    """Name this start of the machine; empty where the kernel does not."""
    with suppress(OSError, ValueError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


class _StateDir:
    """The registry's directory, which is its alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (path / "roots").mkdir(exist_ok=True)
            # Held until the process ends, whatever ends it.
            self._lock = (path / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.blobs = BlobStore(path)
            self.blobs.prepare(_boot_id())
        except BlockingIOError:
            _stop(f"another registry runs in {path}; give this one its own --state-dir")
        except OSError as e:
            _stop(f"the state directory {path} cannot be used: {e}")


@define(eq=False)
class _Running(Service):
    """The registry, from the first connection to the end of the last nix."""

    _options: Options
    _command: Command
    _env: Mapping[str, str]
    _nix_version: str
    _state: _StateDir
    _endpoint: IStreamServerEndpoint
    _reactor: Any
    _twistd: Mapping[str, Any]
    _systemd: Systemd
    _recent: logs.Recent
    _pools: list[ThreadPool] = field(init=False, factory=list)
    _processes: Processes = field(init=False)
    _records: Records = field(init=False)
    _assembly: Assembly = field(init=False)
    _in_thread: InThread = field(init=False)
    _port: IListeningPort | None = field(init=False, default=None)
    _draining: Deferred[None] | None = field(init=False, default=None)

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802
        # The application, where twistd asks for an observer; --logger wins over it.
        if isinstance(parent, Componentized):
            # There is no other way to what knows where, and how a file is rotated.
            usual = UnixAppLogger(self._twistd)._getLogObserver()
            parent.setComponent(ILogObserver, logs.writing(usual))
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        # Not in makeService, after which twistd may fork.
        try:
            self._records = open_records(self._state.path)
        except SQLAlchemyError as e:
            first_line, path = str(e).partition("\n")[0], self._state.path
            self._refuse(
                f"the records in {path} cannot be opened: {first_line}; without them"
                " (registry.sqlite) the registry begins anew"
            )
        self._assembly = self._assemble(self._records)
        # Before anybody can tell that we are there: unheard, it would end us.
        signal.signal(
            signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload)
        )
        site = self._assembly.entrance.site
        outcome: list[IListeningPort | Failure] = []
        self._endpoint.listen(site).addBoth(outcome.append)
        if isinstance(outcome[0], Failure):
            where, why = self._options.settings.endpoint, outcome[0].getErrorMessage()
            self._refuse(f"cannot listen on {where}: {why}")
        self._port = outcome[0]
        self._warn()
        self._warn_of_certificates()
        for flake in self._assembly.parts.flakes:
            _log.info(
                "serving {names} from {flake} for {system} at {address}",
                names=f"{flake.prefix}/…" if flake.prefix else "everything",
                flake=flake.shown,
                system=self._options.settings.system,
                address=shown_address(
                    self._port.getHost(), self._options.settings.endpoint
                ),
            )

    def _warn(self) -> None:
        for name, advice in self._options.strangers.items():
            _log.warn("{name} is no setting; {advice}", name=name, advice=advice)

    def _warn_of_certificates(self) -> None:
        endpoint = parse_endpoint(self._options.settings.endpoint)
        if not endpoint.has_tls:
            return
        _, own, more = endpoint.tls_files
        chain = []
        # What is wrong with the files is the endpoint's to say, which has read them.
        with suppress(OSError, ValueError):
            chain = read_certificates(own)[:1]
            chain += read_certificates(more) if more else []
        for each in chain:
            term, text = look_at_term(each, datetime.now(UTC))
            if advice := term.advice:
                _log.warn("the certificate {text}: {advice}", text=text, advice=advice)

    def _refuse(self, message: str) -> NoReturn:
        # twistd has turned standard error into the log by now.
        _log.error("{message}", message=message)
        if not self._twistd["nodaemon"]:
            raise RuntimeError(message)  # twistd tells it to whoever started it
        with suppress(OSError):
            os.unlink(self._twistd["pidfile"])
        print(f"forge-registry: {message}", file=sys.__stderr__)
        raise SystemExit(1)

    def _assemble(self, records: Records) -> Assembly:
        # Threads that unpack let go of the interpreter all the time, and want it back:
        # by default the reactor may wait 5 ms for it each time that it sends something.
        sys.setswitchinterval(_SWITCH_SECONDS)
        metrics = Metrics()
        self._processes = Processes(self._reactor, metrics)
        self._in_thread = self._threads(_DISK_THREADS)
        machine = Machine(
            self._state.path,
            self._state.blobs,
            self._processes.run,
            self._processes.stream,
            self._env,
            self._reactor,
            time.time,
            lambda: uuid.uuid4().hex[:12],
            self._in_thread,
            self._threads(os.cpu_count() or 1),
            self._threads(_SCRIPT_THREADS),
            metrics,
            self._recent,
            _version(),
            self._nix_version,
            self._trace(),
        )
        settings = self._options.settings
        try:
            parts = Parts(settings, machine, records)
            return Assembly(parts, read_secrets(settings))
        except ValueError as e:
            self._refuse(str(e))

    def _trace(self) -> Tracer:
        if not traces.are_wanted(os.environ):
            return NoTraces()
        # Not loaded where nobody wants it.
        from forgereg.otel import open_traces

        return open_traces(_version(), time.monotonic)

    def _threads(self, most: int) -> InThread:
        pool = ThreadPool(0, most)
        pool.start()
        self._pools.append(pool)

        def in_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return deferToThreadPool(self._reactor, pool, call, *args, **kwargs)

        return in_thread

    def startService(self) -> None:
        super().startService()
        self._reactor.callWhenRunning(self._heed)
        self._systemd.status = lambda: self._assembly.status
        self._reactor.callWhenRunning(self._systemd.ready)
        Deferred.fromCoroutine(self._assembly.begin())

    def _heed(self) -> None:
        """Take for haste what Twisted takes for an error: being told twice to stop."""
        told = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        heard: list[int] = []

        def heed(number: int, frame: FrameType | None) -> None:
            handler = told[signal.Signals(number)]
            if heard:
                self._reactor.callFromThread(self._hurry)
            elif callable(handler):
                heard.append(number)
                handler(number, frame)

        for number in told:
            signal.signal(number, heed)

    def _hurry(self) -> None:
        """Whoever says twice that it is to stop does not want to wait for transfers."""
        if self._draining is not None:
            self._draining.cancel()

    def _reload(self) -> None:
        self._systemd.reloading()
        reading = self._in_thread(self._reread)
        reading.addCallback(self._apply)
        reading.addErrback(_tell_unchanged)
        reading.addCallback(lambda _: self._systemd.ready())

    def _reread(self) -> tuple[Settings, Secrets]:
        """Read the settings again. Blocking."""
        settings = self._options.read()
        return settings, read_secrets(settings)

    def _apply(self, read: tuple[Settings, Secrets]) -> None:
        others = self._assembly.apply(*read)
        logs.set_level(read[0].log_level)
        logs.set_format(read[0].log_format)
        _log.info("the settings have been read again")
        self._warn()
        if others:
            names = ", ".join(others)
            _log.warn("needs a restart to take effect: {names}", names=names)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        self._assembly.stop()
        self._systemd.stopping()
        ended = self._processes.stop()
        drained = self._draining = self._assembly.entrance.site.drain()
        drained.addErrback(lambda failure: failure.trap(CancelledError) and None)
        last = self._reactor.callLater(
            self._assembly.parts.settings.stop_timeout, drained.cancel
        )
        await ended
        await drained
        if last.active():
            last.cancel()
        await self._assembly.end()
        await self._in_thread(self._assembly.parts.machine.tracer.stop)
        self._systemd.stopped()
        for pool in self._pools:
            pool.stop()
        self._records.close()


def _tell_unchanged(failure: Failure) -> None:
    failure.trap(SettingInvalid, ValueError)
    why = failure.getErrorMessage()
    _log.error("the settings stay as they were: {why}", why=why)


def run() -> None:
    """Run the registry in the foreground: the command ``forge-registry``."""
    sys.argv[1:1] = ["--nodaemon", "--pidfile=", "forge-registry"]
    twistd.run()
