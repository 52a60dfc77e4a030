"""Where an engine is, and what settings of it may not mean."""

import os
from pathlib import Path

import pytest

from revtunnel.cluster.engine_settings import (
    EnginePlace,
    EngineSettings,
    engine_faults,
    engine_way,
    read_engine,
)
from revtunnel.sockets.tls.certificates import FaultyFiles


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("redis://10.0.0.5", EnginePlace("10.0.0.5")),
        ("redis://10.0.0.5:6380/3", EnginePlace("10.0.0.5", 6380, 3)),
        ("rediss://gate@engine.example/0", EnginePlace("engine.example", 6379, 0, "gate", True)),
        ("redis://[::1]:6379/", EnginePlace("::1")),
        ("unix:/run/redis.sock", EnginePlace("unix:/run/redis.sock", 0)),
    ],
)
def test_where_an_engine_is(text: str, place: EnginePlace) -> None:
    """As others write it."""
    assert read_engine(text) == place


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.5:6379", "redis://[USER@]HOST[:PORT]"),
        ("http://10.0.0.5", "redis://[USER@]HOST[:PORT]"),
        ("redis://u:secret@10.0.0.5", "engine_password_file"),
        ("redis://10.0.0.5:0", "port 1 to 65535"),
        ("redis://10.0.0.5:65536", "65535"),
        ("redis://10.0.0.5/x", "redis://[USER@]HOST[:PORT]"),
        ("unix:run/redis.sock", "redis://[USER@]HOST[:PORT]"),
    ],
)
def test_what_is_no_engine(text: str, words: str) -> None:
    """Said with what is wanted; a password is not said again."""
    with pytest.raises(ValueError, match=r".") as refused:
        read_engine(text)
    assert words in str(refused.value) and "secret" not in str(refused.value)


def faults(engine: str, **more: object) -> list[str]:
    """The keys that are wrong."""
    place = read_engine(engine) if engine else None
    return [key for key, _ in engine_faults(EngineSettings(engine=place, **more))]  # type: ignore[arg-type]


def test_what_settings_mean_together() -> None:
    """Plaintext between machines has to be asked for, and nothing is set for nothing."""
    assert faults("redis://127.0.0.1") == faults("unix:/run/r.sock") == faults("rediss://10.0.0.5") == []
    assert faults("redis://10.0.0.5") == ["engine"]
    assert faults("redis://10.0.0.5", engine_plaintext=True) == []
    assert faults("redis://main", engine_sentinels=(("10.0.0.5", 26379),)) == ["engine"]
    assert faults("redis://main", engine_sentinels=(("127.0.0.1", 26379),)) == []
    assert faults("redis://127.0.0.1", engine_authority="/ca.pem") == ["engine_authority"]
    assert faults("rediss://10.0.0.5", engine_certificate="/me.pem") == ["engine_certificate"]
    assert faults("", engine_password_file="/p") == ["engine_password_file"]


def test_a_password_is_read_for_each_connection_from_a_file_that_is_closed(tmp_path: Path) -> None:
    """Its first line; a file that everybody reads is no place for one."""
    file = tmp_path / "password"
    settings = EngineSettings(engine=read_engine("redis://127.0.0.1"), engine_password_file=str(file))
    with pytest.raises(FaultyFiles, match="engine_password_file"):
        engine_way(settings)
    file.write_text("first\n")
    os.chmod(file, 0o644)
    with pytest.raises(FaultyFiles, match="0600 wanted"):
        engine_way(settings)
    os.chmod(file, 0o600)
    way = engine_way(settings)
    assert way.password() == "first"
    file.write_text("second")
    assert way.password() == "second"
