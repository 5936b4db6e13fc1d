// The documented calls: what goes over the wire, with which proof, and how they fail.
import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { Api, ApiError, wechat } from "../../coordinator/client/room.js";
import { FakePlatform, VirtualTime } from "./virtual.mjs";

const BASE = "https://h.example";
const answer = (status, body, headers = {}) => ({ status, header: (name) => headers[name], body: JSON.stringify(body) });
const done = (data) => answer(200, { success: true, data });
const GUEST = { guestId: "guest_1", guestToken: "g1", userName: "李明", identity: "求职者", roomId: "r/1" };

let platform;
let api;

beforeEach(async () => {
  platform = new FakePlatform();
  platform.answers = async ({ url }) => done(url.endsWith("/guest/join") ? GUEST : { token: "staff2" });
  api = new Api({ base: BASE, platform, token: "staff" });
});

const last = () => platform.requests[platform.requests.length - 1];
const sent = () => (last().body ? JSON.parse(last().body) : undefined);

describe("each call", () => {
  const calls = [
    ["login", ["c"], "POST", "/wechat/login", { code: "c" }, null],
    ["getPhone", ["c"], "POST", "/wechat/get-phone", { code: "c" }, "staff"],
    ["profile", [{ name: "张" }], "POST", "/wechat/profile", { name: "张" }, "staff"],
    ["qrcode", [{ scene: "roomId=r" }], "POST", "/wechat/generate-qrcode", { scene: "roomId=r" }, "staff"],
    ["createRoom", [{ roomId: "r", roomName: "R", hostName: "H" }], "POST", "/interview/create-room", { roomId: "r", roomName: "R", hostName: "H" }, "staff"],
    ["room", ["r/1"], "GET", "/interview/room/r%2F1", undefined, null],
    ["rooms", [{ page: 2, pageSize: 5, status: "active" }], "GET", "/interview/rooms?page=2&pageSize=5&status=active", undefined, "staff"],
    ["rooms", [], "GET", "/interview/rooms", undefined, "staff"],
    ["endRoom", ["r"], "POST", "/interview/room/r/end", undefined, "staff"],
    ["events", ["r", { after: 0, limit: 3 }], "GET", "/interview/room/r/events?after=0&limit=3", undefined, "staff"],
    ["remove", ["r", "guest_1"], "POST", "/interview/room/r/participants/guest_1/remove", undefined, "staff"],
    ["zegoToken", [{ userId: "user_001", userName: "张", roomId: "r", expireTime: 60 }], "POST", "/zego/generate-token", { userId: "user_001", userName: "张", roomId: "r", expireTime: 60 }, "staff"],
  ];
  for (const [name, about, method, path, body, token] of calls) {
    test(`${name}(${about.map((one) => JSON.stringify(one)).join(", ")})`, async () => {
      await api[name](...about);
      const { url, headers } = last();
      assert.equal(last().method, method);
      assert.equal(url, `${BASE}/api${path}`);
      assert.deepEqual(sent(), body);
      assert.equal(headers.Authorization, token ? `Bearer ${token}` : undefined);
      assert.equal(headers["Content-Type"], body ? "application/json" : undefined);
    });
  }

  test("login keeps the staff token, and what it resolves to is data", async () => {
    assert.deepEqual(await api.login("c"), { token: "staff2" });
    assert.equal(api.token, "staff2");
  });

  test("a guest's proof goes with what is done in its name", async () => {
    await api.join({ roomId: "r/1", userName: "李明", identity: "求职者" });
    assert.equal(last().headers.Authorization, undefined);
    await api.zegoToken({ userId: "guest_1", userName: "李明", roomId: "r/1" });
    assert.equal(last().headers.Authorization, "Bearer g1");
    await api.events("r/1", { after: 3 });
    assert.equal(last().headers.Authorization, "Bearer g1");
    await api.leave("r/1");
    assert.deepEqual(sent(), { roomId: "r/1", guestId: "guest_1", guestToken: "g1" });
  });
});

