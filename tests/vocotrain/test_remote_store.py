"""Training from a store in a bucket gives what the same store on a disk gives."""

import json

import boto3
import moto.server
import pytest

from tests.training_store import small_run, write_store
from vocodata.remote import as_path
from vocodata.store import open_store
from vocotrain import pretrain

SHAPES = {"clinic/a": (70, 68, 40), "clinic/b": (66, 80, 34), "trial/d": (72, 66, 36)}


@pytest.fixture
def bucket(monkeypatch):
    """URL of a new bucket of a server on loopback."""
    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "x",
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket="training")
    yield "s3://training/ct.zarr"
    client.close()
    server.stop()


def test_a_run_on_a_bucket_ends_in_the_weights_of_a_run_on_a_disk(tmp_path, bucket):
    write_store(as_path(bucket), SHAPES)
    local = write_store(tmp_path / "ct.zarr", SHAPES)
    assert open_store(bucket).digest == open_store(local).digest
    weights = []
    for store, out in ((bucket, tmp_path / "far"), (str(local), tmp_path / "near")):
        pretrain(small_run(store, out, "train.steps=1"))
        paths = sorted((out / "checkpoints/final").glob("*.safetensors"))
        weights.append({path.name: path.read_bytes() for path in paths})
    assert len(weights[0]) > 0
    assert weights[0] == weights[1]
    bill = json.loads((tmp_path / "far/data.json").read_text())
    assert bill["store"] == bucket
