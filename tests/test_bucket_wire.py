"""One signed request: what is tried again, what ends it, and how it gets there."""

from __future__ import annotations

import math
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.faults import certificates
from tests.faults.room import through
from tests.faults.rules import Call, Link, LoseAnswer, Refuse, Reset, Rule
from tests.kit import runs, stores

from byos_run import errors
from byos_run.bucket import objects, ranges
from byos_run.bucket.connections import Connections
from byos_run.bucket.session import Session
from byos_run.bucket.wire import Wire
from byos_run.model import Place, S3Url, StoreSettings
from byos_run.node.stop import Stop


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def silence():
    """A server that takes connections and says nothing; its address, and the event that one has come."""
    came, kept = threading.Event(), []

    def take():
        with suppress(OSError):
            while True:
                kept.append(server.accept()[0])
                came.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


def session_at(endpoint_url, directory, store, **settings):
    (directory / "config").write_text(runs.config_text(store), encoding="utf-8")
    asked = {"endpoint_url": endpoint_url, "first_contact_s": 0.5, "patience_s": 2.0, **settings}
    return Session(settings=StoreSettings(**asked), place=Place(directory, {}))


# ------------------------------------------------------------ reaching the store


def test_a_store_that_is_never_reached_is_named_with_its_port(bucket, tmp_path):
    """69 within first_contact, not within the longer patience."""
    port = free_port()
    session = session_at(f"http://127.0.0.1:{port}", tmp_path, bucket.store, patience_s=60.0)
    started = time.monotonic()
    with pytest.raises(errors.StoreUnreachable, match=rf"127\.0\.0\.1:{port}: Connection refused") as caught:
        ranges.open_object(session.wire(bucket.name, stop=Stop()), S3Url(bucket.name, "x"))

    assert 0.4 < time.monotonic() - started < 30
    assert "store.endpoint_url" in caught.value.hint


def test_a_name_that_no_one_knows_is_not_tried_for_ever(bucket, tmp_path):
    """DNS gone is an outage like another."""
    session = session_at("http://no-such-host.invalid:9000", tmp_path, bucket.store)
    with pytest.raises(errors.StoreUnreachable, match=r"no-such-host\.invalid:9000"):
        objects.get(session.wire(bucket.name, stop=Stop()), "x")


def test_an_outage_after_contact_is_waited_out(bucket, tmp_path):
    """A store once reached is waited for with patience, also by a wire that is made later: not first_contact only."""
    with through(bucket, tmp_path, first_contact_s=0.1, patience_s=20.0) as way:
        objects.put(way.wire, "x", b"1")
        way.proxy.tell(Rule(Reset(), nth=tuple(range(1, 5))))
        fresh = way.wire.until(stop=Stop())
        assert b"1" == objects.get(fresh, "x").body


def test_every_wire_of_a_bucket_knows_that_it_was_reached(bucket, tmp_path):
    """The steps ask the session for a wire each: contact made by one counts for all."""
    with through(bucket, tmp_path, first_contact_s=0.1, patience_s=20.0) as way:
        objects.put(way.session.wire(bucket.name, stop=Stop()), "x", b"1")
        way.proxy.tell(Rule(Reset(), nth=tuple(range(1, 5))))
        assert b"1" == objects.get(way.session.wire(bucket.name, stop=Stop()), "x").body


def test_patience_ends(bucket, tmp_path):
    """503 for longer than patience: the request, the time and the answer are named."""
    with (
        through(bucket, tmp_path, Rule(Refuse(503)), patience_s=1.0) as way,
        pytest.raises(errors.StoreUnreachable, match=r"GET s3://.*/x failed for 1 s: .*503 SlowDown"),
    ):
        objects.get(way.wire, "x")


def test_the_wish_to_stop_ends_the_waiting(bucket, tmp_path):
    """A signal in an outage is obeyed at once."""
    with through(bucket, tmp_path, Rule(Refuse(503)), patience_s=60.0) as way, ThreadPoolExecutor(1) as pool:
        trying = pool.submit(objects.get, way.wire, "x")
        way.proxy.wait_for(lambda seen: len(seen) >= 3)
        way.wire.stop.ask("a signal")
        with pytest.raises(errors.Stopped, match="a signal"):
            trying.result(timeout=45)


def test_what_is_begun_after_the_wish_to_stop_is_not_tried_for_long(bucket, tmp_path):
    """Last words; else a stop in the moment before the first request would be heard by nobody."""
    with through(bucket, tmp_path, Rule(Refuse(503)), patience_s=90.0) as way, ThreadPoolExecutor(1) as pool:
        way.wire.stop.ask("a signal")
        with pytest.raises(errors.Stopped, match="a signal"):
            pool.submit(objects.put, way.wire, "x", b"1").result(timeout=45)


