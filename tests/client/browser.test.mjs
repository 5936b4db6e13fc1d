// The client in a real Chromium, from the file that the node serves, against that node.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, afterEach, describe, test } from "node:test";

import { chromium } from "playwright-core";

const { url, hostToken, executablePath } = JSON.parse(process.env.ABOUT);
const slowness = Number(process.env.SLOWNESS || 1); // times a second of a quiet machine
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function call(method, path, body, token = hostToken) {
  const response = await fetch(`${url}/api${path}`, {
    method,
    body: body && JSON.stringify(body),
    headers: { Authorization: `Bearer ${token}` },
  });
  return (await response.json()).data;
}

const log = (roomId) => call("GET", `/interview/room/${roomId}/events?after=0`).then(({ events }) => events);

/** A tab that follows a room: `it.status()`, `it.state()`, its sockets and what they said. */
async function follows(context, roomId, { userName = "李明", prepare = async () => {} } = {}) {
  const page = await context.newPage();
  const sockets = [];
  page.on("websocket", (socket) => {
    const about = { isOpen: true, sent: [], heard: [], url: socket.url() };
    sockets.push(about);
    socket.on("close", () => (about.isOpen = false));
    socket.on("framesent", ({ payload }) => about.sent.push(JSON.parse(payload).type));
    socket.on("framereceived", ({ payload }) => about.heard.push(JSON.parse(payload).type));
  });
  await prepare(page);
  await page.goto(`${url}/health/live`);
  await page.evaluate(
    async ({ roomId, userName }) => {
      const { Api, Room } = await import("/client/room.js");
      const api = new Api({ storage: localStorage });
      window.joined = await api.join({ roomId, userName });
      window.room = new Room({ api, roomId });
      window.seqs = [];
      window.statuses = [];
      room.on("event", ({ seq }) => seqs.push(seq));
      room.on("change", ({ status }) => statuses.push(status));
      room.connect();
    },
    { roomId, userName },
  );
  const it = {
    page, sockets, roomId,
    state: () => page.evaluate(() => window.room.state),
    seqs: () => page.evaluate(() => window.seqs),
    open: () => sockets.filter(({ isOpen }) => isOpen).length,
    becomes: (status, seconds = 15) => page.waitForFunction((wanted) => window.room.state.status === wanted, status, { timeout: seconds * 1000 * slowness }),
    reaches: (seq) => page.waitForFunction((wanted) => window.room.state.seq >= wanted, seq, { timeout: 15_000 * slowness }),
  };
  await it.becomes("live");
  it.first = (await it.state()).seq;
  return it;
}

/** It was told the whole log since its first snapshot, and holds the room as it is. */
async function isWhole(it) {
  const events = await log(it.roomId);
  await it.reaches(events.length);
  assert.deepEqual(await it.seqs(), events.map(({ seq }) => seq).filter((seq) => seq > it.first));
}

