// A stand-in for WeChat's runtime, over real sockets and requests.
//
// What the real one does and browsers do not (facts: WeChat's documentation of its operating
// mechanism and network): no WebSocket, URL, TextEncoder, fetch; five sockets at most; five seconds
// after going to the background every socket is cut, with code 1000, and the program stands still:
// what happens meanwhile is told on its return, or never. In the background nothing can be opened.
import vm from "node:vm";

import WebSocket from "ws";

const CUT_MS = 5000;
const MOST_SOCKETS = 5;

export class WeChat {
  /** `tellsCloses: false`: a socket that is cut in the background is dead, and nobody says so. */
  constructor({ tellsCloses = true, cutMs = CUT_MS } = {}) {
    Object.assign(this, { tellsCloses, cutMs });
    this.stored = new Map();
    this.isHidden = this.isFrozen = false;
    this.isConnected = true;
    this.waiting = []; // callbacks of the time in the background
    this.tasks = [];
    this.most = 0; // sockets that were open at once
    this.refused = 0; // connectSocket calls in the background
    this.loses = () => false; // (request) => true: the server answers, and the answer is lost
    this.listeners = { AppShow: new Set(), AppHide: new Set(), NetworkStatusChange: new Set() };
    this.shown = []; // toasts and modals
    this.phoneCode = this.loginCode = "code";
    this.wx = this.makeWx();
  }

  get open() {
    return this.tasks.filter((task) => task.isOpen);
  }

  /** A callback: at once, or on the way back from the background. */
  tell(act, about) {
    if (!act) return;
    if (this.isFrozen) this.waiting.push(() => act(about));
    else act(about);
  }

  makeWx() {
    const wx = {
      connectSocket: (options) => this.connectSocket(options),
      request: (options) => this.request(options),
      getStorageSync: (key) => (this.stored.has(key) ? this.stored.get(key) : ""),
      setStorageSync: (key, value) => void this.stored.set(key, value),
      removeStorageSync: (key) => void this.stored.delete(key),
      getNetworkType: ({ success }) => this.tell(success, { networkType: this.isConnected ? "wifi" : "none" }),
      login: ({ success }) => void setTimeout(() => this.tell(success, { code: this.loginCode }), 1),
      showToast: (toast) => this.shown.push(toast),
      showModal: (modal) => this.shown.push(modal),
      navigateTo: ({ url }) => this.shown.push({ url }),
      redirectTo: ({ url }) => this.shown.push({ url }),
      setNavigationBarTitle: ({ title }) => this.shown.push({ title }),
      setKeepScreenOn: () => {},
    };
    for (const [name, all] of Object.entries(this.listeners)) {
      wx[`on${name}`] = (listener) => all.add(listener);
      wx[`off${name}`] = (listener) => (listener ? all.delete(listener) : all.clear());
    }
    return wx;
  }

  connectSocket({ url, header, protocols, fail }) {
    if (this.isHidden || !this.isConnected || this.open.length >= MOST_SOCKETS) {
      this.refused += this.isHidden;
      setTimeout(() => this.tell(fail, { errMsg: "connectSocket:fail suspend" }), 1);
      return new SocketTask(this, null);
    }
    const task = new SocketTask(this, new WebSocket(url, protocols, { headers: header, perMessageDeflate: false }));
    this.tasks.push(task);
    this.most = Math.max(this.most, this.open.length);
    return task;
  }

  request({ url, method, data, header, success, fail }) {
    const error = { errMsg: "request:fail interrupted" };
    if (this.isHidden || !this.isConnected) return void setTimeout(() => this.tell(fail, error), 1);
    fetch(url, { method, body: data, headers: header })
      .then(async (response) => {
        if (this.loses({ url, method, data })) throw new Error("lost");
        const text = await response.text();
        let body = text;
        try {
          body = JSON.parse(text);
        } catch {
          // WeChat hands over as text what is no JSON
        }
        this.tell(success, { statusCode: response.status, data: body, header: Object.fromEntries(response.headers) });
      })
      .catch(() => this.tell(fail, error));
    return { abort: () => {} };
  }

  hide() {
    this.isHidden = true;
    this.emit("AppHide", {});
    this.cut = setTimeout(() => {
      this.isFrozen = true;
      for (const task of this.open) task.cut(this.tellsCloses);
    }, this.cutMs);
  }

  show() {
    clearTimeout(this.cut);
    this.isHidden = this.isFrozen = false;
    const waiting = this.waiting;
    this.waiting = [];
    this.emit("AppShow", {});
    for (const act of waiting) act();
  }

