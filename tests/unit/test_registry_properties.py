"""The properties of the registry's client: which there are, what they need of each other, and that no secret shows."""

from pathlib import Path

import pytest

from consumer.errors import SettingsError
from consumer.properties import ELSEWHERE, REGISTRY_PROPERTIES, TOKEN_URL, Properties
from consumer.settings import Settings, load
from tests.certificates import Authority
from tests.lives import REQUIRED

GIVEN = ["bearer.auth.credentials.source=STATIC_TOKEN", "bearer.auth.token=SECRET"]
FETCHED = [
    "bearer.auth.credentials.source=OAUTHBEARER",
    "bearer.auth.client.id=id",
    "bearer.auth.client.secret=SECRET",
    "bearer.auth.issuer.endpoint.url=https://login.example.com/token",
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Makes certificates."""
    return Authority(tmp_path_factory.mktemp("authority"))


def read(folder: Path, *lines: str, **more: str) -> Settings:
    """Settings with such a file, and a registry unless it is told otherwise."""
    path = folder / "registry.properties"
    path.write_text("".join(f"{line}\n" for line in lines))
    environ = {"SCHEMA_REGISTRY_URL": "https://registry.example.com", "SCHEMA_REGISTRY_PROPERTIES_FILE": str(path)}
    return load({**REQUIRED, **environ, **more})


def chosen(folder: Path, *lines: str, **more: str) -> Properties:
    """The properties of such a file."""
    return read(folder, *lines, **more).schema_registry_properties_file


def problems(folder: Path, *lines: str, **more: str) -> list[str]:
    """What is wrong, with the setting taken off; no secret and no token is in it."""
    with pytest.raises(SettingsError) as caught:
        read(folder, *lines, **more)
    assert "SECRET" not in str(caught.value)
    assert all(problem.startswith("SCHEMA_REGISTRY_PROPERTIES_FILE: ") for problem in caught.value.problems)
    return [problem.removeprefix("SCHEMA_REGISTRY_PROPERTIES_FILE: ") for problem in caught.value.problems]


@pytest.mark.parametrize("lines", [[], GIVEN, FETCHED, [*FETCHED, "bearer.auth.scope=a b", "# x"]])
def test_what_fits_together_is_read_and_not_shown(tmp_path: Path, lines: list[str]) -> None:
    """Settings may be logged."""
    settings = read(tmp_path, *lines)
    found = settings.schema_registry_properties_file
    assert [f"{name}={value}" for name, value in found.items()] == lines[:5]
    assert "SECRET" not in repr(settings) + str(settings) + repr(found)


def test_a_property_that_there_is_not_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    """Those of the Java client's stores are the usual ones."""
    (problem,) = problems(tmp_path, "ssl.truststore.location=SECRET")
    assert problem == f"line 1: there is no ssl.truststore.location; there are {', '.join(REGISTRY_PROPERTIES)}"


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_a_setting_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    """There is one place for each thing."""
    assert problems(tmp_path, f"{name}=SECRET") == [f"line 1: {name} is not for this file: {ELSEWHERE[name]}"]


@pytest.mark.parametrize("line", ["SECRET", "SECRET==", "eyJSECRET.eyJ=", "=SECRET"])
def test_what_may_be_half_of_a_secret_is_not_shown(tmp_path: Path, line: str) -> None:
    """A token in base64 has equals signs too."""
    (problem,) = problems(tmp_path, "", line)
    assert problem.startswith("line 2: ")


CONTRADICTIONS = {
    "a token, and no source": (GIVEN[1:], ["bearer.auth.credentials.source must be STATIC_TOKEN or OAUTHBEARER"]),
    "a cluster alone": (
        ["bearer.auth.logical.cluster=l"],
        ["bearer.auth.credentials.source must be STATIC_TOKEN or OAUTHBEARER"],
    ),
    "another source": (
        ["bearer.auth.credentials.source=SASL_OAUTHBEARER_INHERIT"],
        ["bearer.auth.credentials.source must be STATIC_TOKEN or OAUTHBEARER"],
    ),
    "a source, and no token": (GIVEN[:1], ["STATIC_TOKEN needs bearer.auth.token"]),
    "a source, and no client": (
        FETCHED[:1],
        [
            "OAUTHBEARER needs bearer.auth.client.id",
            "OAUTHBEARER needs bearer.auth.client.secret",
            "OAUTHBEARER needs bearer.auth.issuer.endpoint.url",
        ],
    ),
    "a token, and a client": (
        [*GIVEN, "bearer.auth.client.id=id", "bearer.auth.scope=s"],
        [
            "bearer.auth.client.id has no meaning with STATIC_TOKEN",
            "bearer.auth.scope has no meaning with STATIC_TOKEN",
        ],
    ),
    "a token that cannot be sent": (
        [GIVEN[0], "bearer.auth.token=SECRET ümlaut"],
        ["bearer.auth.token holds characters that cannot be sent"],
    ),
    "an empty value": ([*GIVEN, "bearer.auth.identity.pool.id="], ["bearer.auth.identity.pool.id is empty"]),
    "a key alone": (["ssl.key.password=SECRET"], ["ssl.key.password needs ssl.certificate.location"]),
    "no such file": (
        ["ssl.ca.location=/nowhere/ca.crt"],
        ["ssl.ca.location: [Errno 2] No such file or directory: '/nowhere/ca.crt'"],
    ),
}


@pytest.mark.parametrize(("lines", "told"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_told_at_start(tmp_path: Path, lines: list[str], told: list[str]) -> None:
    """A sentence for each."""
    assert "; ".join(problems(tmp_path, *lines)) == "; ".join(told)


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://login.example.com/token", True),
        ("http://127.0.0.1:8080/token", True),
        ("http://[::1]:8080/token", True),
        ("http://login.example.com/token", False),
        ("https://id:SECRET@login.example.com/token", False),
        ("login.example.com/token", False),
        ("https://", False),
        ("https://[", False),
    ],
)
def test_the_client_s_secret_goes_where_it_is_safe(tmp_path: Path, url: str, *, taken: bool) -> None:
    """Plain http to loopback alone."""
    lines = [*FETCHED[:-1], f"bearer.auth.issuer.endpoint.url={url}"]
    if taken:
        assert chosen(tmp_path, *lines)[TOKEN_URL] == url
    else:
        (problem,) = problems(tmp_path, *lines)
        assert problem.startswith("bearer.auth.issuer.endpoint.url must be a URL that begins with https://")


@pytest.mark.parametrize(
    ("lines", "more", "told"),
    [
        (GIVEN, {"SCHEMA_REGISTRY_URL": ""}, "there is no registry; set SCHEMA_REGISTRY_URL too"),
        (GIVEN, {"SCHEMA_REGISTRY_USERNAME": "ann"}, "SCHEMA_REGISTRY_USERNAME another"),
        (GIVEN, {"SCHEMA_REGISTRY_URL": "https://ann:b@registry.example.com"}, "SCHEMA_REGISTRY_USERNAME another"),
    ],
)
def test_what_another_setting_contradicts_is_told(
    tmp_path: Path, lines: list[str], more: dict[str, str], told: str
) -> None:
    """Two ways to log in, or none of the two places to do so."""
    (problem,) = problems(tmp_path, *lines, **more)
    assert told in problem


@pytest.mark.parametrize("token", [GIVEN, FETCHED], ids=["given", "fetched"])
def test_tokens_go_to_the_registry_where_nobody_reads_them(tmp_path: Path, token: list[str]) -> None:
    """Who has one is let in until it expires: plain http goes to loopback alone, as with tokens of Genesys."""
    (problem,) = problems(tmp_path, *token, SCHEMA_REGISTRY_URL="http://registry.example.com:8081")
    assert problem == "a token goes over plain http only to loopback: name SCHEMA_REGISTRY_URL by https://"
    assert chosen(tmp_path, *token, SCHEMA_REGISTRY_URL="http://[::1]:8081")


def test_certificates_are_for_tls(tmp_path: Path, authority: Authority) -> None:
    """Over plain http nobody is asked for one; the token endpoint may still be behind that authority."""
    trusted, plain = f"ssl.ca.location={authority.certificate}", "http://localhost:8081"
    (problem,) = problems(tmp_path, trusted, SCHEMA_REGISTRY_URL=plain)
    assert problem == "ssl.ca.location cannot be used, since SCHEMA_REGISTRY_URL is plain http"
    assert "ssl.ca.location" in chosen(tmp_path, trusted, *FETCHED, SCHEMA_REGISTRY_URL=plain)


def test_certificates_that_cannot_be_used_are_told_at_start(tmp_path: Path, authority: Authority) -> None:
    """Rather than with the first new schema, in the night. Nobody is asked for a password on a terminal."""
    pair, other = authority.issue("one"), authority.issue("other")
    locked = authority.locked(pair, "right")
    shown = f"ssl.certificate.location={pair.certificate}"
    assert len(chosen(tmp_path, shown, f"ssl.key.location={pair.key}")) == 2
    assert len(chosen(tmp_path, shown, f"ssl.key.location={locked.key}", "ssl.key.password=right")) == 3
    wrong = {
        "another's key": (shown, f"ssl.key.location={other.key}"),
        "no key": (shown,),
        "a locked key": (shown, f"ssl.key.location={locked.key}"),
        "a wrong password": (shown, f"ssl.key.location={locked.key}", "ssl.key.password=SECRET"),
    }
    for lines in wrong.values():
        (problem,) = problems(tmp_path, *lines)
        assert problem.startswith("ssl.certificate.location and ssl.key.location are no certificate with its key")
    (problem,) = problems(tmp_path, f"ssl.ca.location={pair.key}")
    assert problem.startswith("ssl.ca.location holds no certificates in PEM")
    (problem,) = problems(tmp_path, "ssl.ca.location=a\0b")
    assert problem == "ssl.ca.location: embedded null byte"
