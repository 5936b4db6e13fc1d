"""`REDIS_URL` in its forms."""

from __future__ import annotations

import pytest

from coordinator.connection_url import UrlError
from coordinator.redis_url import RedisTarget, parse_redis_url


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://", RedisTarget("single", (("localhost", 6379),))),
        ("redis://h", RedisTarget("single", (("h", 6379),))),
        (
            "redis://me:p%40ss@h:7000/3",
            RedisTarget("single", (("h", 7000),), username="me", password="p@ss", db=3),
        ),
        ("redis://:word@[::1]/", RedisTarget("single", (("::1", 6379),), password="word")),
        ("redis://h/2?db=5", RedisTarget("single", (("h", 6379),), db=5)),
        ("rediss://h", RedisTarget("single", (("h", 6379),), tls={})),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none",
            RedisTarget(
                "single", (("h", 6379),),
                tls={"ssl_cert_reqs": "none", "ssl_ca_certs": "/ca.pem",
                     "ssl_check_hostname": False},
            ),
        ),
        ("unix:///run/redis.sock", RedisTarget("single", (), path="/run/redis.sock")),
        (
            "unix:///run/redis.sock?db=2&password=word",
            RedisTarget("single", (), path="/run/redis.sock", password="word", db=2),
        ),
        (
            "unix://:word@/run/redis.sock",
            RedisTarget("single", (), path="/run/redis.sock", password="word"),
        ),
        (
            "redis+sentinel://:word@a,b:26380/main/1?sentinel_password=other",
            RedisTarget(
                "sentinel", (("a", 26379), ("b", 26380)), password="word", db=1, master="main",
                sentinel_password="other",
            ),
        ),
        (
            "rediss+sentinel://a/main",
            RedisTarget("sentinel", (("a", 26379),), master="main", tls={}),
        ),
        (
            "redis+cluster://me:word@a:7000,b:7001",
            RedisTarget("cluster", (("a", 7000), ("b", 7001)), username="me", password="word"),
        ),
        ("rediss+cluster://a/0", RedisTarget("cluster", (("a", 6379),), tls={})),
    ],
)  # fmt: skip
def test_each_form_is_read(url: str, target: RedisTarget) -> None:
    assert parse_redis_url(url) == target


def test_its_password_does_not_show() -> None:
    target = parse_redis_url("redis+sentinel://:secret@a/m?sentinel_password=secret")

    assert "secret" not in repr(target)
    assert target.place == "a:26379"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:secret@h", "start with"), ("redis://:secret@h?ssl=true", "rediss://"),
        ("redis://:secret@h?sssl_ca_certs=x", "sssl_ca_certs is unknown"),
        ("redis://:secret@h?ssl_ca_certs=x", "rediss://"),
        ("redis://:secret@a,b", "several hosts"), ("redis://:secret@a:b", "port"),
        ("redis://:se#cret@h", "holds a #"), ("redis://:se/cret@h", "login"),
        ("redis://:se[cret@h", "login"), ("redis://:secret@h/one", "database"),
        ("redis://:secret@h/1/2", "path"), ("redis+sentinel://:secret@h", "master"),
        ("redis+sentinel://:secret@/m", "host is missing"),
        ("redis+cluster://:secret@h/1", "database 0"), ("unix://h/run/x.sock", "unix:///"),
        ("redis://:secret@h?sentinel_password=secret", "redis+sentinel://"),
        ("rediss://:secret@h?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_without_the_password(url: str, said: str) -> None:
    with pytest.raises(UrlError) as raised:
        parse_redis_url(url)

    assert said in str(raised.value)
    assert "cret" not in str(raised.value)
