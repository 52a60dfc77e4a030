// One service of a device in a tab of its own: a session of the person, its connection, and what stands above it.

import { at, call, get, may, my, post } from "./api.js";
import { button, h, mark, put, shown } from "./dom.js";

const MEANS = { 1000: "the service has ended it", 4001: "the service refused", 4002: "the service cannot be reached", 4003: "the service did not answer", 4004: "not allowed", 4005: "the server has no room", 4007: "the service has reset it", 4008: "nothing moved for too long", 4009: "ended", 4010: "the service takes nothing", 4011: "the device is gone" };

const SSH = /^ssh([._-]|\d|$)/i; // services at which the server itself speaks ssh

/** What the address names: SERIAL/SERVICE, and SESSION/NONCE where it is somebody else's that is shared. */
function named() {
  try {
    return location.hash.slice(1).split("/").map(decodeURIComponent);
  } catch {
    return [];
  }
}

/**
 * The page: `place` has what `connect(address, protocols, connected, over, watches)` shows, which gives {close()}
 * and calls `connected()`, and `over(code, reason)` at the end; `more` stands beside the buttons.
 */
export async function begin(kind, place, connect, more = []) {
  const [serial, service, shared = "", invited = ""] = named();
  const app = document.getElementById("app");
  window.addEventListener("hashchange", () => location.reload());
  const state = h("span", { role: "status" }, mark("off", "not connected"));
  const go = button("Connect", () => start(), { class: "main", disabled: true });
  const stop = button(shared ? "Leave" : "End session", () => end(), { class: "danger", disabled: true });
  const hand = button("Share …", async () => (await import("./sessions.js")).share({ session, user: my.me.user }), { disabled: true, hidden: Boolean(shared) });
  let session = shared;
  let watches = false;
  let running = null;

  document.title = `${shown(serial ?? "")}/${shown(service ?? "")} – ${kind}`;
  const header = h("header", {}, h("h1", { class: "serial" }, `${serial ?? "?"}/${service ?? "?"}`), state, h("span", { class: "grow" }), more, go, hand, stop);
  put(app, header, h("main", { id: "main" }, place));
  const wrong = (text) => put(state, mark("bad", "not connected"), ` ${text}`);
  try {
    if (shared) watches = (await post("/invitation", { session, nonce: invited })).role === "watch";
    else my.me = await get("/my");
  } catch (error) {
    if (shared) wrong(error.message);
    else put(state, error.status === 401 ? ["Log in first: ", h("a", { href: "/" }, "revtunnel"), "."] : error.message);
    return;
  }
  if (!serial || !service || !(shared || may.act)) {
    wrong(shared || may.act ? "the address names no service" : "this login is for looking only");
    return;
  }
  go.disabled = false;
  go.focus();

  /** What the next connection comes in with: to the session that there is, else to a new one. */
  async function open() {
    if (shared) return invited;
    const nonce = async () => (await call("POST", at`/my/sessions/${session}/nonce`, { browser: true })).nonce;
    if (session) {
      try {
        return await nonce();
      } catch (error) {
        if (error.status !== 404) throw error;
      }
    }
    session = (await call("POST", "/my/sessions", { device: serial, services: [service] })).session;
    return nonce();
  }

  async function start() {
    go.disabled = true;
    put(state, mark("warn", "connecting"));
    try {
      const nonce = await open();
      const [way, spoken] = kind === "terminal" && SSH.test(service) ? ["ssh", "revtunnel.terminal.1"] : ["raw", "binary"];
      const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/session/${way}${at`/${session}/${service}`}`;
      running = connect(address, [spoken, `nonce.${nonce}`], () => put(state, mark("good", watches ? "watching" : "connected")), over, watches);
      if (shared) history.replaceState(null, "", `#${encodeURIComponent(serial)}/${encodeURIComponent(service)}`); // it is used up
      stop.disabled = hand.disabled = false;
    } catch (error) {
      wrong(error.message);
      go.disabled = false;
    }
  }

  function over(code, reason) {
    running = null;
    put(state, mark("off", "over"), ` ${[MEANS[code] ?? "the connection was lost", reason].filter(Boolean).join(": ")}`, shared && ". The link was good once: ask for another to come back.");
    if (shared) {
      stop.disabled = true;
      return;
    }
    go.textContent = "Connect again";
    go.disabled = false;
    go.focus();
  }

  async function end() {
    stop.disabled = hand.disabled = true;
    running?.close();
    if (shared) return;
    await call("DELETE", at`/my/sessions/${session}`).catch((error) => error.status === 404 || wrong(error.message));
    session = "";
  }
}

/** The address of such a page. */
export const address = (kind, serial, service) => `/page/${kind}.html#${encodeURIComponent(serial)}/${encodeURIComponent(service)}`;
