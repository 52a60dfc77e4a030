// What a link to somebody's session is for, and the way in: the link is the right, no login is asked for.

import { post } from "./api.js";
import { button, copyable, h, put } from "./dom.js";
import { address } from "./raw.js";

const ROLES = {
  watch: (row) => `${row.owner} lets ${row.person} watch a session to ${row.device}: you see what ${row.owner} sees there, and type nothing.`,
  use: (row) => `${row.owner} lets ${row.person} use a session to ${row.device}, with connections of your own.`,
  take: (row) => `${row.owner} hands ${row.person} a session to ${row.device}. Its new owner comes in with revtunnel-connect.`,
};
const place = h("div", { role: "status" });
const [session = "", nonce = ""] = location.hash.slice(1).split("/");
const command = () => copyable(`revtunnel-connect 'revtunnel://${location.host}/s/${session}#${nonce}'`, "Command");
const open = async (service) => {
  try {
    location.replace((await post("/invitation-page", { session, nonce, service })).url);
  } catch (error) {
    put(place, h("p", { class: "wrong", role: "alert" }, error.message));
  }
};
const way = (row, name) => {
  if (row.pages.includes(name)) return button(`Web page of ${name}`, () => open(name));
  const kind = /^vnc/i.test(name) ? "vnc" : "terminal";
  return h("a", { class: "button", href: `${address(kind, row.device, name)}/${session}/${nonce}` }, `${kind === "vnc" ? "Screen" : "Terminal"} at ${name}`);
};

window.addEventListener("hashchange", () => location.reload());
put(document.getElementById("app"), h("main", { class: "login", id: "main" }, h("h1", {}, "A shared session"), place));
try {
  const row = await post("/invitation", { session, nonce });
  document.title = `Session of ${row.owner} to ${row.device} – revtunnel`;
  put(place,
    h("p", {}, ROLES[row.role]?.(row)),
    row.role === "take" ? command() : h("div", { class: "actions" }, row.services.map((name) => way(row, name))),
    h("p", { class: "hint" }, "The link is good once: one of these uses it up."),
    row.role === "use" && h("details", {}, h("summary", {}, "With a program of your own"), command()));
} catch (error) {
  put(place, h("p", { class: "wrong", role: "alert" }, error.word === "invalid" ? "This is no link to a session." : error.message));
}
