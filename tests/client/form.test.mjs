// What the module is made of: one file, ES2018, small, and it touches nothing when it is imported.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
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
  assert.ok(!/\bimport\s*\(|\(\?<[=!]|\bqueueMicrotask\b|\bglobalThis\b/.test(source));
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
