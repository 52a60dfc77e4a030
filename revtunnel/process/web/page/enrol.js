// A device is enrolled: one token, one line to paste beside it, and then it is watched until it is there.

import { at, call, get } from "./api.js";
import { form, open } from "./dialogs.js";
import { button, copyable, h, mark, put } from "./dom.js";
import { hear } from "./live.js";

const LOCAL = /^([A-Za-z0-9._-]{1,32}=)?[^\s=]+:\d{1,5}$/;

/** Ask for the serial, make the token, show the line, wait for the device. */
export function enrol(serial = "") {
  let stop = () => {};
  open(serial ? `Enrol ${serial} anew` : "Enrol a device", (close) => {
    const place = h("div", {});
    const asked = form({
      fields: [
        { name: "serial", label: "Serial", value: serial, required: true, pattern: "[A-Za-z0-9._:\\-]{1,64}", title: "letters, digits and . _ : -", maxlength: "64" },
        { name: "local", label: "Its services", hint: "NAME=HOST:PORT with blanks between, such as ssh=127.0.0.1:22 web=127.0.0.1:80. They can be given beside the device, too." },
        { name: "replace", label: "Also where it has a certificate or key: that counts no more, and its link is cut", kind: "check", value: Boolean(serial) },
      ],
      action: "Make a token",
      others: [button("Cancel", close)],
      work: async (values) => {
        const locals = values.local.split(/\s+/).filter(Boolean);
        const wrong = locals.find((each) => !LOCAL.test(each));
        if (wrong) throw Object.assign(new Error(`${wrong}: NAME=HOST:PORT wanted`), { status: 0 });
        put(place, ...(await made(values.serial, values.replace, locals)), waiting(values.serial));
        asked.remove();
        place.querySelector("textarea").focus();
      },
    });
    const waiting = (name) => {
      const state = h("p", { class: "state", role: "status" }, mark("warn", "waiting"), ` ${name} has not come yet.`);
      stop = hear((row) => {
        if (row.serial !== name) return;
        if (row.event === "link-up") put(state, mark("good", "online"), ` ${name} is here. `, h("a", { href: `#/devices/${encodeURIComponent(name)}`, onclick: close }, "See it"));
        else if (row.event === "link-refused") put(state, mark("bad", "refused"), ` ${name}: ${row.reason}, ${row.detail}`);
      });
      return [state, h("div", { class: "buttons" }, button("Done", close, { class: "main" }))];
    };
    return [asked, place];
  }, () => stop());
}

/** A token where the server has an authority, else a key; with what to run. */
async function made(serial, replace, locals) {
  const local = locals.length ? locals.map((each) => ` --local ${each}`).join("") : " --local HOST:PORT";
  let key;
  try {
    const { token, server, problem } = await call("POST", at`/devices/${serial}/token`, { replace });
    const line = `revtunnel-agent --enroll ${token} --server ${server || "HOST:PORT"}${local}`;
    return [h("p", {}, "Run this once, beside the device. The token is shown here and nowhere else; it is good once, for this serial."), copyable(line, "Line for the agent"), kept(problem)];
  } catch (error) {
    if (error.word !== "not-found" || (await get("/authority").catch((lack) => lack.word)) !== "not-found") throw error;
    key = await call("POST", at`/devices/${serial}/key`, { replace });
  }
  return [
    h("p", {}, "The server has no authority, so this is a key. It is shown here and nowhere else; keep it beside the device in a file of mode 0600."),
    copyable(key.key, "Key"),
    copyable(`revtunnel-agent --serial ${serial} --key-file ${serial}.key --server HOST:PORT${local}`, "Line for the agent"),
    kept(key.problem),
  ];
}

const kept = (problem) => (problem ? h("p", { class: "wrong" }, `It counts, but is not on the disk yet: ${problem}`) : "");
