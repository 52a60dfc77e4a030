// Users, groups and grants: who may what.

import { all, at, call, may } from "./api.js";
import { ask, open } from "./dialogs.js";
import { button, copyable, h, mark, moment, part, put, when } from "./dom.js";
import { Table } from "./table.js";

const ROLES = [["person", "person: what is granted"], ["reader", "reader: may look at everything"], ["admin", "admin: may do everything"]];
const ACTIONS = { list: "sees them", start: "starts sessions", end: "ends sessions of others", share: "lets others into own sessions", observe: "sees sessions of others" };
const SCOPES = [["all", "all that the user may"], ["read", "read: look only"], ["own", "own: the user's own services and sessions"]];

/** A secret that is shown once. */
export function shownOnce(title, token, hint) {
  open(title, (close) => [
    h("p", {}, "It is shown here once, and kept nowhere."),
    copyable(token, "Token"),
    hint && h("p", { class: "hint" }, hint),
    h("div", { class: "buttons" }, button("Done", close, { class: "main" })),
  ].filter(Boolean));
}

const DAYS = { name: "days", label: "Days that the token is good (0: 90)", kind: "number", value: "0", min: "0", max: "3660" };
const NOTE = { name: "note", label: "Note", maxlength: "200" };

function addUser(done) {
  ask({
    title: "Add a user",
    fields: [{ name: "user", label: "Name", required: true, pattern: "[a-z0-9][a-z0-9._@\\-]{0,63}", title: "small letters, digits and . _ @ -" }, NOTE, { name: "role", label: "Role", kind: "select", value: "person", words: ROLES }, DAYS],
    action: "Add",
    work: async (values) => {
      const made = await call("POST", "/users", { ...values });
      shownOnce(`Token of ${made.user}`, made.token, `Good until ${moment(made.until)}. With it ${made.user} logs in here, and takes a password, or runs: revtunnel-connect login ${location.origin}`);
      done();
    },
  });
}

function editUser(row, done) {
  ask({
    title: `Change ${row.user}`,
    fields: [{ ...NOTE, value: row.note }, { name: "role", label: "Role", kind: "select", value: row.role, words: ROLES }],
    action: "Change",
    work: async (values) => {
      await call("PUT", at`/users/${row.user}`, values);
      done();
    },
    done: `${row.user} is changed`,
  });
}

function cut(title, text, action, path, said, done) {
  ask({ title, text, action, danger: true, done: said, work: async () => (await call("DELETE", path), done()) });
}

function grant(users, groups, done) {
  ask({
    title: "Grant",
    fields: [
      { name: "holder", label: "To whom: a user, or @GROUP", required: true, words: [...users.map((row) => row.user), ...groups.map((row) => `@${row.group}`)] },
      { name: "device", label: "Devices", required: true, hint: "a serial, a pattern such as plc-*, or label=line=3" },
      { name: "services", label: "Services", required: true, value: "*", hint: "names or patterns with commas between" },
      ...Object.entries(ACTIONS).map(([name, means]) => ({ name: `may ${name}`, label: `${name}: ${means}`, kind: "check", value: name === "list" || name === "start" })),
      { name: "begins", label: "From (empty: now)", hint: "2027-12-31, or 2027-12-31T18:00Z" },
      { name: "until", label: "Until (empty: for ever)" },
    ],
    action: "Grant",
    work: async (values) => {
      const body = { holder: values.holder, device: values.device, services: values.services.split(",").map((each) => each.trim()).filter(Boolean), actions: Object.keys(ACTIONS).filter((name) => values[`may ${name}`]) };
      for (const name of ["begins", "until"]) if (values[name]) body[name] = values[name];
      await call("POST", "/grants", body);
      done();
    },
    done: "it is granted",
  });
}

function addGroup(done) {
  ask({ title: "Add a group", fields: [{ name: "group", label: "Name", required: true }, NOTE], action: "Add", done: "the group is there", work: async (values) => (await call("POST", "/groups", values), done()) });
}

