"""Calls a server like a Python application, at each given address."""

import queue
import sys

import grpc
from ebb.v1 import cache_pb2 as m
from ebb.v1 import cache_pb2_grpc


def as_they_end(calls):
    ended = queue.Queue()
    for call in calls:
        call.add_done_callback(ended.put)
    for _ in calls:
        yield ended.get(timeout=30)


for target in sys.argv[1:]:
    with grpc.insecure_channel(target) as channel:
        cache = cache_pb2_grpc.CacheServiceStub(channel)
        for i in range(200):
            key = f"{target}-{i}".encode()
            stored = cache.Set(m.SetRequest(key=key, value=b"v" * i, ttl_ms=60_000))
            assert stored.outcome == m.SetResponse.OUTCOME_STORED, stored
            got = cache.Get(m.GetRequest(key=key))
            assert got.outcome == m.GetResponse.OUTCOME_HIT and got.value == b"v" * i, got
        batch = cache.BatchGet(m.BatchGetRequest(keys=[f"{target}-{i}".encode() for i in range(200)]))
        assert [len(r.value) for r in batch.results] == list(range(200))
        big = b"x" * 1_000_000
        cache.Set(m.SetRequest(key=b"big", value=big))
        assert cache.Get(m.GetRequest(key=b"big")).value == big
        operations = (m.PipeRequest(id=i, get=m.GetRequest(key=b"big", peek=True)) for i in range(20))
        assert [r.id for r in cache.Pipe(operations)] == list(range(20))
        try:
            cache.Get(m.GetRequest(key=b""))
            raise AssertionError("an empty key was taken")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        # Each deadline is a new header field, which repeatedly evicts :authority from the HPACK table.
        for seconds in range(1, 1_001):
            cache.Get(m.GetRequest(key=b"none"), timeout=seconds)
        # One of many callers gets the lease; the others get its value. A deletion ends it.
        lease = m.LeaseRequest(ttl_ms=60_000, wait_ms=30_000)
        calls = [cache.Get.future(m.GetRequest(key=b"leased", lease=lease)) for _ in range(50)]
        won = next(call for call in as_they_end(calls)).result()
        assert won.lease.state == m.Lease.STATE_WON and won.outcome == m.GetResponse.OUTCOME_MISS, won
        fill = m.SetRequest(key=b"leased", value=b"v", lease_token=won.lease.token)
        assert cache.Set(fill).outcome == m.SetResponse.OUTCOME_STORED
        outcomes = sorted(call.result().outcome for call in calls)
        assert outcomes == [m.GetResponse.OUTCOME_HIT] * 49 + [m.GetResponse.OUTCOME_MISS], outcomes
        cache.Delete(m.DeleteRequest(key=b"leased", mode=m.DeleteRequest.MODE_TOMBSTONE, hold_off_ms=1_000))
        assert cache.Set(fill).outcome == m.SetResponse.OUTCOME_LEASE_LOST
        held = cache.Get(m.GetRequest(key=b"leased", lease=m.LeaseRequest(ttl_ms=1)))
        assert held.lease.state == m.Lease.STATE_HELD_OFF, held
        # A burst waits for quota.
        burst = [cache.Get.future(m.GetRequest(key=b"big")) for _ in range(32)]
        assert all(call.result().value == big for call in burst)
        for calls, size in ((32, 1_000_000), (100, 250_000)):
            sets = [cache.Set.future(m.SetRequest(key=b"big%d" % i, value=big[:size])) for i in range(calls)]
            assert all(call.result().outcome == m.SetResponse.OUTCOME_STORED for call in sets)
        print(f"{target}: 200 sets and gets, a batch, a megabyte, a pipe, a refusal, 1,000 deadlines, leases, bursts of large values")
