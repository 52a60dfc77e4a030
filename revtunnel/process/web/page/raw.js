// One service of a device in a tab of its own: a session of the person, its connection, and what stands above it.

import { at, call, get, may, my } from "./api.js";
import { button, h, mark, put, shown } from "./dom.js";

const MEANS = { 1000: "the service has ended it", 4001: "the service refused", 4002: "the service cannot be reached", 4003: "the service did not answer", 4004: "not allowed", 4005: "the server has no room", 4007: "the service has reset it", 4008: "nothing moved for too long", 4009: "ended", 4010: "the service takes nothing", 4011: "the device is gone" };

/** What the address names: SERIAL/SERVICE. */
function named() {
  try {
    return location.hash.slice(1).split("/").map(decodeURIComponent);
  } catch {
    return [];
  }
}

/**
 * The page: `place` is for what `connect(address, protocols)` makes, which gives {close()} and calls what it is
 * given as `over(code, reason)` once it is over; `more` stands beside the buttons.
 */
export async function begin(kind, place, connect, more = []) {
  const [serial, service] = named();
  const app = document.getElementById("app");
  const state = h("span", { role: "status" }, mark("off", "not connected"));
  const go = button("Connect", () => start(), { class: "main" });
  const stop = button("End session", () => end(), { class: "danger", disabled: true });
  let session = "";
  let running = null;

  document.title = `${shown(serial ?? "")}/${shown(service ?? "")} – ${kind}`;
  const header = h("header", {}, h("h1", { class: "serial" }, `${serial ?? "?"}/${service ?? "?"}`), state, h("span", { class: "grow" }), more, go, stop);
  put(app, header, h("main", { id: "main" }, place));
  const wrong = (text) => put(state, mark("bad", "not connected"), ` ${text}`);
  try {
    my.me = await get("/my");
  } catch (error) {
    go.disabled = true;
    put(state, error.status === 401 ? ["Log in first: ", h("a", { href: "/" }, "revtunnel"), "."] : error.message);
    return;
  }
  if (!serial || !service || !may.act) {
    go.disabled = true;
    wrong(may.act ? "the address names no service" : "this login is for looking only");
    return;
  }
  go.focus();

  const open = async () => {
    if (session) {
      try {
        return (await call("POST", at`/my/sessions/${session}/nonce`, { browser: true })).nonce;
      } catch (error) {
        if (error.status !== 404) throw error;
      }
    }
    session = (await call("POST", "/my/sessions", { device: serial, services: [service] })).session;
    return (await call("POST", at`/my/sessions/${session}/nonce`, { browser: true })).nonce;
  };

  async function start() {
    go.disabled = true;
    put(state, mark("warn", "connecting"));
    try {
      const nonce = await open();
      const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${at`/session/raw/${session}/${service}`}`;
      running = connect(address, ["binary", `nonce.${nonce}`], () => put(state, mark("good", "connected")), over);
      stop.disabled = false;
    } catch (error) {
      wrong(error.message);
      go.disabled = false;
    }
  }

  function over(code, reason) {
    running = null;
    go.textContent = "Connect again";
    go.disabled = false;
    put(state, mark("off", "over"), ` ${[MEANS[code] ?? "the connection was lost", reason].filter(Boolean).join(": ")}`);
    go.focus();
  }

  async function end() {
    stop.disabled = true;
    running?.close();
    await call("DELETE", at`/my/sessions/${session}`).catch((error) => error.status === 404 || wrong(error.message));
    session = "";
  }
}

/** The address of such a page. */
export const address = (kind, serial, service) => `/page/${kind}.html#${encodeURIComponent(serial)}/${encodeURIComponent(service)}`;