async function members({ group }, users, done) {
  const list = h("div", {});
  const read = async () => {
    const rows = await all(at`/groups/${group}/members`);
    put(list, rows.length ? h("ul", { class: "plain" }, rows.map((row) => h("li", {}, row.user, " ", may.change && button("Take out", async () => (await call("DELETE", at`/groups/${group}/members/${row.user}`), await read(), done()), { "aria-label": `Take out ${row.user} of ${group}` })))) : h("p", { class: "nothing" }, "Nobody is in it."));
  };
  await read();
  open(`Members of ${group}`, (close) => [list, h("div", { class: "buttons" }, may.change && button("Put a user in", () => ask({ title: `Put a user into ${group}`, fields: [{ name: "user", label: "User", required: true, words: users.map((row) => row.user) }], action: "Put in", work: async ({ user }) => (await call("PUT", at`/groups/${group}/members/${user}`), await read(), done()) })), button("Done", close, { class: "main" }))]);
}

/** The tokens of somebody, and means to take them away; `path` of the user, or /my. */
export function tokens(rows, revoke) {
  const table = new Table({
    label: "Tokens",
    columns: [
      { title: "Token", kind: "main", cell: (row) => h("code", {}, row.id) },
      { title: "For", kind: "wide", cell: (row) => row.note || "–" },
      { title: "Kind", cell: (row) => (row.scope.includes("browser") ? "browser" : `token: ${row.scope}`) },
      { title: "Made", cell: (row) => when(row.created) },
      { title: "Used", cell: (row) => when(row.used) },
      { title: "Until", cell: (row) => [when(row.until), row.expired && mark("off", "over")] },
      { title: "Actions", kind: "acts", cell: (row) => revoke(row) },
    ],
    key: (row) => row.id,
    empty: "There is none.",
  });
  table.set(rows);
  table.stop();
  return table.node;
}

async function tokensOf({ user }) {
  const list = h("div", {});
  const read = async () => {
    const rows = await all(at`/users/${user}/tokens`);
    put(list, tokens(rows, (row) => may.change && button("Revoke", () => cut(`Revoke a token of ${user}?`, "What was begun with it ends.", "Revoke", `${at`/users/${user}/tokens`}?${new URLSearchParams({ token: row.id })}`, "the token counts no more", read), { class: "danger", "aria-label": `Revoke ${row.id}` })));
  };
  await read();
  open(`Tokens of ${user}`, (close) => [list, h("div", { class: "buttons" }, may.change && button("New token", () => ask({
    title: `A further token for ${user}`,
    fields: [NOTE, DAYS, { name: "scope", label: "For", kind: "select", value: "all", words: SCOPES }],
    action: "Make",
    work: async (values) => {
      const made = await call("POST", at`/users/${user}/tokens`, values);
      shownOnce(`Token of ${user}`, made.token, `Good until ${moment(made.until)}.`);
      await read();
    },
  })), button("Done", close, { class: "main" }))]);
}

export { SCOPES, NOTE, DAYS };

