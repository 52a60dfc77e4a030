// Remote sessions: started, taken along as a command, shared, ended; and the list of them.

import { all, at, call, may, my } from "./api.js";
import { ask, form, open } from "./dialogs.js";
import { button, copyable, h, mark, put, say, size, when } from "./dom.js";
import { again, calmly } from "./fleet.js";
import { hear } from "./live.js";
import { Table } from "./table.js";

const short = (id) => id.slice(0, 8);
const SECURE = location.protocol === "https:";
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** Start one, after a word about it. */
export function start(serial, services, done) {
  const many = services.length > 1;
  ask({
    title: `Start a session to ${serial}`,
    text: "You get a command for revtunnel-connect on your own machine. The session is written down, and ends when you end it, or when nobody comes.",
    fields: [
      ...(many ? services.map((name) => ({ name: `of ${name}`, label: name, kind: "check", value: true })) : []),
      { name: "private", label: "Private: nobody else is let in", kind: "check" },
      { name: "take_over", label: "Others may take it over", kind: "check" },
    ],
    action: "Start",
    work: async (values) => {
      const chosen = many ? services.filter((name) => values[`of ${name}`]) : services;
      const made = await call("POST", "/my/sessions", { device: serial, services: chosen, private: values.private, take_over: values.take_over });
      command(made.session, serial, chosen, made.nonce);
      done?.();
    },
  });
}

/** Open the web page of a service in a new tab: in a session of its own, or the one that there is. */
export async function openPage(serial, service, done) {
  const tab = window.open("about:blank", "_blank"); // at once: later it would count as a pop-up
  try {
    const mine = (await all("/my/sessions")).find((row) => row.device === serial && row.user === my.me.user && row.services.join() === service);
    const { session } = mine ?? (await call("POST", "/my/sessions", { device: serial, services: [service] }));
    const { url } = await call("POST", at`/my/sessions/${session}/page`, { service });
    if (tab) tab.opener = null;
    if (tab) tab.location.replace(url);
    else say("the browser holds new tabs back: allow them here", true);
  } catch (error) {
    tab?.close();
    say(error.message, true);
  }
  done?.();
}

/** What somebody runs to come into a session of his own; good once, so another can be had. */
export function command(session, serial, services, nonce) {
  const line = h("div", {});
  const state = h("p", { class: "state", role: "status" });
  const handed = (word) => `revtunnel://${location.host}/s/${session}#${word}`;
  const show = (word) => put(line,
    copyable(`revtunnel-connect ${quoted(handed(word))}`, "Command"),
    !SECURE && h("p", { class: "wrong" }, "This page came without TLS, and such addresses are for TLS only: take the command below."),
    h("p", { class: "hint" }, "Good once, for a minute, and secret until then. Or ", h("a", { href: handed(word) }, "open it with revtunnel-connect"), " where that is set up for such addresses."));
  const renew = async () => {
    try {
      show((await call("POST", at`/my/sessions/${session}/nonce`)).nonce);
      say("another command");
    } catch (error) {
      say(error.message, true);
    }
  };
  const look = async () => {
    const found = (await all("/my/sessions")).find((row) => row.session === session);
    if (!found) put(state, mark("off", "over"), " The session has ended.");
    else if (found.people.length) put(state, mark("good", "connected"), ` ${found.people.join(", ")} · ${size(found.bytes_to_device + found.bytes_to_client)}`);
    else put(state, mark("warn", "waiting"), " Nobody has come in yet.");
  };
  const stop = again(look, 2000);
  look().catch(() => {});
  if (nonce) show(nonce);
  else renew();
  open(`Session to ${serial}`, (close) => [
    h("p", {}, "Run this on your machine:"),
    line,
    state,
    h("details", { open: !SECURE }, h("summary", {}, "Without this page, from a machine that is logged in"), services.map((name) => copyable(name === "ssh" ? `ssh -o ProxyCommand='revtunnel-connect --server ${location.origin} -W ${quoted(`${serial}/${name}`)}' root@${serial}` : `revtunnel-connect --server ${location.origin} ${quoted(`${serial}/${name}`)}`, `Command for ${name}`))),
    h("div", { class: "buttons" }, button("End session", () => (close(), end({ session, serial, user: my.me.user })), { class: "danger" }), button("Share …", () => share({ session, user: my.me.user })), button("Another command", renew), button("Done", close, { class: "main" })),
  ], stop);
}

/** End one, after a question. */
export function end({ session, serial, user }, done) {
  const own = user === my.me.user;
  ask({
    title: `End the session to ${serial}?`,
    text: `${own ? "Your session" : `The session of ${user}`} (${short(session)}) ends for everybody in it, and their connections are cut.`,
    action: "End session",
    danger: true,
    work: () => call("DELETE", own || !may.change ? at`/my/sessions/${session}` : at`/sessions/${session}`),
    done: "the session is ended",
  });
}

