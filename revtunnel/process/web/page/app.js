// The page: who is logged in, which view the address names, and what stands around it.

import { get, may, my, onLost, post } from "./api.js";
import { button, h, mark, put, say } from "./dom.js";
import * as fleet from "./fleet.js";
import * as live from "./live.js";
import { firstWord, view as login } from "./login.js";
import { view as account } from "./account.js";
import { view as device } from "./device.js";
import { view as devices } from "./devices.js";
import { view as happened } from "./events.js";
import { view as people } from "./people.js";
import { view as ports } from "./ports.js";
import { view as server } from "./server.js";
import { view as sessions } from "./sessions.js";

const app = document.getElementById("app");
const always = () => true;
const looks = () => may.look;
const VIEWS = [
  ["", "Devices", devices, always],
  ["sessions", "Sessions", sessions, always],
  ["events", "Events", happened, always],
  ["ports", "Ports", ports, looks],
  ["people", "Users and grants", people, looks],
  ["server", "Server", server, looks],
  ["account", "My account", account, always],
];
let shown = null; // the view that is there
let main = null;
let deaf = () => {}; // the state of the connection is not shown any more

async function begin(why = "") {
  try {
    my.me = await get("/my");
  } catch (error) {
    if (error.status !== 401) {
      put(app, h("main", { class: "login" }, h("h1", {}, "revtunnel"), h("p", { class: "wrong", role: "alert" }, error.message), button("Try again", () => begin(), { class: "main" })));
      return;
    }
    const node = login(why, begin);
    put(app, node);
    document.title = "Log in – revtunnel";
    node.querySelector("input")?.focus();
    return;
  }
  frame();
  live.start(my.me.user);
  fleet.begin();
  route();
}

function leave() {
  shown?.stop();
  shown = null;
  deaf();
  live.stop();
  fleet.end();
  for (const each of document.querySelectorAll("dialog")) each.close();
}

async function logOut() {
  try {
    await post("/logout");
  } catch (error) {
    if (error.status !== 401) {
      say(error.message, true);
      return;
    }
  }
  my.me = null;
  leave();
  begin();
}

/** What stands around every view. */
function frame() {
  const state = h("span", { class: "live" });
  const links = VIEWS.filter(([, , , allowed]) => allowed()).map(([name, text]) => h("a", { href: `#/${name}`, id: `to-${name || "devices"}` }, text));
  const menu = button("Menu", () => {
    const open = around.classList.toggle("open");
    menu.setAttribute("aria-expanded", String(open));
  }, { class: "menu", "aria-expanded": "false", "aria-controls": "around" });
  const around = h("nav", { id: "around", "aria-label": "Views" }, links);
  around.addEventListener("click", () => {
    around.classList.remove("open");
    menu.setAttribute("aria-expanded", "false");
  });
  main = h("main", { id: "main" });
  put(app,
    h("a", { href: "#main", class: "skip", onclick: (event) => (event.preventDefault(), main.querySelector("h1")?.focus()) }, "To the content"),
    h("header", {}, menu, h("a", { href: "#/", class: "name" }, "revtunnel"), h("span", { class: "server" }, my.me.server), state, h("span", { class: "who" }, my.me.user, my.me.role !== "person" && h("span", { class: "quiet" }, ` ${my.me.role}`)), button("Log out", logOut)),
    around, main);
  const show = () => put(state, live.connected() ? mark("good", "live") : mark("warn", "not connected"));
  deaf = live.hear((row) => ["connected", "lost"].includes(row.event) && show());
  show();
}

function route() {
  if (!my.me || !main) return;
  let [, name = "", about = ""] = location.hash.split("/");
  try {
    about = decodeURIComponent(about);
  } catch {
    about = "";
  }
  shown?.stop();
  const found = VIEWS.find(([each, , , allowed]) => each === name && allowed()) ?? VIEWS[0];
  shown = name === "devices" && about ? device(about) : found[2]();
  put(main, shown.node);
  document.title = `${shown.title} – ${my.me.server} – revtunnel`;
  const here = name === "devices" ? "devices" : found[0] || "devices";
  for (const each of document.querySelectorAll("nav a")) {
    if (each.id === `to-${here}`) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  main.querySelector("h1").focus({ preventScroll: true });
}

onLost(() => {
  leave();
  begin("The login is over.");
});
window.addEventListener("hashchange", () => {
  if (firstWord() && !my.me) begin();
  else route();
});
begin();
