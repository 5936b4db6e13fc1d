// What a runtime may do to sockets, in virtual time: none of it makes a second or a stuck connection.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";

import { Room, wechat } from "../../coordinator/client/room.js";
import { VirtualTime, resumed, welcome } from "./virtual.mjs";

let time;
let wx;
let tasks;

/** A task whose callbacks the test calls. */
function task() {
  const on = {};
  const made = { on, sent: [], closed: 0, failsToSend: false };
  for (const name of ["Open", "Message", "Close", "Error"]) made[`on${name}`] = (act) => (on[name] = act);
  made.send = ({ data, fail }) => (made.failsToSend ? fail({ errMsg: "sendSocketMessage:fail" }) : made.sent.push(JSON.parse(data)));
  made.close = () => made.closed++;
  made.says = (frame) => on.Message({ data: JSON.stringify(frame) });
  tasks.push(made);
  return made;
}

const listeners = new Set();

beforeEach(() => {
  time = new VirtualTime().install();
  tasks = [];
  listeners.clear();
  wx = { connectSocket: () => task() };
  for (const name of ["AppShow", "AppHide", "NetworkStatusChange"]) {
    wx[`on${name}`] = (act) => listeners.add(act);
    wx[`off${name}`] = (act) => listeners.delete(act);
  }
});
afterEach(() => time.uninstall());

async function start() {
  const room = new Room({ base: "https://h.example", roomId: "r", token: "t.k.n", platform: wechat(wx) });
  room.connect();
  await time.settle();
  return room;
}

describe("connectSocket", () => {
  const failures = {
    "throws": () => {
      throw new Error("suspended");
    },
    "returns nothing and fails at once": ({ fail }) => void fail({ errMsg: "connectSocket:fail" }),
    "returns nothing and fails later": ({ fail }) => void setTimeout(() => fail({ errMsg: "connectSocket:fail" }), 5),
    "returns a task and fails": ({ fail }) => (fail({ errMsg: "connectSocket:fail" }), task()),
    "fails twice": ({ fail }) => (setTimeout(fail, 1, {}), setTimeout(fail, 2), task()),
    "returns nothing at all": () => undefined,
    "returns a task that says nothing": () => task(),
  };
  for (const [what, act] of Object.entries(failures)) {
    test(`${what}: it is tried again, one at a time, until it works`, async () => {
      let calls = 0;
      const good = wx.connectSocket;
      wx.connectSocket = (options) => {
        calls++;
        return act(options);
      };
      const room = await start();
      await time.advance(25_000);
      assert.ok(calls >= 2 && calls < 25, `${calls}`);
      assert.notEqual(room.state.status, "live");
      wx.connectSocket = good;
      tasks = [];
      for (let n = 0; n < 400 && !tasks.length; n++) await time.advance(100);
      const [socket] = tasks;
      socket.on.Open({});
      assert.deepEqual(socket.sent, [{ type: "auth", token: "t.k.n" }]);
      socket.says(welcome());
      assert.equal(room.state.status, "live");
      room.close();
      assert.equal(time.timers.size, 0);
      assert.equal(listeners.size, 0);
    });
  }
});

test("error and close, both twice, and late: one new connection", async () => {
  const room = await start();
  const [first] = tasks;
  first.on.Open({});
  first.says(welcome());
  for (let n = 0; n < 2; n++) {
    first.on.Error({ errMsg: "network" });
    first.on.Close({ code: 1006, reason: "" });
  }
  await time.advance(600);
  assert.equal(tasks.length, 2);
  first.on.Open({});
  first.says(welcome({ seq: 90 }));
  first.on.Close({ code: 4010, reason: "" });
  assert.deepEqual(tasks[1].sent, []);
  tasks[1].on.Open({});
  tasks[1].says(resumed(3));
  assert.equal(room.state.status, "live");
  assert.equal(tasks.length, 2);
  room.close();
});

test("a socket that says twice that it is open stays, and proves who it is once", async () => {
  const room = await start();
  const [first] = tasks;
  first.on.Open({});
  first.on.Open({});
  first.says(welcome());
  first.on.Open({});
  for (let n = 0; n < 3; n++) {
    await time.advance(8000);
    first.says({ type: "ping", seq: 3, epoch: "e1", now: "" });
  }
  assert.equal(tasks.length, 1);
  assert.equal(room.state.status, "live");
  assert.deepEqual(first.sent, [{ type: "auth", token: "t.k.n" }]);
  room.close();
});

test("a socket that opens after it was given up is closed then: before, WeChat closes none", async () => {
  const room = await start();
  await time.advance(11_500);
  const [late, next] = tasks;
  assert.equal(tasks.length, 2);
  const before = late.closed;
  late.on.Open({});
  assert.equal(late.closed, before + 1);
  room.close();
  const asked = next.closed;
  next.on.Open({});
  assert.equal(next.closed, asked + 1);
});

test("a send that fails is a lost connection", async () => {
  const room = await start();
  tasks[0].on.Open({});
  tasks[0].says(welcome());
  tasks[0].failsToSend = true;
  await time.advance(38_200);
  assert.equal(tasks.length, 2);
  assert.ok(tasks[0].closed);
  room.close();
});

test("a close that throws or is never told holds nothing up", async () => {
  const { error } = console;
  console.error = () => {};
  const room = await start();
  tasks[0].on.Open({});
  tasks[0].says(welcome());
  tasks[0].close = () => {
    throw new Error("closeSocket:fail");
  };
  tasks[0].says({ type: "bye", code: 4200, reason: "r", retry: "soon", afterMs: 0 });
  await time.advance(500);
  assert.equal(tasks.length, 2);
  room.close();
  tasks[1].close = tasks[0].close;
  tasks[1].on.Open({}); // it opens too late, and its close throws again
  console.error = error;
});

test("a runtime without off… and without listeners at all", async () => {
  for (const name of ["AppShow", "AppHide", "NetworkStatusChange"]) delete wx[`off${name}`];
  (await start()).close();
  for (const name of ["AppShow", "AppHide", "NetworkStatusChange"]) delete wx[`on${name}`];
  (await start()).close();
  assert.equal(time.timers.size, 0);
});
