"""Certificates: what is in them, what role they give, and what is said of those that do not count."""

from __future__ import annotations

import datetime
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from joblet.pki import (
    CA_DAYS,
    LEAF_DAYS,
    Authority,
    CertificateError,
    CertificateExpired,
    InvalidName,
    Role,
    check_certificate,
    check_name,
    expires,
    load_certificate,
    name_of,
    role_of,
)

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(NOW)


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.Extension[x509.ExtensionType]:
    return certificate.extensions.get_extension_for_class(kind)


def test_the_authority_may_sign_leaves_and_vouch_for_its_successor(authority: Authority) -> None:
    certificate = load_certificate(authority.pair.certificate)
    constraints = extension(certificate, x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=None)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.not_valid_after_utc == NOW + CA_DAYS * DAY


def test_a_server_certificate_holds_the_names_that_always_count_and_those_given(authority: Authority) -> None:
    pair = authority.issue_server(["jobs.example.org", "192.0.2.7", "[2001:db8::7]", "localhost"], NOW)
    names = extension(load_certificate(pair.certificate), x509.SubjectAlternativeName).value
    assert isinstance(names, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["joblet", "localhost", "joblet-server", "jobs.example.org"]
    wanted = ["127.0.0.1", "::1", "0.0.0.0", "192.0.2.7", "2001:db8::7"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(one) for one in wanted]


@pytest.mark.parametrize("role", list(Role))
def test_a_client_certificate_says_name_and_role_and_serves_clients_alone(authority: Authority, role: Role) -> None:
    certificate = load_certificate(authority.issue_client("anna", role, NOW).certificate)
    assert (name_of(certificate), role_of(certificate)) == ("anna", role)
    assert extension(certificate, x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    assert extension(certificate, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)


def test_a_leaf_lives_from_a_little_before_now_for_its_days(authority: Authority) -> None:
    pair = authority.issue_client("anna", Role.VIEWER, NOW)
    assert expires(pair.certificate) == NOW + LEAF_DAYS * DAY
    assert NOW - DAY < load_certificate(pair.certificate).not_valid_before_utc < NOW


def test_an_authority_that_was_read_back_issues_what_the_first_one_trusts(authority: Authority) -> None:
    pair = Authority(authority.pair).issue_client("anna", Role.ADMIN, NOW)
    assert name_of(check_certificate(pair.certificate, authority.pair.certificate, NOW)) == "anna"


@pytest.mark.parametrize("units", [[], ["root"], ["Admin"], ["admin", "viewer"], ["admin", "admin"], ["admin "]])
def test_any_other_unit_or_several_give_no_role(units: list[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + DAY)
    from cryptography.hazmat.primitives import hashes

    certificate = builder.sign(key, hashes.SHA256())
    assert role_of(certificate) is None
    assert name_of(certificate) == ""


def test_only_admin_includes_the_other_role() -> None:
    assert Role.ADMIN.includes(Role.VIEWER) and Role.ADMIN.includes(Role.ADMIN) and Role.VIEWER.includes(Role.VIEWER)
    assert not Role.VIEWER.includes(Role.ADMIN)


def test_an_expired_certificate_is_said_to_be_expired_and_since_when(authority: Authority) -> None:
    pair = authority.issue_client("anna", Role.ADMIN, NOW, days=1)
    with pytest.raises(
        CertificateExpired, match=r"^cert: expired on 2026-01-03 03:04:05\+00:00 \(have a new one issued"
    ):
        check_certificate(pair.certificate, authority.pair.certificate, NOW + 2 * DAY, where="cert")


def test_a_certificate_of_an_expired_authority_does_not_count() -> None:
    authority = Authority.create(NOW, days=10)
    pair = authority.issue_client("anna", Role.ADMIN, NOW)
    shorter = Authority.create(NOW, days=1).vouch_for(authority, NOW)  # another certificate of the same authority
    with pytest.raises(CertificateExpired, match="of an authority that expired"):
        check_certificate(pair.certificate, shorter, NOW + 2 * DAY)


def test_who_trusts_an_authority_trusts_its_successors() -> None:
    first, second, third = (Authority.create(NOW) for _ in range(3))
    pair = third.issue_server([], NOW)
    chain = pair.certificate + second.vouch_for(third, NOW) + first.vouch_for(second, NOW)
    for trusted in (first, second, third):
        check_certificate(chain, trusted.pair.certificate, NOW)
    with pytest.raises(CertificateError, match="another authority"):
        check_certificate(pair.certificate, first.pair.certificate, NOW)


def test_a_certificate_of_tomorrow_asks_for_a_look_at_the_clock(authority: Authority) -> None:
    pair = authority.issue_client("anna", Role.ADMIN, NOW + DAY)
    with pytest.raises(CertificateError, match=r"only from .* \(is the clock right\?\)"):
        check_certificate(pair.certificate, authority.pair.certificate, NOW)


def test_a_certificate_of_another_authority_with_the_same_name_does_not_count(authority: Authority) -> None:
    pair = Authority.create(NOW).issue_client("anna", Role.ADMIN, NOW)
    with pytest.raises(CertificateError, match="another authority issued it"):
        check_certificate(pair.certificate, authority.pair.certificate, NOW)


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        *(("", "is missing"), (" \n", "is missing"), ("hello", "is no certificate")),
        ("gr\u00fc\u00dfe", "characters that no PEM text has"),
    ],
)
def test_what_is_no_certificate_is_named(authority: Authority, pem: str, said: str) -> None:
    with pytest.raises(CertificateError, match=said):
        check_certificate(pem, authority.pair.certificate, NOW)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("jobs.example.org", "jobs.example.org"),
        ("jobs.", "jobs"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "::1"),
        ("a", "a"),
    ],
)
def test_a_name_is_taken_as_a_certificate_holds_it(given: str, name: str) -> None:
    assert check_name(given) == name


@pytest.mark.parametrize(
    "given",
    [
        "",
        ".",
        "a..b",
        "a_b",
        "-a",
        "a-",
        "jobs:50051",
        "10.0.0.256",
        "1.2.3",
        "fe80::1%eth0",
        "*.a",
        "ü",
        "a" * 64,
        "a.\n",
    ],
)
def test_what_is_neither_name_nor_address_is_refused(given: str) -> None:
    with pytest.raises(InvalidName):
        check_name(given)


def damaged(pem: str, old: bytes, new: bytes) -> str:
    """The certificate with some of its bytes exchanged: of the same form, of another content."""
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    assert old in der
    return ssl.DER_cert_to_PEM_cert(der.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"joblet CA", b"\xc0oblet CA", "is no certificate"),  # a name that is not UTF-8
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", "is no certificate"),  # version 8
    ],
)
def test_what_looks_like_a_certificate_and_is_none_is_named(
    authority: Authority, old: bytes, new: bytes, said: str
) -> None:
    pem = damaged(authority.issue_client("anna", Role.ADMIN, NOW).certificate, old, new)
    with pytest.raises(CertificateError, match=said):
        check_certificate(pem, authority.pair.certificate, NOW)


def test_an_authority_of_an_unknown_curve_issued_nothing(authority: Authority) -> None:
    pem = authority.issue_client("anna", Role.ADMIN, NOW).certificate
    curve = bytes.fromhex("06082a8648ce3d030107")
    with pytest.raises(CertificateError, match="another authority issued it"):
        check_certificate(pem, damaged(authority.pair.certificate, curve, curve[:-1] + b"\x41"), NOW)
