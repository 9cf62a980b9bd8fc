// The live page as users see it. Each check has a description.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [program, executablePath, root, bless] = process.argv.slice(2);
let failed = 0;
function check(ok, what, evidence = "") {
  console.log(`${ok ? "ok  " : "FAIL"} ${what}${ok ? "" : `: ${evidence}`}`);
  if (!ok) failed += 1;
}

async function serve(http = "127.0.0.1:0") {
  const flags = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--http-listen", http, "--max-memory", "256Mi"];
  const child = spawn(program, flags, { stdio: ["ignore", "pipe", "ignore"] });
  const line = await new Promise((resolve) => child.stdout.once("data", (data) => resolve(String(data))));
  const at = (name) => line.match(new RegExp(`${name}=(\\S+)`))[1];
  const ended = new Promise((resolve) => child.once("exit", resolve));
  return { data: at("data"), http: at("http"), stop: () => { child.kill("SIGTERM"); return ended; } };
}

function client(address) {
  const definition = loader.loadSync("ebb/v1/cache.proto", { includeDirs: [`${root}/proto`], keepCase: true });
  const { ebb } = grpc.loadPackageDefinition(definition);
  const stub = new ebb.v1.CacheService(address, grpc.credentials.createInsecure());
  return (method, request) => new Promise((resolve, reject) => stub[method](request, (error, answer) => error ? reject(error) : resolve(answer)));
}

const keys = (batch) => Array.from({ length: 1000 }, (_, i) => Buffer.from(`item-${batch}-${i}`));
async function fill(call, batches) {
  for (let batch = 0; batch < batches; batch += 1) {
    await call("BatchSet", { items: keys(batch).map((key, i) => ({ key, value: Buffer.alloc(120 + (i * 37) % 400, i) })) });
  }
}
async function empty(call, batches, keepOneIn) {
  for (let batch = 0; batch < batches; batch += 1) {
    await call("BatchDelete", { keys: keys(batch).filter((_, i) => i % keepOneIn !== 0) });
  }
}

