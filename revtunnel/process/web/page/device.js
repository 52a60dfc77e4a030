// One device: its services, who uses them, what it may, and its last hour.

import { at, call, get, may } from "./api.js";
import { charts } from "./charts.js";
import { COLUMNS as SESSIONS, openPage, read as readSessions, start } from "./sessions.js";
import { chip, state, wire } from "./devices.js";
import { ask } from "./dialogs.js";
import { button, code, facts, h, many, mark, moment, part, put, size, speed, trip, when } from "./dom.js";
import { enrol } from "./enrol.js";
import { list } from "./events.js";
import { again, calmly, device, fleet } from "./fleet.js";
import { events, hear } from "./live.js";
import { address } from "./raw.js";
import { Table } from "./table.js";

const LOOK = 5000;
const SHOWN = 20; // events
const OWN = /^(ssh|sftp|https?|web|vnc|rdp|opc.*|modbus|snmp)([._-]|\d|$)/i; // services for programs of their own
const WEB = /^(https?|web|www)([._-]|\d|$)/i; // as the server has it: page_names.py

const isPage = (each, row) => each.web ?? (WEB.test(each.name) || Boolean(row.web?.includes(each.name)));

function kick(serial) {
  ask({
    title: `Kick ${serial}?`,
    text: `The link of ${serial} is closed, and every client of the device is cut. The device comes back by itself.`,
    fields: [{ name: "retry_after", label: "Seconds it shall stay away", kind: "number", value: "0", min: "0", max: "65535" }],
    action: "Kick",
    danger: true,
    work: (values) => call("POST", at`/devices/${serial}/kick`, values),
    done: `the link of ${serial} is closed`,
  });
}

function mute(serial, done) {
  ask({
    title: `Mute ${serial}?`,
    text: `${serial} takes no remote sessions until it is unmuted, and those that run end. Clients of its ports are not concerned.`,
    fields: [{ name: "why", label: "Why (people read this)", maxlength: "200" }],
    action: "Mute",
    danger: true,
    work: async ({ why }) => {
      await call("PUT", at`/muted/${serial}`, why ? { why } : {});
      done();
    },
    done: `${serial} takes no remote sessions`,
  });
}

function unmute(serial, done) {
  ask({
    title: `Unmute ${serial}?`,
    text: `${serial} takes remote sessions again.`,
    action: "Unmute",
    work: async () => {
      await call("DELETE", at`/muted/${serial}`);
      done();
    },
    done: `${serial} takes remote sessions again`,
  });
}

function revoke(serial) {
  ask({
    title: `Revoke ${serial}?`,
    text: `Key, certificates and token of ${serial} count no more, and it is cut off. To come back it has to be enrolled anew.`,
    action: "Revoke",
    danger: true,
    work: () => call("POST", at`/devices/${serial}/revoke`, {}),
    done: `${serial} has no key and no certificate any more`,
  });
}

function offer(serial, done) {
  ask({
    title: `Let ${serial} offer a service more`,
    text: "Only what remote_offers in [agent] beside the device allows, and until that agent ends.",
    fields: [{ name: "offer", label: "Service", required: true, hint: "[NAME=]HOST:PORT, as seen from the agent" }],
    action: "Offer",
    work: async (values) => {
      await call("POST", "/offer", { serial, ...values });
      done();
    },
    done: `${serial} offers it`,
  });
}

function unoffer(serial, name, done) {
  ask({
    title: `Take ${name} of ${serial} away?`,
    text: `${serial} does not offer ${name} any more, until its agent starts anew. Connections that run stay.`,
    action: "Take away",
    danger: true,
    work: async () => {
      await call("POST", "/unoffer", { serial, name });
      done();
    },
    done: `${serial} does not offer ${name} any more`,
  });
}

function close(row, done) {
  ask({
    title: `Close channel ${row.channel} of ${row.serial}?`,
    text: `The client ${row.client || "there"} of ${row.target} is cut; it sees a reset.`,
    action: "Close channel",
    danger: true,
    work: async () => {
      await call("DELETE", at`/channels/${row.serial}/${row.channel}`);
      done();
    },
    done: `channel ${row.channel} of ${row.serial} is closed`,
  });
}

