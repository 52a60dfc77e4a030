// The screen of a device: noVNC at a service of it.

import RFB from "./novnc/core/rfb.js";
import { ask } from "./dialogs.js";
import { button, h, say } from "./dom.js";
import { begin } from "./raw.js";

const NAMES = { username: "Name", password: "Password", target: "Target" };
const place = h("div", { class: "picture" });
const scaled = h("input", { type: "checkbox", id: "scaled", checked: true, onchange: () => look() });
const only = h("input", { type: "checkbox", id: "only", onchange: () => look() });
const keys = button("Ctrl-Alt-Del", () => rfb?.sendCtrlAltDel(), { disabled: true });
let rfb = null;

function look() {
  if (rfb) Object.assign(rfb, { scaleViewport: scaled.checked, clipViewport: false, viewOnly: only.checked });
}

function connect(address, protocols, connected, over, watches) {
  if (watches) only.checked = only.disabled = true;
  const web = new WebSocket(address, protocols);
  web.binaryType = "arraybuffer";
  const made = (rfb = new RFB(place, web));
  made.background = "#000";
  look();
  let ended = [1011, ""];
  web.addEventListener("close", ({ code, reason }) => (ended = [code, reason]));
  made.addEventListener("connect", () => {
    connected();
    keys.disabled = false;
    made.focus();
  });
  made.addEventListener("credentialsrequired", ({ detail }) => ask({
    title: "The screen wants to know who comes",
    fields: detail.types.map((name) => ({ name, label: NAMES[name] ?? name, kind: name === "password" ? "password" : "text", required: true })),
    action: "Go on",
    work: async (values) => made.sendCredentials(values),
  }));
  made.addEventListener("securityfailure", ({ detail }) => say(`the screen refuses: ${detail.reason ?? `status ${detail.status}`}`, true));
  made.addEventListener("disconnect", () => {
    keys.disabled = true;
    rfb = null;
    setTimeout(() => over(...ended)); // behind the close of the connection, which says why
  });
  return { close: () => made.disconnect() };
}

const option = (input, text) => h("label", { for: input.id }, input, ` ${text}`);
await begin("VNC", place, connect, [option(scaled, "Fit"), option(only, "Look only"), keys]);
