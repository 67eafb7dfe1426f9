"""An engine over TCP that wants certificates."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agents.drivers.base import DriverError, Outcome, Room
from agents.drivers.docker import DockerDriver
from agents.option_table import Options
from pipeline.spec import StageSpec, StepSpec
from tests.dockerd import Engine
from tests.images import BUSYBOX, busybox_image
from tests.services import free_port

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("docker")]


class Authority:
    """Makes certificates in a folder, under the names that Docker's client looks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self._write("ca.pem", self._build(self._name, self._key.public_key(), ca=True))

    def issue(self, name: str, key_name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._write(name, self._build(subject, key.public_key(), ca=False))
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.folder / key_name).write_bytes(text)

    def _build(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        host = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([host]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, certificate: x509.Certificate) -> None:
        data = certificate.public_bytes(serialization.Encoding.PEM)
        (self.folder / name).write_bytes(data)


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with tempfile.TemporaryDirectory(prefix="ci-certs-") as folder:
        authority = Authority(Path(folder))
        authority.issue("cert.pem", "key.pem")
        yield authority


@pytest.fixture(scope="module")
def address(authority: Authority) -> Iterator[str]:
    port = free_port()
    certs = authority.folder
    words = [
        f"--host=tcp://127.0.0.1:{port}",
        "--tlsverify",
        f"--tlscacert={certs}/ca.pem",
        f"--tlscert={certs}/cert.pem",
        f"--tlskey={certs}/key.pem",
    ]
    engine = Engine(Path(tempfile.mkdtemp(prefix="ci-dockerd-", dir="/tmp")), words)
    try:
        engine.start()
        busybox_image(engine.address)
        yield f"tcp://127.0.0.1:{port}"
    finally:
        engine.close()


def options(address: str, folder: Path, certs: Path) -> Options:
    return Options(
        server="http://ci",
        token="x",
        state_dir=folder,
        docker_host=address,
        docker_tls_verify=True,
        docker_cert_path=str(certs),
    )


class Collected:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_a_step_runs_over_tls(address: str, authority: Authority, tmp_path: Path) -> None:
    driver = DockerDriver(options(address, tmp_path, authority.folder))
    driver.check()
    room = Room(f"drone-{secrets.token_hex(10)}", tmp_path / "room")
    for folder in (room.home, room.source, room.scripts):
        folder.mkdir(parents=True)
    (room.source / "file").write_text("hello\n")
    session = driver.open(StageSpec("a/b", 1, 1), room)
    sink = Collected()
    try:
        step = StepSpec(1, "one", image=BUSYBOX, commands=("cat file", "seq 20000"))
        outcome = session.start(step, {}, sink).wait()
    finally:
        session.remove()

    assert outcome == Outcome(0)
    assert sink.data.startswith(b"+ cat file\nhello\n+ seq 20000\n1\n2\n")
    assert sink.data.endswith(b"\n20000\n")


def test_an_engine_of_another_authority_is_refused(address: str, tmp_path: Path) -> None:
    stranger = Authority(tmp_path)
    stranger.issue("cert.pem", "key.pem")
    driver = DockerDriver(options(address, tmp_path, tmp_path))

    with pytest.raises(DriverError, match=r"(?i)cannot reach the Docker engine at .*certificate"):
        driver.check()


def test_missing_certificates_are_one_sentence(address: str, tmp_path: Path) -> None:
    driver = DockerDriver(options(address, tmp_path, tmp_path))

    with pytest.raises(DriverError, match="cannot reach the Docker engine"):
        driver.check()