const channelColumns = (done) => [
  { title: "Client", kind: "main", cell: (row) => row.client || "–" },
  { title: "Service", cell: (row) => row.target },
  { title: "State", kind: "state", cell: (row) => mark(row.state === "open" || row.state === "running" ? "good" : "warn", row.state) },
  { title: "Since", cell: (row) => when(row.since) },
  { title: "To device", kind: "number", cell: (row) => size(row.bytes_to_device) },
  { title: "To client", kind: "number", cell: (row) => size(row.bytes_to_client) },
  { title: "Waiting", kind: "number", cell: (row) => size(row.waiting_to_device + row.waiting_to_client) },
  { title: "Carrier", kind: "less", cell: (row) => row.carrier },
  ...(may.change ? [{ title: "Actions", kind: "acts", cell: (row) => button("Close", () => close(row, done), { class: "danger", "aria-label": `Close channel ${row.channel}` }) }] : []),
];

const serviceColumns = (row, done) => [
  { title: "Service", kind: "main", cell: (each) => chip({ ...each, port: null }) },
  ...(may.look ? [
    { title: "Target", cell: (each) => code(each.target ?? "–") },
    { title: "Client port", kind: "number", cell: (each) => (each.port ? String(each.port) : "–") },
  ] : [{ title: "Port", kind: "number", cell: (each) => String(each.dials ?? "–") }]),
  { title: "State", kind: "wide", cell: (each) => about(each, row) },
  ...(may.act ? [{ title: "Actions", kind: "acts", cell: (each) => offered(each, row, done) }] : []),
];

/** What can be begun at a service; a terminal is of no use where a program of its own is wanted. */
function offered(each, row, done) {
  const here = row.online && !row.muted;
  return h("div", { class: "actions" },
    here && !OWN.test(each.name) && !isPage(each, row) && h("a", { class: "button", href: address("terminal", row.serial, each.name), target: "_blank", rel: "noopener", "aria-label": `Terminal at ${each.name}` }, "Terminal"),
    here && isPage(each, row) && button("Web page", () => openPage(row.serial, each.name, done), { "aria-label": `Web page of ${each.name}` }),
    here && /^vnc/i.test(each.name) && h("a", { class: "button", href: address("vnc", row.serial, each.name), target: "_blank", rel: "noopener", "aria-label": `Screen at ${each.name}` }, "Screen"),
    button("Start session", () => start(row.serial, [each.name]), { disabled: !here, "aria-label": `Start session to ${each.name}` }),
    may.change && row.link === "rt1" && button("Take away", () => unoffer(row.serial, each.name, done), { class: "danger", "aria-label": `Take ${each.name} away` }));
}

function about(each, row) {
  if (each.problem) return [mark("bad", "refused"), ` ${each.problem}`];
  if (each.up === false) return [mark("bad", "down"), ` ${each.detail}`];
  if (each.up) return [mark("good", "up"), each.detail && ` ${each.detail}`];
  return row.online ? h("span", { class: "quiet" }, "offered; nobody looks whether it answers") : h("span", { class: "quiet" }, "away");
}

const limits = (value, nothing) => (value === null || value === undefined ? nothing : Array.isArray(value) ? value.join(", ") || "none" : String(value));

function recorded(record) {
  return facts(
    ["Section", record.record ? code(record.record === "*" ? "[device *]" : `[device ${record.record}]`) : "none: the defaults"],
    ["Labels", record.labels.length ? record.labels.map((each) => h("span", { class: "chip" }, each)) : "none"],
    ["Clients from", limits(record.clients, "anywhere")],
    ["May offer", limits(record.targets, "anything")],
    ["Ports", limits(record.ports, "any")],
    ["Client ports", `at most ${record.leases}`],
    record.at_once ? ["Clients of a service", `at most ${record.at_once}`] : null,
    ["Channels", record.channels === null ? "any number" : `at most ${record.channels}`],
    ["Expires", record.expires ? [moment(record.expires), record.expired && mark("bad", "over")] : "never"],
    ["Remote sessions", record.muted ? [mark("warn", "muted"), ` ${record.muted}`] : record.sessions],
    record.web.length ? ["Web pages", record.web.join(", ")] : null,
    record.services.length ? ["Services", record.services.join(", ")] : null,
    record.locked.length ? ["Locked out", record.locked.join(", ")] : null,
  );
}

