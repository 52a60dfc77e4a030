// A terminal at a service of a device: xterm.js, and telnet's commands where the service speaks it.

import { FitAddon } from "./xterm/addon-fit.mjs";
import { Terminal } from "./xterm/xterm.mjs";
import { h } from "./dom.js";
import { begin } from "./raw.js";
import { Telnet } from "./telnet.js";

const WAITING = 16 * 1024 * 1024; // bytes that the screen may be behind

const terminal = new Terminal({
  cursorBlink: true,
  fontFamily: 'ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace',
  fontSize: 14,
  minimumContrastRatio: 4.5, // a device's dark red on black can be read
  scrollback: 5000,
  theme: { background: "#000", foreground: "#e3e8ee" },
  linkHandler: { activate: () => {} }, // an address that a device writes is text
});
const fit = new FitAddon();
const place = h("div", { class: "terminal" });
const gone = h("p", { class: "gone", role: "status", hidden: true }, "The owner of the session has no terminal open here. It shows as soon as there is one.");
const echo = h("input", { type: "checkbox", id: "echo" });
const reader = h("input", { type: "checkbox", id: "reader", onchange: () => (terminal.options.screenReaderMode = reader.checked) });
const coder = new TextEncoder();

let sized = false; // by the owner's window, not by this one

/** What one who watches is told beside the bytes. */
function told({ live, size }) {
  if (live !== undefined) gone.hidden = live;
  sized ||= Boolean(size);
  place.classList.toggle("sized", sized);
  if (size) terminal.resize(...size);
}

function connect(address, protocols, connected, over, watches) {
  const web = new WebSocket(address, protocols);
  const send = (bytes) => !watches && web.readyState === WebSocket.OPEN && web.send(bytes);
  const ssh = address.includes("/session/ssh/"); // which the server speaks: it wants the size, and no telnet
  const resized = () => (ssh ? send(JSON.stringify({ size: [terminal.cols, terminal.rows] })) : telnet.resized());
  const telnet = new Telnet(send, () => [terminal.cols, terminal.rows]);
  let waiting = 0;
  web.binaryType = "arraybuffer";
  terminal.options.disableStdin = watches;
  echo.parentNode.hidden = watches || ssh; // who watches types nothing, and a shell echoes by itself
  web.onopen = () => {
    connected();
    if (ssh) resized();
    terminal.focus();
  };
  web.onmessage = ({ data }) => {
    if (watches && typeof data === "string") {
      told(JSON.parse(data));
      return;
    }
    const came = new Uint8Array(typeof data === "string" ? coder.encode(data) : data);
    const bytes = ssh ? came : telnet.take(came);
    waiting += bytes.length;
    if (waiting > WAITING) web.close(4010, "the page cannot show that much");
    terminal.write(bytes, () => (waiting -= bytes.length));
  };
  const typing = terminal.onData((text) => {
    if (watches) return;
    if (!ssh && (echo.checked || telnet.shows)) terminal.write(text.replaceAll("\r", "\r\n"));
    send(ssh ? coder.encode(text) : telnet.typed(coder.encode(text)));
  });
  const sizing = terminal.onResize(resized);
  web.onclose = ({ code, reason }) => {
    typing.dispose();
    sizing.dispose();
    terminal.write("\r\n");
    over(code, reason);
  };
  return web;
}

const option = (input, text) => h("label", { for: input.id }, input, ` ${text}`);
await begin("terminal", h("div", { class: "seen" }, gone, place), connect, [option(echo, "Show what I type"), option(reader, "Screen reader")]);
if (place.isConnected) {
  terminal.loadAddon(fit);
  terminal.open(place);
  fit.fit();
  new ResizeObserver(() => sized || fit.fit()).observe(place);
}
