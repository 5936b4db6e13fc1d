// What the module is made of: one file, ES2018, small, and it touches nothing when it is imported.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import vm from "node:vm";
import { gzipSync } from "node:zlib";

import * as acorn from "acorn";

import * as client from "../../coordinator/client/room.js";

const here = (path) => new URL(path, import.meta.url);
const source = readFileSync(here("../../coordinator/client/room.js"), "utf8");

test("it is at most 10 KiB, gzipped as servers do by default", () => {
  const size = gzipSync(source).length;
  assert.ok(size <= 10 * 1024, `${size} bytes`);
});

test("its syntax is that of ES2018, without dependencies, and readable", () => {
  const program = acorn.parse(source, { ecmaVersion: 2018, sourceType: "module" });
  const kinds = new Set(program.body.map(({ type }) => type));
  assert.ok(!kinds.has("ImportDeclaration"));
  assert.ok(!/\bimport\s*\(|\(\?<[=!]|\bqueueMicrotask\b|\bglobalThis\b|\bAbortController\b/.test(source));
  // Methods that came after ES2018.
  assert.ok(!/\.(flat|flatMap|fromEntries|matchAll|replaceAll|at|hasOwn|allSettled|any|trimStart|trimEnd|withResolvers)\(/.test(source));
  assert.ok(source.split("\n").every((line) => line.length <= 110));
});

test("importing it touches no global", async () => {
  // What the language itself has; everything of a platform is missing.
  const context = vm.createContext(Object.create(null));
  const touched = [];
  for (const name of ["WebSocket", "URL", "TextEncoder", "fetch", "wx", "window", "document", "setTimeout", "console"]) {
    Object.defineProperty(context, name, { get: () => touched.push(name), configurable: true });
  }
  const before = Object.getOwnPropertyNames(context).length;
  const code = source.replace(/^export /gm, "");
  vm.runInContext(`"use strict"; (() => { ${code} })()`, context);
  assert.deepEqual(touched, []);
  assert.equal(Object.getOwnPropertyNames(context).length, before);
});

test("its types are strict, hold for the example, and name what it exports", () => {
  for (const project of ["tsconfig.json", "tsconfig.wx.json"]) {
    const tsc = spawnSync("node_modules/.bin/tsc", ["-p", project], { cwd: here("."), encoding: "utf8" });
    assert.equal(tsc.stdout, "", project);
  }
  const types = readFileSync(here("../../coordinator/client/room.d.ts"), "utf8");
  const typed = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(Object.keys(client).sort(), typed.sort());
});

/** The module in a runtime that has what the language has, timers, and `globals`; its exports. */
function runtime(globals) {
  const context = vm.createContext({ setTimeout, clearTimeout, ...globals });
  const names = Object.keys(client).join(", ");
  return vm.runInContext(`"use strict"; (() => { ${source.replace(/^export /gm, "")}; return { ${names} }; })()`, context);
}

test("an old runtime is enough: no AbortSignal, crypto, console, URL, queueMicrotask", async () => {
  const asked = [];
  const fetch = (url, options) => {
    asked.push(options);
    return Promise.resolve({ status: 200, headers: { get: () => null }, text: () => Promise.resolve('{"success":true,"data":{}}') });
  };
  const { Api, Room, node } = runtime({ fetch });
  const sockets = [];
  const platform = { ...node(), open: (options) => sockets[sockets.push(options) - 1] && { send() {}, close() {} } };
  const api = new Api({ base: "https://h", platform });
  await api.join({ roomId: "room_1", userName: "李明" });
  assert.ok(!("signal" in asked[0]));
  assert.match(JSON.parse(asked[0].body).joinKey, /^[0-9a-v]{32}$/);

  const room = new Room({ api, roomId: "room_1", token: "t" });
  room.on("change", () => {
    throw new Error("nobody is told, and nobody is harmed");
  });
  room.connect();
  await new Promise((resolve) => setTimeout(resolve, 5));
  sockets[0].opened();
  sockets[0].message(JSON.stringify({ type: "welcome", seq: 0, resumed: false, participants: [], pingMs: 25000 }));
  assert.equal(room.state.status, "live");
  room.close();
});

test("the platform is found: a page's, WeChat's, Node's", () => {
  const page = { WebSocket: class {}, document: {}, location: { origin: "https://page" } };
  assert.equal(new (runtime(page).Api)().base, "https://page");

  const inWeChat = runtime({ wx: { connectSocket() {} } });
  assert.equal(new inWeChat.Api({ base: "https://h" }).platform.authByFrame, true);
  // A web view has both: it is a browser that can do no more than one.
  const both = runtime({ ...page, wx: { connectSocket() {} } });
  assert.equal(new both.Api().platform.origin, "https://page");

  const { open } = new (runtime({ WebSocket: class {} }).Api)({ base: "https://h" }).platform;
  assert.equal(typeof open, "function");
  assert.throws(() => new (runtime({}).Room)({ base: "https://h", roomId: "r" }), /node\(\{ WebSocket \}\)/);
});

test("Node installs the folder, and finds it and its types by name", () => {
  const folder = mkdtempSync(join(tmpdir(), "coordinator-client-"));
  try {
    const run = (command, ...args) => {
      const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, encoding: "utf8" });
      assert.equal(status, 0, stdout + stderr);
      return stdout;
    };
    run("npm", "init", "--yes");
    run("npm", "install", "--no-audit", "--no-fund", "--install-links", fileURLToPath(here("../../coordinator/client")));
    const program = 'import("coordinator-client").then(({ Room, node }) => console.log(typeof Room, typeof node))';
    assert.equal(run("node", "-e", program), "function function\n");
    writeFileSync(join(folder, "uses.mts"), 'import { Api } from "coordinator-client";\nexport const api: Api = new Api({ base: "https://h" });\n');
    const tsc = fileURLToPath(here("node_modules/typescript/bin/tsc"));
    run("node", tsc, "--strict", "--noEmit", "--module", "nodenext", "--target", "es2020", "uses.mts");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