/** Make a link by which a second person comes in. */
export async function share({ session, user }) {
  const own = user === my.me.user;
  const people = may.look ? await all("/users").then((rows) => rows.map((row) => row.user).filter((name) => name !== user), () => []) : [];
  open("Share a session", (close) => {
    const place = h("div", {});
    return [
      h("p", {}, "A link that is good once, for a minute. The person needs a grant for its services, and opens it with revtunnel-connect."),
      form({
        fields: [
          { name: "person", label: "User who is let in", required: true, words: people },
          { name: "role", label: "To", kind: "select", value: "watch", words: [["watch", "watch: is told what happens"], ["use", "use: has connections of his own"], ["take", "take: becomes the owner"]] },
        ],
        action: "Make a link",
        others: [button("Close", close)],
        work: async ({ person, role }) => {
          const made = own ? await call("POST", at`/my/sessions/${session}/share`, { person, role }) : await call("POST", at`/sessions/${session}/share`, { person, [role]: true });
          put(place, copyable(`revtunnel://${location.host}/s/${session}#${made.nonce}`, `Link for ${person}`), h("p", { class: "hint" }, `Hand it to ${person} where nobody else reads it: revtunnel-connect 'LINK'`));
        },
      }),
      place,
    ];
  });
}

// -- the list

const KINDS = { remote: "a person's", port: "client of a port", cccp: "proxy (CCCP)" };

const mineOf = (row) => ({ ...row, serial: row.device, target: row.services.join(", "), kind: "remote", bytes: row.bytes_to_device + row.bytes_to_client });

export function actions(row) {
  if (row.kind !== "remote" || !row.session) return "";
  const own = row.user === my.me.user;
  const about = { session: row.session, serial: row.serial, user: row.user };
  const services = (row.services ?? row.target.split(/,\s*/)).filter(Boolean);
  return h("div", { class: "actions" },
    own && may.act && button("Command", () => command(row.session, row.serial, services), { "aria-label": `Command for the session to ${row.serial}` }),
    (own ? may.act : may.change) && button("Share", () => share(about), { "aria-label": `Share the session to ${row.serial}` }),
    (own ? may.act : may.change) && button("End", () => end(about), { class: "danger", "aria-label": `End the session to ${row.serial}` }));
}

export const COLUMNS = [
  { title: "Device", kind: "main", cell: (row) => h("a", { href: `#/devices/${encodeURIComponent(row.serial)}`, class: "serial" }, row.serial), sort: (row) => row.serial },
  { title: "Services", cell: (row) => row.target || "–", sort: (row) => row.target },
  { title: "User", cell: (row) => row.user || row.client || "–", sort: (row) => row.user || row.client },
  { title: "Kind", kind: "less", cell: (row) => KINDS[row.kind] ?? row.kind, sort: (row) => row.kind },
  { title: "State", kind: "state", cell: (row) => mark(["started", "joined", "running", "open"].includes(row.state) ? "good" : "warn", row.state || "–"), sort: (row) => row.state },
  { title: "Connected", cell: (row) => row.people?.join(", ") || "–" },
  { title: "Since", cell: (row) => when(row.since), sort: (row) => (row.since ? -Date.parse(row.since) : null) },
  { title: "Bytes", kind: "number", cell: (row) => size(row.bytes), sort: (row) => row.bytes },
  { title: "Actions", kind: "acts", cell: actions },
];

/** Sessions of a device, or of all; those that may be seen. */
export async function read(serial) {
  if (!may.look) return (await all("/my/sessions")).map(mineOf).filter((row) => !serial || row.serial === serial);
  return all(serial ? `/sessions?serial=${encodeURIComponent(serial)}` : "/sessions");
}

const choice = { kind: "remote" };
const sorted = { column: 6, down: false };

export function view() {
  const table = new Table({ label: "Sessions", columns: COLUMNS, key: (row) => `${row.serial}/${row.channel ?? ""}/${row.session ?? ""}`, sorted, empty: ["No session runs. Start one at a device: ", h("a", { href: "#/" }, "Devices"), "."] });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const kinds = h("select", { id: "kind", onchange: () => ((choice.kind = kinds.value), look()) }, [["remote", "people's sessions"], ["", "all, with clients of ports"]].map(([value, text]) => h("option", { value, selected: value === choice.kind }, text)));
  const look = async () => {
    if (document.hidden) return;
    try {
      const rows = await read();
      put(wrong);
      table.set(rows.filter((row) => !choice.kind || row.kind === choice.kind));
    } catch (error) {
      put(wrong, error.message);
    }
  };
  const news = calmly(look);
  const stop = [again(look, 4000), hear((row) => row.event.startsWith("session-") && news())];
  look();
  return {
    title: "Sessions",
    node: [h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "Sessions")), may.look && h("div", { class: "bar" }, h("label", { for: "kind" }, "Show ", kinds)), wrong, table.node].filter(Boolean),
    stop: () => (stop.forEach((each) => each()), table.stop()),
  };
}