export function view() {
  let [users, groups] = [[], []];
  const wrong = h("p", { class: "wrong", role: "alert" });
  const fail = (error) => put(wrong, error.message);
  const read = async () => {
    try {
      put(wrong);
      const found = await Promise.all([all("/users"), all("/groups"), all("/grants")]);
      [users, groups] = found;
      userTable.set(users);
      groupTable.set(groups);
      grantTable.set(found[2]);
    } catch (error) {
      fail(error);
    }
  };
  const userTable = new Table({
    label: "Users",
    sorted: { column: 0, down: false },
    columns: [
      { title: "User", kind: "main", cell: (row) => row.user, sort: (row) => row.user },
      { title: "Note", kind: "wide", cell: (row) => row.note || "–", sort: (row) => row.note },
      { title: "Role", cell: (row) => row.role, sort: (row) => row.role },
      { title: "Groups", cell: (row) => row.groups.join(", ") || "–", sort: (row) => row.groups.join() },
      { title: "Grants", kind: "number", cell: (row) => row.grants, sort: (row) => row.grants },
      { title: "Used", cell: (row) => when(row.used), sort: (row) => (row.used ? -Date.parse(row.used) : null) },
      { title: "Actions", kind: "acts", cell: (row) => h("div", { class: "actions" },
        button(`Tokens (${row.tokens})`, () => tokensOf(row).catch(fail), { "aria-label": `Tokens of ${row.user}` }),
        may.change && button("Change", () => editUser(row, read), { "aria-label": `Change ${row.user}` }),
        may.change && button("Reset login", () => cut(`Reset the login of ${row.user}?`, `Password and second factor of ${row.user} are taken away, and browsers logged out. Tokens stay.`, "Reset", at`/users/${row.user}/login`, `${row.user} has no password and no second factor`, read), { class: "danger", "aria-label": `Reset login of ${row.user}` }),
        may.change && button("Remove", () => cut(`Remove ${row.user}?`, `Tokens and grants of ${row.user} go, and what runs in that name ends.`, "Remove", at`/users/${row.user}`, `${row.user} is nobody any more`, read), { class: "danger", "aria-label": `Remove ${row.user}` })) },
    ],
    key: (row) => row.user,
    empty: "There are no users.",
  });
  const groupTable = new Table({
    label: "Groups",
    columns: [
      { title: "Group", kind: "main", cell: (row) => `@${row.group}` },
      { title: "Note", kind: "wide", cell: (row) => row.note || "–" },
      { title: "Grants", kind: "number", cell: (row) => row.grants },
      { title: "Actions", kind: "acts", cell: (row) => h("div", { class: "actions" },
        button(`Members (${row.members})`, () => members(row, users, read).catch(fail), { "aria-label": `Members of ${row.group}` }),
        may.change && button("Remove", () => cut(`Remove the group ${row.group}?`, "Its grants go with it; its members stay.", "Remove", at`/groups/${row.group}`, `group ${row.group} is no more`, read), { class: "danger", "aria-label": `Remove group ${row.group}` })) },
    ],
    key: (row) => row.group,
    empty: "There are no groups.",
  });
  const grantTable = new Table({
    label: "Grants",
    sorted: { column: 0, down: false },
    columns: [
      { title: "Holder", kind: "main", cell: (row) => row.holder, sort: (row) => row.holder },
      { title: "Devices", cell: (row) => h("code", {}, row.device), sort: (row) => row.device },
      { title: "Services", cell: (row) => row.services.join(", "), sort: (row) => row.services.join() },
      { title: "May", kind: "wide", cell: (row) => row.actions.join(", ") },
      { title: "State", kind: "state", cell: (row) => mark(row.state === "in-force" ? "good" : "off", row.state), sort: (row) => row.state },
      { title: "Until", cell: (row) => (row.until ? when(row.until) : "for ever"), sort: (row) => (row.until ? Date.parse(row.until) : null) },
      { title: "By", kind: "less", cell: (row) => row.by, sort: (row) => row.by },
      ...(may.change ? [{ title: "Actions", kind: "acts", cell: (row) => button("Revoke", () => cut(`Revoke a grant of ${row.holder}?`, `${row.actions.join(", ")} at ${row.device}, ${row.services.join(", ")}: counts no more, and what it alone allowed ends.`, "Revoke", at`/grants/${row.grant}`, "the grant counts no more", read), { class: "danger", "aria-label": `Revoke grant ${row.grant}` }) }] : []),
    ],
    key: (row) => `${row.holder}/${row.grant}`,
    empty: "Nothing is granted to anybody: nobody can start a session.",
  });
  read();
  const node = [
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "Users and grants")),
    wrong,
    part("Grants", may.change && button("Grant", () => grant(users, groups, read), { class: "main" }), grantTable.node),
    part("Users", may.change && button("Add a user", () => addUser(read), { class: "main" }), userTable.node),
    part("Groups", may.change && button("Add a group", () => addGroup(read)), groupTable.node),
  ];
  return { title: "Users and grants", node, stop: () => [userTable, groupTable, grantTable].forEach((table) => table.stop()) };
}
