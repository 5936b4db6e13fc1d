/**
 * Who is signed in: a staff token of 12 hours in `sessionStorage`, which ends with the tab.
 *
 * A new tab asks the open ones for it, and one that signs out tells the others.
 */

import { Api } from "/client/room.js";
import { tab } from "./storage.js";

const KEY = "coordinator.session";
const ASK_MS = 150; // how long an open tab may take to answer a new one

/** The documented calls; `api.token` is the session's. */
export const api = new Api();

let session = null;
const listeners = new Set();
const channel = "BroadcastChannel" in window ? new BroadcastChannel(KEY) : null;

export const token = () => session && session.token;
export const user = () => session && session.userInfo;
export const isAdmin = () => !!session && session.userInfo.role === "admin";

/** Calls `listener(session, why)` when somebody has signed in or the session has ended. */
export function onSession(listener) {
  listeners.add(listener);
}

/** The session of this tab or of an open one; null where nobody is signed in. */
export async function findSession() {
  const found = stored();
  if (found) return take(found);
  if (!channel) return null;
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), ASK_MS);
    const off = onSessionOnce(() => {
      clearTimeout(timer);
      resolve(session);
    });
    channel.postMessage({ type: "ask" });
    setTimeout(off, ASK_MS);
  });
}

/** Becomes the session of this tab and of those that wait for one. */
export function signedIn(opened) {
  take(opened);
  if (channel) channel.postMessage({ type: "session", session });
}

/** The code of a printed link becomes a session. */
export async function signInByCode(code) {
  signedIn(await api.call("POST", "/console/session", { body: { code } }));
}

/** Ends the session on the server and in all tabs; one that the server did not end goes on. */
export async function signOut() {
  const ending = token();
  if (!ending) return;
  try {
    await api.call("DELETE", "/console/session", { token: ending });
  } catch (error) {
    if (error.status !== 401) throw error;
  }
  if (channel) channel.postMessage({ type: "ended", token: ending });
  end("signin.out");
}

/** The server refuses the token: this tab has no session any more. */
export function end(why = "signin.ended") {
  session = null;
  api.token = null;
  tab.remove(KEY);
  for (const listener of listeners) listener(null, why);
}

/** A call as the one who is signed in; a refused token ends the session. */
export async function call(method, path, options = {}) {
  const used = token();
  try {
    return await api.call(method, path, { ...options, token: used });
  } catch (error) {
    refused(error, used);
    throw error;
  }
}

/** The same for the named calls of `api`: `ask(() => api.rooms({ page: 1 }))`. */
export async function ask(question) {
  const used = token();
  try {
    return await question();
  } catch (error) {
    refused(error, used);
    throw error;
  }
}

function refused(error, used) {
  const isRefused = error.code === "UNAUTHORIZED" || error.code === "TOKEN_EXPIRED";
  if (isRefused && used === token()) end();
}

function take(opened) {
  session = opened;
  api.token = opened.token;
  tab.set(KEY, JSON.stringify(opened));
  for (const listener of listeners) listener(session);
  return session;
}

function stored() {
  try {
    const found = JSON.parse(tab.get(KEY) || "null");
    return found && found.token && found.userInfo ? found : null;
  } catch (error) {
    return null;
  }
}

function onSessionOnce(listener) {
  const off = () => listeners.delete(once);
  const once = () => {
    off();
    listener();
  };
  listeners.add(once);
  return off;
}

// A page that the way back shows as it was has not heard who signed out meanwhile.
addEventListener("pageshow", ({ persisted }) => persisted && token() && !stored() && end("signin.out"));

if (channel) {
  channel.addEventListener("message", ({ data }) => {
    if (data.type === "ask" && session) channel.postMessage({ type: "session", session });
    else if (data.type === "session" && !session) take(data.session);
    else if (data.type === "ended" && data.token === token()) end("signin.out");
  });
}