function described(row) {
  const until = row.certificate_until;
  return facts(
    ["Since", [when(row.since), ` · ${moment(row.since)}`]],
    ["Link", wire(row)],
    ["Address", row.address ? code(row.address) : "–"],
    ["Came in at", row.listener || "–"],
    row.conflict ? ["Two holders", [mark("bad", "conflict"), ` ${row.conflict}`]] : null,
    ["Proved its serial", row.online ? (row.authenticated ? mark("good", "yes") : mark("warn", "no")) : "–"],
    ["Certificate until", until ? [moment(until), (Date.parse(until) - Date.now()) / 86400000 < 30 && mark("warn", "ends soon")] : "–"],
    ["Software", row.software || "–"],
    ["Round trip", trip(row.round_trip)],
    ["Bytes now", row.rate ? `${speed(row.rate[0])} to the device, ${speed(row.rate[1])} to clients` : "–"],
    ["Bytes in all", `${size(row.bytes_to_device)} to the device, ${size(row.bytes_to_client)} to clients`],
    ["Since the server's start", `${many(row.links_total ?? 0, "link")}, ${many(row.channels_total ?? 0, "channel")}`],
  );
}

export function view(serial) {
  const top = h("div", { class: "title" });
  const words = h("h1", { tabindex: "-1" }, h("span", { class: "serial" }, serial));
  const head = h("span", { class: "states", role: "status" });
  const acts = h("div", { class: "actions" });
  top.append(words, head, acts);
  const wrong = h("p", { class: "wrong", role: "alert" });
  const service = new Table({ label: "Services", columns: serviceColumns({ serial }, () => look()), key: (each) => each.name, empty: "It offers nothing." });
  const sessions = new Table({ label: "Sessions", columns: SESSIONS.filter(({ title }) => title !== "Device"), key: (row) => `${row.channel ?? ""}/${row.session ?? ""}`, empty: "No session runs." });
  const facts_ = h("div", {});
  const record = h("div", {});
  const happened = h("div", {});
  const drawn = may.look ? charts(serial) : null;
  let shownActs = "";
  let web = []; // services that its record calls web pages

  const heard = (found) => {
    web = found.web.map((each) => each.split("=")[0]);
    put(record, recorded(found));
  };
  const look = async () => {
    try {
      const row = await device(serial);
      if (!row) {
        put(head, mark("off", "not known"));
        put(wrong, "No such device is here or was, or it is not yours to see.");
        return;
      }
      const reads = [readSessions(serial).then((rows) => sessions.set(rows))];
      show(row);
      if (may.look) reads.push(get(`/channels?${new URLSearchParams({ serial })}`).then(({ rows }) => channels.set(rows)), get(at`/devices/${serial}`).then(heard, (error) => put(record, error.message)), drawn.refresh());
      await Promise.all(reads);
      put(wrong);
    } catch (error) {
      put(wrong, error.message);
    }
  };
  const channels = new Table({ label: "Channels", columns: channelColumns(look), key: (row) => String(row.channel), empty: "No client is connected." });

  const show = (row) => {
    put(head, state(row));
    service.columns = serviceColumns({ ...row, web }, look);
    service.set(row.targets.map((each) => ({ ...each })));
    if (may.look) put(facts_, described(row));
    const wanted = `${Boolean(row.muted)} ${row.online}`;
    if (!may.change || shownActs === wanted) return;
    shownActs = wanted;
    put(acts,
      button("Kick", () => kick(serial), { class: "danger", disabled: !row.online }),
      row.muted ? button("Unmute", () => unmute(serial, look)) : button("Mute", () => mute(serial, look), { class: "danger" }),
      button("Enrol anew", () => enrol(serial)),
      button("Revoke", () => revoke(serial), { class: "danger" }));
  };

  const told = calmly(async () => put(happened, list(events.filter((row) => row.serial === serial).slice(0, SHOWN), "Nothing has happened since this page was opened.")), 100);
  const news = calmly(look);
  const stops = [
    again(() => (document.hidden ? Promise.resolve() : look()), LOOK),
    hear((row) => {
      if (row.serial !== serial) return;
      told();
      news();
    }),
  ];
  const known = fleet.rows.get(serial);
  if (known) show(known);
  told();
  look();
  const node = [
    h("p", { class: "back" }, h("a", { href: "#/" }, "‹ Devices")),
    top,
    wrong,
    part("Services", may.change && button("Offer a service", () => offer(serial, look)), service.node),
    may.look && part("The last hour", null, drawn.node),
    may.look && part("Clients and channels", null, channels.node),
    part("Sessions", null, sessions.node),
    may.look && h("div", { class: "two" }, part("Link", null, facts_), part("Record", null, record)),
    part("Events", null, happened),
  ];
  return { title: serial, node, stop: () => [...stops, () => service.stop(), () => sessions.stop(), () => channels.stop()].forEach((stop) => stop()) };
}