@pytest.mark.parametrize("ends", ["patience", "a signal"])
def test_endless_patience_ends_with_the_solver(bucket, tmp_path, ends):
    """A part that is begun when the solver has ended: an outage is waited out as any other, and a signal is heard."""
    over, run = Stop(), Stop()
    over.ask("the solver's end")
    with through(bucket, tmp_path, Rule(Refuse(503)), patience_s=1.0 if ends == "patience" else 90.0) as way:
        wire = way.session.wire(bucket.name, stop=run).until(stop=over, broken_by=run.unless_cut, patience_s=math.inf)
        with ThreadPoolExecutor(1) as pool:
            trying = pool.submit(objects.put, wire, "x", b"1")
            way.proxy.wait_for(lambda seen: len(seen) >= 2)
            if ends == "a signal":
                run.ask("a signal")
                run.ask("another")
            with pytest.raises(errors.StoreUnreachable if ends == "patience" else errors.Stopped):
                trying.result(timeout=45)


@pytest.mark.parametrize("sends", [0, 64 << 20], ids=["answer", "body"])
def test_the_wish_to_stop_ends_a_request_that_waits(bucket, sends):
    """The store takes the connection and does nothing, or takes no more of the body: Stopped, long before the request's own end."""
    with silence() as (endpoint_url, came), tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(1) as pool:
        stop = Stop()
        wire = session_at(endpoint_url, Path(directory), bucket.store).wire(bucket.name, stop=stop)
        patient = Wire(
            replace(wire.line, connections=Connections(replace(wire.host, idle_timeout_s=90.0))),
            stop=stop,
            limits=wire.limits,
        )
        trying = pool.submit(patient.request, "PUT", "x", body=bytes(sends))
        assert came.wait(30)
        stop.ask("a signal")
        with pytest.raises(errors.Stopped, match="a signal"):
            trying.result(timeout=45)


def test_a_dead_kept_connection_is_replaced_at_once(bucket, tmp_path):
    """Reset of a connection that had served: the next one serves at once, also where there is no patience at all."""
    with through(bucket, tmp_path, patience_s=0.0) as way:
        objects.put(way.wire, "x", b"1")
        way.proxy.tell(Rule(Reset(), nth=(1,)))
        assert b"1" == objects.get(way.wire, "x").body


def test_a_storm_is_weathered_by_all_threads(bucket, tmp_path):
    """Half of everything refused, lost or reset: 60 objects from 8 threads are all there."""
    told = [Rule(Refuse(503), chance=0.2), Rule(LoseAnswer(), chance=0.2), Rule(Reset(), chance=0.2)]
    with through(bucket, tmp_path, *told, first_contact_s=30.0, patience_s=30.0) as way, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: objects.put(way.wire, f"s/{number:02}", b"%d" % number), range(60)))

    assert {f"s/{number:02}" for number in range(60)} == set(bucket.sizes("s/"))


# ------------------------------------------------------------ clock


def test_threads_refused_together_for_their_clock_all_go_on(bucket, tmp_path):
    """Eight requests signed an hour off: the first refusal puts the clock right, the others are no refusal of ours."""
    together = threading.Barrier(8)
    with through(bucket, tmp_path) as way, ThreadPoolExecutor(8) as pool:
        way.proxy.tell(Rule(Call(together.wait), nth=tuple(range(1, 9))))
        way.wire.line.clock.offset_s = 3600.0
        list(pool.map(lambda number: objects.put(way.wire, f"c/{number}", b"x"), range(8)))
        assert 16 == way.count("PUT")

    assert 8 == len(bucket.sizes("c/"))


# ------------------------------------------------------------ bandwidth


@pytest.mark.parametrize("width", [1, 8])
def test_bandwidth_is_kept_to(bucket, tmp_path, width):
    """Up and down, over one thread or many: 8 MB at 4 MB/s take two seconds; more only on a busy machine."""
    with (
        through(bucket, tmp_path, max_bandwidth_bytes_per_s=4e6, idle_timeout_s=30.0) as way,
        ThreadPoolExecutor(width) as pool,
    ):
        started = time.monotonic()
        list(pool.map(lambda number: objects.put(way.wire, f"b/{number}", bytes(250_000)), range(32)))
        took_s = time.monotonic() - started

    assert 1.5 < took_s


def test_whoever_waits_for_bandwidth_hears_a_stop(bucket, tmp_path):
    """What was read is given up at once; what is begun after the wish to stop is done still."""
    bucket.put("slow", bytes(1 << 20))
    with through(bucket, tmp_path, max_bandwidth_bytes_per_s=20e3, idle_timeout_s=30.0) as way:
        way.proxy.tell(Rule(Call(lambda: way.wire.stop.ask("a test")), method="GET"))
        with pytest.raises(errors.Stopped, match="a test"):
            way.wire.request("GET", "slow", into=memoryview(bytearray(1 << 20)))
        objects.put(way.wire, "record", b"done")

    assert bucket.get("record") == b"done"


