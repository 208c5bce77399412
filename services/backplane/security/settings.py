"""`[fleet]`: the certificate by which the parts of a fleet know each other."""

from __future__ import annotations

import pathlib

import msgspec

from services.backplane.settings import Document, SettingsError


class FleetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[fleet]`: the certificate by which the parts of a fleet know each other.

    Unset, they speak plain text and take each other at their word, which only one machine's
    loopback is fit for. `cortex pki` makes the files; docs/security.md says how.

    Attributes:
        ca: certificates of the authorities that the fleet's certificates are signed by, PEM.
        certificate: this host's certificate with what chains it to the authority, PEM.
        key: its private key, PEM without a passphrase.
        revoked: a file of serial numbers in hex, one a line, whose certificates are refused;
            looked at every second. Empty: none are.
        renew: a neuron has the registry renew its certificate when a third of its time is left,
            and writes the new one in place of `certificate`, for the same key.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    revoked: str = ""
    renew: bool = False

    @property
    def is_set(self) -> bool:
        """Whether there are credentials."""
        return bool(self.ca and self.certificate and self.key)


def read(document: Document) -> FleetSettings:
    """The section, checked as far as types cannot.

    Raises:
        SettingsError: a part of the credentials is missing, or a file of them.
    """
    settings = document.section("fleet", FleetSettings)
    if not (settings.ca or settings.certificate or settings.key):
        for name in ("revoked", "renew"):
            if getattr(settings, name):
                message = "needs `ca`, `certificate` and `key` beside it"
                raise SettingsError(f"{document.place(f'fleet.{name}')}: {message}")
        return settings
    for name in ("ca", "certificate", "key"):
        path = getattr(settings, name)
        if not path:
            raise SettingsError(f"{document.source}: fleet.{name}: is missing beside the others")
        if not pathlib.Path(path).is_file():
            raise SettingsError(f"{document.place(f'fleet.{name}')}: there is no file {path}")
    return settings