const text = (page, id) => page.locator(`#${id}`).innerText();
const mib = (words) => { const [, n, unit] = words.match(/([\d.]+)\s*(\w+)/) ?? [0, 0, "B"]; return Number(n) * { B: 2 ** -20, KiB: 2 ** -10, MiB: 1, GiB: 1024 }[unit]; };
async function until(what, condition) {
  const deadline = Date.now() + 45_000;
  for (;;) {
    if (await condition()) return check(true, what);
    if (Date.now() > deadline) return check(false, what, "not within 45 s");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

let ebb = await serve();
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const context = await browser.newContext({ viewport: { width: 1180, height: 900 } });
  const page = await context.newPage();
  const said = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) said.push(message.text()); });
  page.on("pageerror", (error) => said.push(String(error)));
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(`http://${ebb.http}/`);
  await until("the first second arrives", async () => (await text(page, "regime")) === "calm");
  check(asked.every((url) => url.startsWith(`http://${ebb.http}/`) || url.startsWith("data:")), "nothing is loaded from elsewhere", asked.join(" "));
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0);
  const loaded = (await (await fetch(`http://${ebb.http}/`)).text()).length;
  check(loaded < 50_000, "half of 100 KB is left for the history", `${loaded} bytes`);
  console.log(`     first paint after ${paint.toFixed(0)} ms, ${loaded} bytes`);

  const call = client(ebb.data), batches = 150;
  await fill(call, batches);
  await until("live memory is shown", async () => mib(await text(page, "live")) > 40);
  const full = mib(await text(page, "rss"));
  for (let i = 0; i < 20; i += 1) await call("BatchGet", { keys: [...keys(i).slice(1), Buffer.from("absent")] });
  await until("a hit ratio is shown", async () => parseFloat(await text(page, "hits")) > 90);
  await empty(call, batches, 20);
  const mark = page.locator("circle.mark").first();
  await until("a compaction is marked", async () => (await mark.count()) > 0);
  await until("resident memory falls to a third", async () => mib(await text(page, "rss")) < full / 3);
  check((await page.locator("#receipts tr").count()) > 0 && !(await text(page, "receipts")).includes("None"), "its receipt is in the table");

  await mark.focus();
  const tip = page.locator("#tip");
  await until("a mark tells its receipt to the keyboard", async () => (await tip.isVisible()) && /segments? freed/.test(await tip.innerText()));
  await page.evaluate(() => document.activeElement.blur());
  await until("and to the mouse", async () => {
    // Marks move to the left with time; the last lies above those it covers.
    const place = await page.locator("circle.mark").last().boundingBox();
    await page.mouse.move(place.x + place.width / 2, place.y + place.height / 2);
    return tip.isVisible();
  });
  await until("until it slides away from under it", async () => tip.isHidden());
  await page.locator("summary").click();
  check((await text(page, "config")).includes("flag --max-memory"), "the configuration says where a value comes from");
  check((await text(page, "findings")).length > 0, "findings are shown");
  await page.getByRole("button", { name: "5 min", exact: true }).click();
  check((await page.locator("[aria-pressed=true]").innerText()) === "5 min", "another span can be chosen");

  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run());
    check(violations.length === 0, `no accessibility rule is broken (${colorScheme})`, violations.map((v) => `${v.id}: ${v.nodes[0].html}`).join("\n"));
  }
  await page.emulateMedia({ colorScheme: "light" });
  check(said.length === 0, "the console is silent", said.join("\n"));

  if (bless === "--bless") {
    let reading = true;
    const readers = (async () => {
      for (let i = 0; reading; i += 1) {
        await call("BatchGet", { keys: [...keys(i % batches).slice(0, 90), ...keys(10_000 + i).slice(0, 3)] });
        await call("Get", { key: keys(i % batches)[i % 1000] });
        await new Promise((resolve) => setTimeout(resolve, 4));
      }
    })();
    for (const keepOneIn of [12, 8, 16, 10]) {
      for (let part = 0; part < 5; part += 1) {
        await fill(call, (part + 1) * batches / 5);
        await new Promise((resolve) => setTimeout(resolve, 2_500));
      }
      await empty(call, batches, keepOneIn);
      await new Promise((resolve) => setTimeout(resolve, 8_000));
    }
    reading = false;
    await readers;
    await page.evaluate(() => scrollTo(0, 0));
    await page.locator("circle.mark").last().focus();
    await page.screenshot({ path: `${root}/docs/live-page.png`, clip: { x: 0, y: 0, width: 1180, height: 860 } });
    console.log("took docs/live-page.png");
  }

  const phone = await (await browser.newContext({ viewport: { width: 360, height: 740 } })).newPage();
  await phone.goto(`http://${ebb.http}/`);
  await until("a phone shows it", async () => (await text(phone, "regime")) !== "connecting");
  // Loaded late, it draws what was before: memory that rose and fell, and the compaction.
  const lines = await phone.locator("path.l.rss").getAttribute("d");
  const heights = [...lines.matchAll(/[ML][\d.]+ ([\d.]+)/g)].map((found) => Number(found[1]));
  check(Math.max(...heights) - Math.min(...heights) > 20, "with the history from before", lines);
  check((await phone.locator("circle.mark").count()) > 0, "and the compactions from before");
  const wide = await phone.evaluate(() => document.documentElement.scrollWidth);
  check(wide <= 360, "without scrolling sideways", `${wide} pixels`);

  const old = await browser.newPage();
  await old.addInitScript(() => { delete window.EventSource; });
  await old.goto(`http://${ebb.http}/`);
  check((await text(old, "trouble")).includes("cannot receive a stream"), "a browser without streams is told so");

  const crowd = await Promise.all(Array.from({ length: 20 }, () => fetch(`http://${ebb.http}/events`)));
  check(crowd.filter((answer) => answer.status === 503).length >= 4, "more viewers than there is room for are refused", crowd.map((a) => a.status).join(" "));
  await Promise.all(crowd.map((answer) => answer.body?.cancel()));

  await ebb.stop();
  await until("a lost connection is said", async () => (await text(page, "regime")) === "not connected" && (await page.locator("#trouble").isVisible()));
  ebb = await serve(ebb.http);
  await until("and found again", async () => (await text(page, "regime")) === "calm");
} finally {
  await browser.close();
  await ebb.stop();
}
if (failed > 0) {
  console.log(`${failed} checks failed`);
  process.exit(1);
}
process.exit(0);
