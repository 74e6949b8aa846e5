"""Certificates for TLS in tests: an authority of their own, and what it signs. Made by the command `openssl`."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

_CONFIG = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = tests\n"


class Pair(NamedTuple):
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """An authority that nobody else believes.

    Attributes:
        certificate: Its own.
    """

    def __init__(self, folder: Path) -> None:
        if not shutil.which("openssl"):
            if os.environ.get("CI") == "true":
                pytest.fail("openssl is not on this machine", pytrace=False)
            pytest.skip("openssl is not on this machine")
        self._folder = folder
        (folder / "openssl.cnf").write_text(_CONFIG)
        usage = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign", "subjectKeyIdentifier=hash"]
        self._own = self._made("authority", usage)
        self.certificate = self._own.certificate

    def issue(self, name: str) -> Pair:
        """A certificate for loopback, good for servers and for clients."""
        signed = ["-CA", str(self._own.certificate), "-CAkey", str(self._own.key)]
        usage = ["basicConstraints=CA:FALSE", "subjectAltName=IP:127.0.0.1", "authorityKeyIdentifier=keyid"]
        return self._made(name, usage, *signed)

    def locked(self, pair: Pair, password: str) -> Pair:
        """The same, with a key that needs a password."""
        key = pair.key.with_suffix(".locked")
        _openssl("pkey", "-in", str(pair.key), "-aes256", "-passout", f"pass:{password}", "-out", str(key))
        return pair._replace(key=key)

    def server(self, *, asks_for_certificate: bool = False) -> ssl.SSLContext:
        """What a server on loopback needs; it may want to know its clients."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.certificate))
        context.load_cert_chain(*self.issue("server"))
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _made(self, name: str, extensions: list[str], *signed: str) -> Pair:
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        added = [word for extension in extensions for word in ("-addext", extension)]
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2",
            "-subj", f"/CN={name}", "-config", str(self._folder / "openssl.cnf"),
            "-out", str(pair.certificate), "-keyout", str(pair.key), *added, *signed,
        )  # fmt: skip
        return pair


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)  # noqa: S603, S607 -- our own
