// Calls a server like a Node application, at each given address.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [folder, proto, ...targets] = process.argv.slice(2);
const installed = createRequire(`${folder}/`);
const grpc = installed("@grpc/grpc-js");
const loader = installed("@grpc/proto-loader");
// 64-bit numbers as JavaScript's numbers: every number that a client sends back is exact.
const definition = loader.loadSync("ebb/v1/cache.proto", { includeDirs: [proto], longs: Number, enums: String, defaults: true });
const { CacheService } = grpc.loadPackageDefinition(definition).ebb.v1;

for (const target of targets) {
  const client = new CacheService(target, grpc.credentials.createInsecure());
  const call = (method, request, seconds = 60) =>
    new Promise((resolve, reject) => {
      const options = { deadline: Date.now() + seconds * 1000 };
      client[method](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  const keys = Array.from({ length: 200 }, (_, i) => Buffer.from(`${target}-${i}`));
  for (const [i, key] of keys.entries()) {
    const stored = await call("Set", { key, value: Buffer.alloc(i, "v"), ttlMs: 60_000 });
    assert.equal(stored.outcome, "OUTCOME_STORED");
    const version = { ifVersion: stored.version };
    assert.equal((await call("Set", { key, value: Buffer.alloc(i, "w"), ...version })).outcome, "OUTCOME_STORED");
  }
  const batch = await call("BatchGet", { keys });
  assert.deepEqual(batch.results.map((result) => result.value.length), [...keys.keys()]);
  const big = Buffer.alloc(1_000_000, "x");
  await call("Set", { key: "big", value: big });
  assert.ok((await call("Get", { key: "big" })).value.equals(big));

  const pipe = client.Pipe();
  const ids = new Set();
  const ended = new Promise((resolve, reject) => pipe.on("data", ({ id }) => ids.add(id)).on("end", resolve).on("error", reject));
  for (let id = 0; id < 2_000; id++) pipe.write({ id, get: { key: "none" } });
  pipe.end();
  await ended;
  assert.equal(ids.size, 2_000);

  // One of many callers loads the key.
  let loads = 0;
  const key = Buffer.from(target);
  const load = async () => {
    for (;;) {
      const found = await call("Get", { key, lease: { ttlMs: 60_000, waitMs: 20_000 } });
      if (found.outcome === "OUTCOME_HIT") return found.value.toString();
      if (found.lease.state === "STATE_WON") {
        loads += 1;
        const fill = { key, value: Buffer.from("loaded"), leaseToken: found.lease.token };
        assert.equal((await call("Set", fill)).outcome, "OUTCOME_STORED");
        return "loaded";
      }
      assert.equal(found.lease.state, "STATE_HELD_BY_OTHER");
    }
  };
  const values = await Promise.all(Array.from({ length: 100 }, load));
  assert.deepEqual([new Set(values), loads], [new Set(["loaded"]), 1]);
  await call("Delete", { key, mode: "MODE_TOMBSTONE", holdOffMs: 1_000 });
  assert.equal((await call("Get", { key, lease: { ttlMs: 1 } })).lease.state, "STATE_HELD_OFF");

  await assert.rejects(call("Get", { key: "" }), (error) => error.code === grpc.status.INVALID_ARGUMENT && /^3 INVALID_ARGUMENT: key: length 0/.test(error.message));
  for (let seconds = 1; seconds <= 200; seconds++) await call("Get", { key: "none" }, seconds);
  client.close();
  console.log(`${target}: sets under versions, a batch, a megabyte, a pipe, leases, a refusal, deadlines`);
}
