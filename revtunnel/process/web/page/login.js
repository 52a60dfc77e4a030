// Who comes is somebody after this: by password, by token, by the company, or by the first administrator's link.

import { post, ways } from "./api.js";
import { PASSWORD } from "./account.js";
import { form } from "./dialogs.js";
import { button, h, put } from "./dom.js";

const USER = { name: "user", label: "Name", required: true, autocomplete: "username" };
const LATER = { name: "code", label: "Code of the second factor", required: true, pattern: "[0-9 ]{6,8}", title: "six digits", autocomplete: "one-time-code" };

const FAILED = {
  denied: "You are known there, but may nothing here, or not as you came.",
  refused: "There you were not let in.",
  late: "That took too long, or began elsewhere. Try again.",
  unreachable: "There nobody answers as he should. Try again, or log in otherwise.",
  busy: "Too many log in just now. Try again.",
};

/** Why a login by the company came to nothing, if the page was opened by that. */
const failed = () => FAILED[/^#oidc=([a-z]+)$/.exec(location.hash)?.[1]] ?? "";

/** The word of the first administrator's link, if the page was opened by one. */
export const firstWord = () => /^#first=([\w-]+)$/.exec(location.hash)?.[1] ?? "";

/** The page of somebody who is nobody yet; `done()` once he is. */
export function view(why, done) {
  const place = h("div", {});
  const company = h("p", { class: "other" });
  const word = firstWord();
  why ||= failed();

  const enter = async (path, body) => {
    await post(path, body);
    history.replaceState(null, "", `${location.pathname}#/`);
    done();
  };

  const show = (fields, work, other, first) => {
    const node = form({ fields, action: first ? "Become the administrator" : "Log in", work });
    put(place, node, other && h("p", { class: "other" }, other));
    node.querySelector("input").focus();
  };

  /** As it is said; where a code is wanted, it is asked for, and all of it said again. */
  const tried = (fields, pick, other) => show(fields, async (values) => {
    try {
      await enter("/login", pick(values));
    } catch (error) {
      if (error.word !== "code") throw error;
      show([LATER], ({ code }) => enter("/login", { ...pick(values), code }), button("Back", byPassword, { class: "plain" }));
    }
  }, other);

  const byPassword = () => tried([USER, { ...PASSWORD, minlength: undefined, hint: undefined, autocomplete: "current-password" }], ({ user, password }) => ({ user, password }), button("Log in by a token", byToken, { class: "plain" }));
  const byToken = () => tried([{ name: "token", label: "Token", kind: "password", required: true, autocomplete: "off", hint: "as revtunnelctl user add has shown it" }], ({ token }) => ({ token: token.trim() }), button("Log in by name and password", byPassword, { class: "plain" }));

  const node = h("main", { class: "login", id: "main" },
    h("h1", { tabindex: "-1" }, "revtunnel"),
    h("p", { class: "quiet" }, word ? "Nobody is known here yet. Take a name and a password: you are the administrator then." : location.host),
    why && h("p", { class: "wrong", role: "alert" }, why),
    place, company);
  if (word) show([{ ...USER, pattern: "[a-z0-9][a-z0-9._@\\-]{0,63}", title: "small letters, digits and . _ @ -" }, PASSWORD], ({ user, password }) => enter("/first", { word, user, password }), null, true);
  else {
    byPassword();
    ways().then((row) => row.company && put(company, h("a", { href: row.company.at, class: "button" }, row.company.text)), () => {});
  }
  return node;
}
