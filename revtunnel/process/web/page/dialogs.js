// Questions: before something is cut, and for what an action has to know. The element is the browser's own
// <dialog>, which keeps the focus inside, and gives it back.

import { button, h, put, say } from "./dom.js";

let names = 0;
const named = (what) => `${what}-${(names += 1)}`;

/** One field of a question: {name, label, kind: text|number|password|select|check, value, words, hint, ...}. */
function field(about) {
  const id = named("field");
  const shared = { id, name: about.name, required: about.required, autocomplete: about.autocomplete ?? "off", "aria-describedby": about.hint && `${id}-hint` };
  const hint = about.hint && h("p", { class: "hint", id: `${id}-hint` }, about.hint);
  if (about.kind === "check") {
    const input = h("input", { type: "checkbox", ...shared, checked: about.value });
    return [h("div", { class: "field check" }, input, h("label", { for: id }, about.label), hint), () => input.checked];
  }
  let input;
  if (about.kind === "select") {
    input = h("select", shared, about.words.map(([value, text]) => h("option", { value, selected: value === about.value }, text)));
  } else {
    input = h("input", { type: about.kind ?? "text", ...shared, value: about.value, pattern: about.pattern, title: about.title, min: about.min, max: about.max, minlength: about.minlength, maxlength: about.maxlength, list: about.words && `${id}-words`, spellcheck: "false", autocapitalize: "none" });
  }
  const words = about.kind !== "select" && about.words && h("datalist", { id: `${id}-words` }, about.words.map((value) => h("option", { value })));
  return [h("div", { class: "field" }, h("label", { for: id }, about.label), input, words, hint), () => read(input, about.kind)];
}

/** What a field says; a blank belongs to a password as any other character. */
function read(input, kind) {
  if (kind === "number") return Number(input.value);
  return kind === "password" ? input.value : input.value.trim();
}

/** A form: its fields, a button that does `work(values)`; what goes wrong is said in it. */
export function form({ fields = [], action, danger, work, others = [] }) {
  const made = fields.map((each) => field(each));
  const wrong = h("p", { class: "wrong", role: "alert" });
  const go = h("button", { type: "submit", class: danger ? "danger" : "main" }, action);
  const node = h("form", { class: "form", method: "dialog" }, made.map(([each]) => each), wrong, h("div", { class: "buttons" }, others, go));
  node.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    wrong.replaceChildren();
    try {
      await work(Object.fromEntries(fields.map((each, index) => [each.name, made[index][1]()])));
    } catch (error) {
      put(wrong, error.message);
      if (!error.status && error.status !== 0) throw error;
    } finally {
      go.disabled = false;
    }
  });
  return node;
}

/** Show something over the page; gives the means to close it. `closed`: called once it is. */
export function open(title, inside, closed) {
  const heading = named("heading");
  const node = h("dialog", { class: "over", "aria-labelledby": heading });
  const close = () => node.close();
  const cross = button("×", close, { class: "cross", "aria-label": "Close" });
  node.append(h("div", { class: "head" }, h("h2", { id: heading }, title), cross));
  node.append(...[inside(close)].flat());
  node.addEventListener("close", () => {
    const said = document.getElementById("said");
    if (node.contains(said)) document.body.append(said);
    node.remove();
    closed?.();
  });
  document.body.append(node);
  node.showModal();
  node.querySelector("input:not([readonly]), select, .buttons button")?.focus();
  return close;
}

/** Ask, and do `work(values)` on yes; what is cut is said first, in `text`. */
export function ask({ title, text, fields, action, danger, work, done }) {
  open(title, (close) => [
    text && h("p", {}, text),
    form({
      fields,
      action,
      danger,
      others: [button("Cancel", close)],
      work: async (values) => {
        await work(values);
        close();
        if (done) say(done);
      },
    }),
  ].filter(Boolean));
}