describe("joining", () => {
  test("the first time with a key of its own, the second as a return", async () => {
    await api.join({ roomId: "r/1", userName: "李明" });
    assert.match(sent().joinKey, /^[A-Za-z0-9_-]{16,64}$/);
    assert.equal(sent().guestToken, undefined);
    await api.join({ roomId: "r/1", userName: "李明" });
    assert.equal(sent().guestToken, "g1");
    await api.join({ roomId: "other", userName: "李明" });
    assert.equal(sent().guestToken, undefined);
    api.forget("r/1");
    await api.join({ roomId: "r/1", userName: "李明" });
    assert.equal(sent().guestToken, undefined);
  });

  test("the key of a join whose answer was lost is sent again, also by two at once", async () => {
    platform.answers = () => Promise.reject(new Error("lost"));
    const asked = [1, 2].map(() => api.join({ roomId: "r/1", userName: "李明" }).catch(({ code }) => code));
    assert.deepEqual(await Promise.all(asked), ["NETWORK", "NETWORK"]);
    platform.answers = async () => done(GUEST);
    await api.join({ roomId: "r/1", userName: "李明" });
    const keys = platform.requests.map(({ body }) => JSON.parse(body).joinKey);
    assert.equal(new Set(keys).size, 1);
  });

  test("a return has a key of its own, too: its token may have ended, and its answer be lost", async () => {
    await api.join({ roomId: "r/1", userName: "李明" });
    const first = sent().joinKey;
    const { answers } = platform;
    platform.answers = () => Promise.reject(new Error("lost"));
    await api.join({ roomId: "r/1", userName: "李明" }).catch(() => {});
    const { guestToken, joinKey } = sent();
    assert.deepEqual(api.guest("r/1").guestId, "guest_1");
    platform.answers = answers;
    await api.join({ roomId: "r/1", userName: "李明" });
    assert.deepEqual([sent().guestToken, sent().joinKey], [guestToken, joinKey]);
    assert.notEqual(joinKey, first);
    assert.match(joinKey, /^[A-Za-z0-9_-]{16,64}$/);
  });

  const stores = {
    "wx storage": () => {
      const kept = new Map();
      return { getStorageSync: (k) => kept.get(k) || "", setStorageSync: (k, v) => kept.set(k, v), removeStorageSync: (k) => kept.delete(k) };
    },
    localStorage: () => {
      const kept = new Map();
      return { getItem: (k) => (kept.has(k) ? kept.get(k) : null), setItem: (k, v) => kept.set(k, String(v)), removeItem: (k) => kept.delete(k) };
    },
    "get, set, remove": () => {
      const kept = new Map();
      return { get: (k) => kept.get(k), set: (k, v) => kept.set(k, v), remove: (k) => kept.delete(k) };
    },
  };
  for (const [kind, make] of Object.entries(stores)) {
    test(`${kind}: tokens and keys outlive a restart, and belong to their server`, async () => {
      const storage = make();
      const start = (base = BASE) => new Api({ base, platform, storage });
      await start().login("c");
      platform.answers = () => Promise.reject(new Error("lost"));
      await start().join({ roomId: "r/1", userName: "李明" }).catch(() => {});
      const { joinKey } = sent();
      platform.answers = async () => done(GUEST);
      await start().join({ roomId: "r/1", userName: "李明" });
      assert.equal(sent().joinKey, joinKey);
      assert.equal(start().token, "staff2");
      assert.equal(start().guest("r/1").guestId, "guest_1");
      assert.equal(start("https://other.example").token, null);
      start().forget("r/1");
      assert.equal(start().guest("r/1"), null);
    });
  }

  test("what another page has stored since is there: no second guest, and the same staff", async () => {
    const storage = stores.localStorage();
    const [one, other] = [new Api({ base: BASE, platform, storage }), new Api({ base: BASE, platform, storage })];
    assert.deepEqual([other.guest("r/1"), other.token], [null, null]);
    await one.login("c");
    await one.join({ roomId: "r/1", userName: "李明" });
    assert.equal(other.token, one.token);
    await other.join({ roomId: "r/1", userName: "李明" });
    assert.equal(sent().guestToken, "g1");
  });

  test("a storage that is full, or holds something else, harms nobody", async () => {
    const { error } = console;
    console.error = () => {};
    try {
      const full = () => {
        throw new Error("quota");
      };
      const mine = new Api({ base: BASE, platform, storage: { getItem: () => "{", setItem: full, removeItem: full } });
      await mine.join({ roomId: "r/1", userName: "李明" });
      assert.equal(mine.guest("r/1").guestToken, "g1");
    } finally {
      console.error = error;
    }
  });
});

describe("failures", () => {
  test("are told as documented", async () => {
    platform.answers = async () =>
      answer(429, { success: false, code: "RATE_LIMITED", message: "太快了", requestId: "q" }, { "Retry-After": "7" });
    const error = await api.room("r").catch((found) => found);
    assert.ok(error instanceof ApiError && error instanceof Error);
    const { code, message, status, retryAfter, requestId } = error;
    assert.deepEqual({ code, message, status, retryAfter, requestId }, {
      code: "RATE_LIMITED", message: "太快了", status: 429, retryAfter: 7, requestId: "q",
    });
  });

  test("a proxy's page is no answer of ours", async () => {
    platform.answers = async () => ({ status: 502, header: () => null, body: "<html>" });
    await assert.rejects(api.room("r"), { code: "SERVICE_UNAVAILABLE", status: 502 });
    platform.answers = async () => ({ status: 200, header: () => null, body: "<html>sign in to the Wi-Fi" });
    await assert.rejects(api.room("r"), { code: "NETWORK", status: 0 });
  });

  test("no answer: NETWORK; none within 10 s: TIMEOUT, and no timer is left by either", async () => {
    const time = new VirtualTime().install();
    try {
      platform.answers = () => Promise.reject(new TypeError("fetch failed"));
      await assert.rejects(api.room("r"), { code: "NETWORK", status: 0 });
      assert.equal(time.timers.size, 0);
      platform.answers = () => new Promise(() => {});
      let failed = null;
      api.room("r").catch((error) => (failed = error));
      await time.advance(9_990);
      assert.equal(failed, null);
      await time.advance(20);
      assert.equal(failed.code, "TIMEOUT");
      assert.equal(time.timers.size, 0);
    } finally {
      time.uninstall();
    }
  });

  test("in WeChat: its requests, its failures", async () => {
    const asked = [];
    let act;
    const mine = new Api({ base: BASE, platform: wechat({ request: (options) => asked.push(options) && act(options) }), token: "t" });
    act = ({ success }) => success({ statusCode: 200, data: { success: true, data: 5 }, header: {} });
    assert.equal(await mine.rooms(), 5);
    assert.equal(asked[0].method, "GET");
    assert.equal(asked[0].header.Authorization, "Bearer t");
    act = ({ success }) => success({ statusCode: 503, data: { success: false, code: "SERVICE_UNAVAILABLE", message: "…" }, header: { "retry-after": "3" } });
    await assert.rejects(mine.rooms(), { code: "SERVICE_UNAVAILABLE", retryAfter: 3 });
    act = ({ fail }) => fail({ errMsg: "request:fail timeout" });
    await assert.rejects(mine.rooms(), { code: "TIMEOUT" });
    act = ({ fail }) => fail({ errMsg: "request:fail interrupted" });
    await assert.rejects(mine.rooms(), { code: "NETWORK" });
  });
});
