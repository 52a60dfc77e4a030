// The person who is logged in: password, second factor, tokens, browsers.

import { all, at, call, get, may, my } from "./api.js";
import { ask } from "./dialogs.js";
import { button, copyable, facts, h, mark, moment, part, put, say } from "./dom.js";
import { DAYS, NOTE, SCOPES, shownOnce, tokens } from "./people.js";

export const PASSWORD = { name: "password", label: "Password", kind: "password", required: true, minlength: "12", maxlength: "256", autocomplete: "new-password", hint: "12 to 256 characters" };
const CODE = { name: "code", label: "Code that the authenticator shows", required: true, pattern: "[0-9]{6}", title: "six digits", autocomplete: "one-time-code" };

function password(done) {
  ask({
    title: my.me.password ? "Take another password" : "Take a password",
    fields: [...(my.me.password ? [{ name: "current", label: "Current password", kind: "password", required: true, autocomplete: "current-password" }] : []), { ...PASSWORD, label: "New password" }],
    action: "Take it",
    work: async (values) => (await call("PUT", "/my/password", values), done()),
    done: "the password counts",
  });
}

async function factor(done) {
  const { secret, uri } = await call("POST", "/my/second-factor");
  const spaced = secret.match(/.{1,4}/g).join(" ");
  ask({
    title: "Second factor",
    text: `Give this secret to an authenticator, such as that of your telephone: ${spaced}`,
    fields: [CODE],
    action: "Let it count",
    work: async (values) => (await call("PUT", "/my/second-factor", values), done()),
    done: "the second factor counts from the next login on",
  });
  document.querySelector("dialog.over .form").before(copyable(uri, "Address for an authenticator"));
}

function withoutFactor(done) {
  ask({ title: "Do without the second factor?", text: "From then on the password alone lets you in.", fields: [CODE], action: "Remove", danger: true, work: async (values) => (await call("POST", "/my/second-factor/remove", values), done()), done: "there is no second factor any more" });
}

function another(done) {
  ask({
    title: "A further token",
    fields: [{ ...NOTE, label: "What it is for" }, DAYS, { name: "scope", label: "For", kind: "select", value: "all", words: SCOPES }],
    action: "Make",
    work: async (values) => {
      const made = await call("POST", "/my/tokens", values);
      shownOnce("Your token", made.token, `Good until ${moment(made.until)}. revtunnel-connect login ${location.origin} asks for it.`);
      done();
    },
  });
}

export function view() {
  const wrong = h("p", { class: "wrong", role: "alert" });
  const about = h("div", {});
  const list = h("div", {});
  const acts = h("div", { class: "actions" });
  const read = async () => {
    try {
      my.me = await get("/my");
      put(about, facts(
        ["User", my.me.user], ["Role", my.me.role], my.me.note ? ["Note", my.me.note] : null, ["Groups", my.me.groups.join(", ") || "none"],
        ["This login", [`${my.me.scope}, until `, moment(my.me.until)]],
        ["Password", my.me.password ? mark("good", "yes") : mark("warn", "none")],
        ["Second factor", my.me.second_factor ? mark("good", "yes") : mark("warn", "none")]));
      put(acts, may.act && [
        button(my.me.password ? "Another password" : "Take a password", () => password(read)),
        my.me.second_factor ? button("Without second factor", () => withoutFactor(read), { class: "danger" }) : button("Second factor", () => factor(read).catch((error) => say(error.message, true))),
      ]);
      put(list, tokens(await all("/my/tokens"), (row) => (row.id === my.me.token ? h("span", { class: "quiet" }, "this browser") : button(row.scope.includes("browser") ? "Log out" : "Revoke", () => ask({ title: row.scope.includes("browser") ? "Log that browser out?" : "Revoke that token?", text: `${row.note || row.id}: what was begun with it ends.`, action: row.scope.includes("browser") ? "Log out" : "Revoke", danger: true, work: async () => (await call("DELETE", at`/my/tokens/${row.id}`), read()), done: "it counts no more" }), { class: "danger", "aria-label": `${row.scope.includes("browser") ? "Log out" : "Revoke"} ${row.id}` }))));
      put(wrong);
    } catch (error) {
      put(wrong, error.message);
    }
  };
  read();
  const node = [
    h("div", { class: "title" }, h("h1", { tabindex: "-1" }, "My account")),
    wrong,
    part(my.me.user, acts, about),
    part("Tokens and browsers", may.act && button("New token", () => another(read)), list),
  ];
  return { title: "My account", node, stop: () => {} };
}
