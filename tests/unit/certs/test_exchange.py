"""An exchange of certificates is right at every point: whatever dies between two files, old and new understand each other."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest
import yaml

from joblet.atomicfile import write_atomic
from joblet.config.client import NodeConfig
from joblet.config.editing import with_values
from joblet.config.server import ServerConfig, load_server_config
from joblet.pki import Authority, CertificateError, KeyPair, Role, load_certificate, load_certificates
from jobletd.certs import exchange
from jobletd.certs.directory import CertificateDirectory
from jobletd.certs.errors import CertsError
from jobletd.certs.exchange import Exchanger
from jobletd.certs.inventory import client_nodes
from jobletd.certs.issued import Issued
from jobletd.certs.issuing import Order, Revocation, issue, plan_revocation
from jobletd.certs.renewal import Exchange, Wish, plan_exchange, revocation_lists
from jobletd.certs.verification import check_client, check_server
from jobletd.setup import Setup, make_root
from jobletd.tls_context import Revocations

NOW = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)  # what is made meanwhile counts by then
DAY = datetime.timedelta(days=1)
WISHES = [Wish(everything=True), Wish(everything=True, new_authority=True)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root") / "x"
    make_root(Setup(str(root), (), 0, "/sys/fs/cgroup/x/y"))
    return root


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> CertificateDirectory:
    shutil.copytree(made / "config", tmp_path / "config")
    return CertificateDirectory(f"{tmp_path}/config/joblet-config.yml")


def config_of(directory: CertificateDirectory) -> ServerConfig:
    return load_server_config(directory.config_path, {})


def clients_of(directory: CertificateDirectory) -> list[NodeConfig]:
    return [node for path in directory.client_files() for node in client_nodes(path)]


def planned(directory: CertificateDirectory, wish: Wish, now: datetime.datetime = NOW) -> Exchange:
    plan = plan_exchange(directory, config_of(directory), wish, now)
    assert plan is not None
    return plan


def take(directory: CertificateDirectory, wish: Wish, now: datetime.datetime = NOW) -> None:
    plan = planned(directory, wish, now)
    exchange.write_all([*plan.first, *plan.then])


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("before", [0, 1])
def test_after_each_file_daemon_and_clients_old_and_new_accept_each_other(
    directory: CertificateDirectory, wish: Wish, before: int
) -> None:
    for _ in range(before):  # an authority that has a predecessor already
        take(directory, WISHES[1])
    old_config, old_clients = config_of(directory), clients_of(directory)
    plan = planned(directory, wish)
    for number, (path, data) in enumerate([*plan.first, *plan.then], 1):
        write_atomic(path, data)
        config = config_of(directory)
        check_server(config, NOW)
        reloaded = [config] if number > len(plan.first) else [config, old_config]
        for daemon in reloaded:
            for node in (*old_clients, *clients_of(directory)):
                check_client(node, daemon, NOW, where=f"{node.name} after {path}")
        issuing = directory.authorities().issuing.issue_client("new", Role.ADMIN, NOW)
        (_, text), _ = plan_revocation(directory, config, Revocation(name="viewer"), NOW)
        lists = yaml.safe_load(text)["security"]["crl"]
        changed = config.security.model_copy(update={"crl": lists})
        check_server(config.model_copy(update={"security": changed}), NOW)  # revoking works at this point too
        there = NodeConfig("new", "", issuing.certificate, issuing.key, config.security.ca_cert)
        check_client(there, config, NOW, where=f"one issued after {path}")


@pytest.mark.parametrize("wish", WISHES)
def test_an_exchange_that_fails_at_any_file_leaves_everything_as_it_was(
    directory: CertificateDirectory, wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in Path(directory.path).iterdir()}
    plan = planned(directory, wish)
    for failing in range(len([*plan.first, *plan.then])):
        left = [failing]

        def write(path: str, data: bytes, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1 and not path.startswith(f"{directory.path}/backup"):
                raise OSError(28, "No space left on device", path)
            write_atomic(path, data)

        monkeypatch.setattr(exchange, "back_up", lambda *_: "nowhere")
        monkeypatch.setattr(exchange, "write_atomic", write)
        with pytest.raises(CertsError, match=r"No space left.*the old certificates are back in place"):
            Exchanger(directory, lambda: config_of(directory), lambda _: None, NOW).carry_out(plan)
        assert {path.name: path.read_bytes() for path in Path(directory.path).iterdir()} == before


def test_authorities_that_were_never_ours_stay_with_their_lists(directory: CertificateDirectory) -> None:
    other = Authority.create(NOW)
    first = directory.authorities().issuing.subject
    text = with_values(
        Path(directory.config_path).read_text(),
        {("security", "caCert"): directory.authorities().certificates + other.pair.certificate},
        path=directory.config_path,
    )
    Path(directory.config_path).write_text(text)
    pair = other.issue_client("eve", Role.VIEWER, NOW)
    crl = other.revoke([load_certificate(pair.certificate).serial_number], NOW)
    lists = revocation_lists(directory.authorities(), crl, {first: {5}}, NOW)
    Path(directory.config_path).write_text(with_values(text, {("security", "crl"): lists}, path=directory.config_path))
    take(directory, Wish(everything=True, new_authority=True, overlap=False))
    config = config_of(directory)
    check_server(config, NOW)
    trusted = [one.subject.rfc4514_string() for one in load_certificates(config.security.ca_cert)]
    assert trusted == [directory.authorities().issuing.subject, other.subject]
    assert Revocations.of(config.security.crl).holds(load_certificate(pair.certificate))


def test_without_overlap_nothing_of_before_counts(directory: CertificateDirectory) -> None:
    old = clients_of(directory)[0]
    take(directory, Wish(everything=True, new_authority=True, overlap=False))
    config = config_of(directory)
    check_server(config, NOW)
    with pytest.raises(CertificateError, match="another authority"):
        check_client(old, config, NOW, where="old")
    check_client(clients_of(directory)[0], config, NOW, where="new")


def test_an_authority_stays_as_long_as_something_of_it_counts_and_then_goes(directory: CertificateDirectory) -> None:
    first = directory.authorities().issuing.subject
    take(directory, WISHES[1])
    assert [one.subject for one in directory.authorities().all][1:] == [first]
    later = NOW + 400 * DAY
    take(directory, WISHES[1], later)
    assert first not in [one.subject for one in directory.authorities().all]
    assert len(directory.authorities().all) == 2


def test_an_authority_that_would_end_before_what_it_issues_gets_a_successor_unasked(
    directory: CertificateDirectory,
) -> None:
    ends = directory.authorities().issuing.ends
    plan = planned(directory, Wish(), ends - 100 * DAY)
    assert plan.what[0].startswith("authority CN=joblet CA")
    assert len(load_certificate(plan.server).subject) and plan.client is not None


def test_nothing_issued_outlives_its_authority() -> None:
    authority = Authority.create(NOW, days=10)
    for pair in (authority.issue_client("a", Role.ADMIN, NOW), authority.issue_server([], NOW)):
        assert load_certificate(pair.certificate).not_valid_after_utc == authority.ends


def test_the_record_knows_what_was_issued_and_a_revocation_outlives_rotations(directory: CertificateDirectory) -> None:
    path = issue(directory, config_of(directory), Order("anna", Role.VIEWER), NOW)
    (anna,) = [Issued.of(node.cert) for node in client_nodes(path)]
    assert anna in directory.issued()
    (config_path, text), revoked = plan_revocation(directory, config_of(directory), Revocation(name="anna"), NOW)
    assert revoked == [anna]
    write_atomic(config_path, text)
    certificate = load_certificate(client_nodes(path)[0].cert)
    for _ in range(2):
        assert Revocations.of(config_of(directory).security.crl).holds(certificate)
        take(directory, WISHES[1])
    assert Issued.of(client_nodes(path)[0].cert) == anna  # what is revoked is not renewed
    check_server(config_of(directory), NOW)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Revocation(name="nobody"), "no certificate of that name"),
        (Revocation(serial="ab:cd"), "no certificate of that serial number"),
        (Revocation(file="/no/such/file.yml"), "cannot be read"),
    ],
)
def test_what_cannot_be_revoked_is_told(directory: CertificateDirectory, asked: Revocation, said: str) -> None:
    with pytest.raises(Exception, match=said):
        plan_revocation(directory, config_of(directory), asked, NOW)


def test_a_certificate_of_an_authority_without_key_cannot_be_revoked(
    directory: CertificateDirectory, tmp_path: Path
) -> None:
    pair = Authority.create(NOW).issue_client("eve", Role.ADMIN, NOW)
    path = tmp_path / "eve.crt"
    path.write_text(pair.certificate)
    with pytest.raises(CertsError, match=r"only its authority can revoke it, .* is not in ca\.key"):
        plan_revocation(directory, config_of(directory), Revocation(file=str(path)), NOW)


def test_lists_without_one_of_each_authority_are_refused_at_once(directory: CertificateDirectory) -> None:
    authorities = directory.authorities()
    crl = revocation_lists(authorities, "", {authorities.issuing.subject: {5}}, NOW)
    other = Authority.create(NOW).pair
    security = config_of(directory).security.model_copy(
        update={"crl": crl, "ca_cert": authorities.certificates + other.certificate}
    )
    config = config_of(directory).model_copy(update={"security": security})
    with pytest.raises(CertificateError, match=r"security\.crl: has no list of CN=joblet CA"):
        check_server(config, NOW)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 64])
def test_a_name_that_is_no_file_name_is_refused(directory: CertificateDirectory, name: str) -> None:
    with pytest.raises(CertsError, match="is no name"):
        issue(directory, config_of(directory), Order(name, Role.VIEWER), NOW)


def test_keys_that_others_can_read_are_refused_with_the_mending_command(directory: CertificateDirectory) -> None:
    Path(directory.file("ca.key")).chmod(0o644)
    with pytest.raises(Exception, match=f"chmod 600 {directory.file('ca.key')}"):
        directory.authorities()


def test_two_at_a_time_are_one_too_many(directory: CertificateDirectory) -> None:
    with directory.locked(), pytest.raises(CertsError, match="another joblet certs is at work"), directory.locked():
        pass


def test_an_old_authority_that_may_not_vouch_is_told_with_the_way_out(directory: CertificateDirectory) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    old = directory.authorities().issuing
    key = serialization.load_pem_private_key(old.pair.key.encode(), password=None)
    certificate = load_certificate(old.pair.certificate)
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.subject)
        .public_key(certificate.public_key())
        .serial_number(5)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    signed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    narrow = Authority(KeyPair(signed.public_bytes(serialization.Encoding.PEM).decode(), old.pair.key))
    Path(directory.file("ca.crt")).write_text(narrow.pair.certificate)
    with pytest.raises(CertsError, match=r"may not vouch for another authority \(--no-overlap"):
        plan_exchange(directory, config_of(directory), WISHES[1], NOW)
