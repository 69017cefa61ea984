"""Machines for tests: network namespaces, each with an interface of its own and no way to the others but a wire."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORWARD = "open('/proc/sys/net/ipv4/ip_forward', 'w').write('1')"


@dataclass(frozen=True)
class Machine:
    """A network namespace at the end of a wire."""

    name: str
    address: str
    """Its own address."""
    hub: str
    """The address of the hub as seen from here."""
    interface: str

    def popen(self, command: Sequence[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program on this machine; what it says is appended to `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        """End a program and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def pull_the_plug(self) -> None:
        """Nothing goes in or out any more, and nobody is told."""
        ip("-n", self.name, "link", "set", self.interface, "down")


@contextmanager
def machines(count: int) -> Iterator[tuple[Machine, list[Machine]]]:
    """A hub, which passes things on, and machines wired to it; the test is skipped, saying why, where that is not permitted."""
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the command `ip` (iproute2)")
    prefix = f"cr{os.getpid() % 100_000}"
    with ExitStack() as stack:
        try:
            hub = Machine(f"{prefix}h", "127.0.0.1", "127.0.0.1", "lo")
            stack.callback(_remove, hub.name)
            _add(hub.name)
            _run("ip", "netns", "exec", hub.name, sys.executable, "-c", FORWARD)
            around = []
            for number in range(count):
                name, wire = f"{prefix}m{number}", f"10.77.{number}"
                stack.callback(_remove, name)
                _add(name)
                around.append(_wired(Machine(name, f"{wire}.2", f"{wire}.1", f"{name}i"), hub, f"{name}o"))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
        yield hub, around


def _wired(machine: Machine, hub: Machine, plug: str) -> Machine:
    ip("-n", machine.name, "link", "add", machine.interface, "type", "veth", "peer", "name", plug, "netns", hub.name)
    for name, interface, address in ((machine.name, machine.interface, machine.address), (hub.name, plug, machine.hub)):
        ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
        ip("-n", name, "link", "set", interface, "up")
    ip("-n", machine.name, "route", "add", "default", "via", machine.hub)
    return machine


def _add(name: str) -> None:
    ip("netns", "add", name)
    ip("-n", name, "link", "set", "lo", "up")


def _remove(name: str) -> None:
    with suppress(subprocess.CalledProcessError):
        ip("netns", "del", name)


def ip(*arguments: str) -> None:
    """Configure the network; raises `CalledProcessError`."""
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