describe("in Chromium", () => {
  let browser;
  let context;
  let roomId;

  before(async () => {
    browser = await chromium.launch({
      executablePath,
      args: ["--no-sandbox", "--no-proxy-server"],
      ignoreDefaultArgs: ["--disable-back-forward-cache"],
    });
  });
  after(() => browser.close());
  beforeEach(async () => {
    context = await browser.newContext();
    context.setDefaultTimeout(30_000 * slowness);
    roomId = `room_${Math.random().toString(36).slice(2)}`;
    await call("POST", "/interview/create-room", { roomId, roomName: "R", hostName: "张经理" });
  });
  afterEach(() => context.close());

  test("it is imported from the node, joins and follows", async () => {
    const it = await follows(context, roomId);
    await call("POST", "/interview/guest/join", { roomId, userName: "王" });
    await isWhole(it);
    assert.equal((await it.state()).participantCount, 3);
    assert.equal(await it.page.evaluate(() => Object.isFrozen(room.state)), true);
    await it.page.evaluate(() => room.leave());
    assert.equal((await it.state()).error.code, 1000);
    assert.equal((await log(roomId)).pop().type, "participant_left");
  });

  test("another origin may import it", async () => {
    const elsewhere = createServer((_, answer) => answer.end("<!doctype html>"));
    await new Promise((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
    const page = await context.newPage();
    await page.goto(`http://127.0.0.1:${elsewhere.address().port}/`);
    const names = await page.evaluate((from) => import(`${from}/client/room.js`).then(Object.keys), url);
    elsewhere.close();
    assert.ok(names.includes("Room"));
  });

  test("offline and online", async () => {
    const it = await follows(context, roomId);
    await context.setOffline(true);
    await it.becomes("offline");
    await call("POST", "/interview/guest/join", { roomId, userName: "王" });
    const made = it.sockets.length;
    await wait(2_000);
    assert.equal(it.sockets.length, made);
    await context.setOffline(false);
    await it.becomes("live", 5);
    await isWhole(it);
    assert.ok(it.open() <= 1);
  });

  test("a machine that slept for an hour probes before it gives its connection up", async () => {
    const it = await follows(context, roomId, { prepare: (page) => page.clock.install() });
    await it.page.clock.fastForward(3_600_000);
    const end = Date.now() + 10_000 * slowness;
    while (!it.sockets[0].heard.includes("pong") && Date.now() < end) await wait(20);
    assert.ok(it.sockets[0].sent.includes("ping"));
    assert.ok(it.sockets[0].heard.includes("pong"));
    await it.page.clock.runFor(10_000);
    assert.equal((await it.state()).status, "live");
    assert.equal(it.sockets.length, 1);
    await call("POST", "/interview/guest/join", { roomId, userName: "王" });
    await isWhole(it);
  });

  test("a hidden tab stays", async () => {
    const it = await follows(context, roomId);
    await it.page.evaluate(() => {
      Object.defineProperty(document, "visibilityState", { get: () => "hidden", configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await call("POST", "/interview/guest/join", { roomId, userName: "王" });
    await isWhole(it);
    assert.equal((await it.state()).status, "live");
    assert.equal(it.sockets.length, 1);
    assert.ok((await log(roomId)).every(({ type }) => type !== "participant_away"));
  });

  test("into the page cache it closes, and back it connects, with what was missed", async () => {
    const it = await follows(context, roomId);
    await it.page.evaluate(() => (window.mark = "the same page"));
    await it.page.goto(`${url}/health/ready`);
    const end = Date.now() + 10_000 * slowness;
    const isAway = async () => (await log(roomId)).some(({ type }) => type === "participant_away");
    while (!(await isAway())) assert.ok(Date.now() < end, "the socket is not closed") || (await wait(20));
    await call("POST", "/interview/guest/join", { roomId, userName: "王" });
    await it.page.goBack({ waitUntil: "commit" });
    const mark = await it.page.evaluate(() => window.mark);
    assert.equal(mark, "the same page", "it was not in the cache");
    await it.becomes("live");
    await isWhole(it);
    assert.ok((await log(roomId)).every(({ type }) => type !== "participant_left"));
  });

  test("a network that came back while the page was in the cache is there, also where nobody says so", async () => {
    const deaf = () => window.addEventListener("online", (event) => event.stopImmediatePropagation(), true);
    const it = await follows(context, roomId, { prepare: (page) => page.addInitScript(deaf) });
    await it.page.evaluate(() => (window.mark = "the same page"));
    await context.setOffline(true);
    await it.becomes("offline");
    await it.page.goto("about:blank");
    await context.setOffline(false);
    await it.page.goBack({ waitUntil: "commit" });
    const mark = await it.page.evaluate(() => window.mark);
    assert.equal(mark, "the same page", "it was not in the cache");
    await it.becomes("live");
    await isWhole(it);
  });

  test("who looks again at a tab finds the network that nobody told it of", async () => {
    const deaf = () => window.addEventListener("online", (event) => event.stopImmediatePropagation(), true);
    const it = await follows(context, roomId, { prepare: (page) => page.addInitScript(deaf) });
    await context.setOffline(true);
    await it.becomes("offline");
    await context.setOffline(false);
    await it.page.waitForFunction(() => navigator.onLine);
    assert.equal((await it.state()).status, "offline");
    await it.page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await it.becomes("live");
    await isWhole(it);
  });

  test("two tabs of one guest are one guest; a reload is the same one", async () => {
    const one = await follows(context, roomId);
    const two = await follows(context, roomId);
    const [first, second] = [await one.page.evaluate(() => joined.guestId), await two.page.evaluate(() => joined.guestId)];
    assert.equal(first, second);
    const { participants } = await two.state();
    assert.equal(participants.filter(({ role }) => role === "guest").length, 1);
    await one.page.close();
    await wait(500);
    assert.ok((await log(roomId)).every(({ type }) => type !== "participant_away"));
    await two.page.close();
    const three = await follows(context, roomId);
    assert.equal(await three.page.evaluate(() => joined.guestId), first);
    const types = (await log(roomId)).map(({ type }) => type);
    assert.ok(types.includes("participant_away") && types.includes("participant_back"));
    assert.ok(!types.includes("participant_left"));
  });

  test("close leaves nothing behind", async () => {
    const it = await follows(context, roomId);
    await it.page.evaluate(() => room.close());
    const end = Date.now() + 10_000 * slowness;
    while (it.open() && Date.now() < end) await wait(20);
    assert.equal(it.open(), 0);
    await it.page.evaluate(() => dispatchEvent(new Event("online")));
    await wait(1_500);
    assert.equal(it.sockets.length, 1);
  });
});
