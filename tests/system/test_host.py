"""What a system says of the machine, and how it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mac
import pytest

from mlxops import registry, system
from mlxops.system import host


@pytest.fixture
def on_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Mac whose sysctl answers from files of these names."""
    program = tmp_path / "sysctl"
    program.write_text(f'#!/bin/sh\nread -r answer < "{tmp_path}/$2" && echo "$answer"\n')
    program.chmod(0o755)
    monkeypatch.setattr(system, "ON_MACOS", True)
    monkeypatch.setattr(system, "ON_LINUX", False)
    monkeypatch.setattr(system, "SYSCTL", str(program))
    mac.forget()
    yield tmp_path
    mac.forget()


def test_a_mac_names_its_boot_whatever_the_path(on_a_mac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (on_a_mac / "kern.bootsessionuuid").write_text("6F1B\n")
    monkeypatch.setenv("PATH", str(on_a_mac / "nothing"))

    assert registry.boot_id() == host.boot_id() == "6F1B"
    assert system.sysctl("kern.no_such_name") is None


def test_a_mac_has_its_name_whatever_the_network_calls_it(a_mac: mac.Mac) -> None:
    names = [host.name()]
    a_mac.say("host", "dhcp-17.example.org")
    mac.forget()
    names.append(host.name())
    (a_mac.folder / "announced").unlink()
    mac.forget()

    assert [*names, host.name()] == ["ibis.local", "ibis.local", "dhcp-17.example.org"]


def test_without_its_program_a_mac_says_nothing(on_a_mac: Path) -> None:
    (on_a_mac / "sysctl").unlink()

    assert registry.boot_id() is None


def test_what_a_system_has_of_its_own_is_named_by_its_whole_path() -> None:
    """cron and launchd start programs with a PATH in which those of Apple are not."""
    named = {name: value for name, value in vars(system).items() if name.isupper() and isinstance(value, str)}
    del named["NAME"]

    assert {"SYSCTL", "CAFFEINATE", "XCODE_SELECT", "IOREG", "SCUTIL"} <= named.keys()
    assert {name: value for name, value in named.items() if not Path(value).is_absolute()} == {}