  network(isConnected) {
    this.isConnected = isConnected;
    if (!isConnected) for (const task of this.open) task.cut(false);
    this.emit("NetworkStatusChange", { isConnected, networkType: isConnected ? "wifi" : "none" });
  }

  emit(name, about) {
    for (const listener of [...this.listeners[name]]) listener(about);
  }

  get listening() {
    return Object.values(this.listeners).reduce((count, all) => count + all.size, 0);
  }

  /**
   * Runs modules as a mini-program would: `files` by path, imports by relative path, in a context
   * that has nothing but the language, timers, `wx`, `App`, `Page` and `getApp`.
   */
  run(files, entry) {
    const app = {};
    this.pages = {};
    let path = entry;
    const globals = {
      wx: this.wx,
      console,
      setTimeout: (act, ms) => setTimeout(() => this.tell(act), ms),
      clearTimeout,
      setInterval: (act, ms) => setInterval(() => this.tell(act), Math.max(ms, 100)),
      clearInterval,
      App: (options) => Object.assign(app, options),
      getApp: () => app,
      Page: (options) => (this.pages[path] = options),
    };
    const context = vm.createContext(globals);
    const loaded = {};
    const load = (name) => {
      if (loaded[name]) return loaded[name].exports;
      if (!(name in files)) throw new Error(`no file ${name}`);
      const module = (loaded[name] = { exports: {} });
      const from = (relative) => {
        const outer = path;
        path = relative.startsWith(".") ? new URL(relative, `file:///${name}`).pathname.slice(1) : relative;
        const found = load(path);
        path = outer;
        return found;
      };
      const act = vm.runInContext(`(function (module, exports, require) {${commonJs(files[name])}\n})`, context);
      act(module, module.exports, from);
      return module.exports;
    };
    const exports = load(entry);
    return { app, exports, load: (name) => ((path = name), load(name)) };
  }

  /** A page of the program that was run, with `setData` and its first calls done. */
  openPage(path, query = {}) {
    const options = this.pages[path];
    if (!options) throw new Error(`no page ${path}`);
    const page = Object.assign(Object.create(null), options, { data: { ...options.data }, route: path });
    page.setData = (data) => Object.assign(page.data, data);
    if (page.onLoad) page.onLoad(query);
    if (page.onShow) page.onShow();
    return page;
  }
}

class SocketTask {
  constructor(runtime, socket) {
    Object.assign(this, { runtime, socket, isOpen: !!socket, isQuiet: false });
    this.on = {};
    if (!socket) return;
    socket.on("open", () => this.tell("Open", { header: {} }));
    socket.on("message", (data, isBinary) => this.tell("Message", { data: isBinary ? data : String(data) }));
    socket.on("close", (code, reason) => this.ends({ code, reason: String(reason) }));
    socket.on("error", (error) => this.tell("Error", { errMsg: error.message }));
    for (const name of ["Open", "Message", "Close", "Error"]) this[`on${name}`] = (act) => (this.on[name] = act);
  }

  onOpen() {}
  onMessage() {}
  onClose() {}
  onError() {}

  tell(name, about) {
    if (!this.isQuiet) this.runtime.tell(this.on[name], about);
  }

  ends(about) {
    this.isOpen = false;
    this.tell("Close", about);
    // The real one has been seen to tell it twice.
    setTimeout(() => this.tell("Close", { code: 1006, reason: "abnormal closure" }), 20);
  }

  /** By the system: 1000 on the wire, and the program hears of it later, or never. */
  cut(isTold) {
    this.isOpen = false;
    this.isQuiet = !isTold;
    this.socket.close(1000, "interrupted");
  }

  send({ data, success, fail }) {
    if (!this.isOpen || this.socket.readyState !== WebSocket.OPEN) {
      if (!this.isQuiet) this.runtime.tell(fail, { errMsg: "sendSocketMessage:fail" });
      return;
    }
    this.socket.send(data, () => this.runtime.tell(success, {}));
  }

  close({ code = 1000, reason, fail } = {}) {
    if (!this.isOpen) return void this.runtime.tell(fail, { errMsg: "closeSocket:fail" });
    this.isOpen = false;
    this.socket.close(code, reason);
  }
}

/** What a mini-program's compiler makes of `import` and `export`. */
function commonJs(source) {
  const names = [];
  const text = source
    .replace(/^import \{([^}]*)\} from "([^"]+)";/gm, (_, list, from) => `const {${list.replace(/ as /g, ": ")}} = require("${from}");`)
    .replace(/^export (async function|class|function|const|let) (\w+)/gm, (_, kind, name) => {
      names.push(name);
      return `${kind} ${name}`;
    });
  return `"use strict"; ${text}\n${names.map((name) => `exports.${name} = ${name};`).join("\n")}`;
}
