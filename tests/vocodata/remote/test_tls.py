"""https as it is met outside: certificates are checked, and what is wrong with one is said."""

import datetime as dt
import ipaddress
import json
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.vocodata.conftest import write_sources
from tests.vocodata.packing import contents, pack
from vocodata.building import build
from vocodata.errors import RemoteError
from vocodata.remote import as_path, objects


def _certificate(folder, host):
    """Files of a key and of a certificate that signs itself, good for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "key.pem", folder / "certificate.pem"
    paths[0].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    paths[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return paths


@pytest.fixture
def over_tls(web, tmp_path):
    """A function that puts the web server behind TLS; gives its URL and its certificate's file."""

    def put(host="127.0.0.1"):
        try:
            name = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        key, certificate = _certificate(tmp_path, name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        web.socket = context.wrap_socket(web.socket, server_side=True)
        return web.url.replace("http:", "https:"), certificate

    return put


def test_a_source_behind_tls_gives_the_store_that_its_files_give(
    tmp_path, web, over_tls, monkeypatch
):
    manifest = write_sources(tmp_path, 2, labels=True)
    local = build(manifest, tmp_path / "local.zarr", workers=0)
    pack(contents(tmp_path / "sources/btcv"), web.folder, "zip")
    url, certificate = over_tls()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    document = json.loads(manifest.read_text())
    document["sources"][0]["root"] = f"{url}/all.zip"
    (tmp_path / "tls.yaml").write_text(json.dumps(document))
    assert build(tmp_path / "tls.yaml", tmp_path / "ct.zarr", workers=0).digest == local.digest


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(web, over_tls, waits):
    (web.folder / "a.zip").write_bytes(b"secret")
    url, _ = over_tls()
    with pytest.raises(RemoteError, match=r"certificate") as caught:
        objects.read(as_path(f"{url}/a.zip"))
    assert waits == [], "a certificate gets no better by waiting"
    assert "SSL_CERT_FILE" in str(caught.value)
    assert not web.seen


def test_a_certificate_for_another_host_is_refused(web, over_tls, monkeypatch):
    (web.folder / "a.zip").write_bytes(b"secret")
    url, certificate = over_tls("elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(RemoteError, match=r"not valid for '127\.0\.0\.1'") as caught:
        objects.read(as_path(f"{url}/a.zip"))
    assert "SSL_CERT_FILE" not in str(caught.value)