def test_a_body_that_moves_is_never_too_late(bucket, tmp_path):
    """A link that needs three times as long for it as a byte may be waited for: sent once."""
    with through(bucket, tmp_path, link=Link(bits_per_s=10e6), idle_timeout_s=3.0) as way:
        objects.put(way.wire, "large", bytes(12_000_000))
        assert 1 == way.count("PUT")

    assert {"large": 12_000_000} == bucket.sizes("large")


def test_a_long_thin_link_is_filled(bucket, tmp_path):
    """200 Mbit/s and half a second: one range after another would take 11.5 s, six at once take three on an idle machine."""
    size = 24 << 20
    bucket.put("link", bytes(size))
    with (
        through(bucket, tmp_path, link=Link(bits_per_s=200e6, latency_s=0.5), idle_timeout_s=30.0) as way,
        ThreadPoolExecutor(6) as pool,
    ):
        reader = ranges.open_object(way.wire, S3Url(bucket.name, "link"))
        started = time.monotonic()
        got = sum(
            len(each) for each in pool.map(lambda at: reader.read(at, 1 << 20), range(0, size - (1 << 20), 1 << 20))
        )
        took_s = time.monotonic() - started

    assert 23 << 20 == got
    assert took_s < 23 * 0.5


# ------------------------------------------------------------ TLS and proxies


@contextmanager
def tls_store(directory):
    """MinIO with a certificate that it signed itself, and the path of that."""
    ca = certificates.lay_down(directory)
    with stores.scratch() as data, stores.minio(data, certificates=directory) as store:
        yield store._replace(endpoint_url=store.endpoint_url.replace("127.0.0.1", "localhost")), str(ca)


class Tunnel:
    """A proxy that knows CONNECT alone, and remembers where to."""

    def __init__(self):
        self.asked = []
        self._open = []
        self._threads = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://user:p%40ss@127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _start(self, target, *arguments):
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.asked.append(head.decode())
            host, _, port = head.split()[1].decode().partition(":")
            store = socket.create_connection((host, int(port)))
            self._open += [client, store]
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._start(self._pass, client, store)
            self._start(self._pass, store, client)

    @staticmethod
    def _pass(source, target):
        while True:
            try:
                piece = source.recv(65536)
                if not piece:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(piece)
            except OSError:
                return


def test_tls_is_trusted_by_its_ca_and_goes_by_the_proxy_of_the_environment(tmp_path, monkeypatch):
    """A wrong CA is 69 at once, with the key to set; the right one serves, through HTTPS_PROXY, and not where NO_PROXY says."""
    with tls_store(tmp_path / "tls") as (store, ca), Tunnel() as tunnel:
        distrusting = session_at(store.endpoint_url, tmp_path, store, first_contact_s=90.0)
        started = time.monotonic()
        with pytest.raises(errors.StoreUnreachable, match=r"the certificate of localhost:\d+ is not trusted") as caught:
            objects.get(distrusting.wire("kit-tls", stop=Stop()), "x")
        assert "store.ca_bundle" in caught.value.hint
        assert time.monotonic() - started < 20

        wire = session_at(store.endpoint_url, tmp_path, store, ca_bundle=ca).wire("kit-tls", stop=Stop())
        wire.request("PUT", "")
        objects.put(wire, "x", b"by tls")
        assert [] == tunnel.asked

        monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        tunnelled = session_at(store.endpoint_url, tmp_path, store, ca_bundle=ca).wire("kit-tls", stop=Stop())
        assert b"by tls" == objects.get(tunnelled, "x").body
        assert tunnel.asked[0].startswith(f"CONNECT {store.endpoint_url[8:]} ")
        assert "Proxy-Authorization: Basic dXNlcjpwQHNz" in tunnel.asked[0]

        monkeypatch.setenv("NO_PROXY", "localhost")
        direct = session_at(store.endpoint_url, tmp_path, store, ca_bundle=ca).wire("kit-tls", stop=Stop())
        assert b"by tls" == objects.get(direct, "x").body
        assert 1 == len(tunnel.asked)
        for each in (wire, tunnelled, direct):
            each.line.connections.close()


def test_plain_http_goes_by_its_proxy(bucket, tmp_path, monkeypatch):
    """HTTP_PROXY forwards whole URLs: the request line is absolute, and the signature holds."""
    with through(bucket, tmp_path) as way:
        monkeypatch.setenv("HTTP_PROXY", way.proxy.endpoint_url)
        wire = session_at(bucket.store.endpoint_url, tmp_path, bucket.store).wire(bucket.name, stop=Stop())
        objects.put(wire, "x", b"forwarded")
        wire.line.connections.close()
        assert 1 == way.count("PUT")
        assert way.proxy.seen[-1].key.startswith("http://127.0.0.1")

    assert b"forwarded" == bucket.get("x")
