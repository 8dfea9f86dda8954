// Who decides: the name that came with the token, or one that is asked for at the first word and that this browser keeps.
import { known } from "./address.js";

const KEY = "reelmill-author";
let given = null; // where the browser keeps nothing

export function who() {
  if (!known.state.asks_name) return known.state.author;
  try {
    return given || localStorage.getItem(KEY);
  } catch {
    return given;
  }
}

function keep(name) {
  given = name;
  try {
    localStorage.setItem(KEY, name);
  } catch { /* it holds until the page is closed */ }
  document.dispatchEvent(new CustomEvent("named"));
}

// The name; an Error if nobody gives one.
export async function whoDecides() {
  const name = who() || await askName();
  if (!name) throw new Error("Nothing was decided: a decision by hand has the name of who made it.");
  return name;
}

// Asks for the name, and resolves to it, or to null if it is not given.
export function askName() {
  const dialog = document.getElementById("who"), before = document.activeElement;
  const name = el("input", { type: "text", id: "who-name", maxlength: 100, required: "", autocomplete: "name", "aria-label": "Your name", autofocus: "" });
  name.value = who() || known.state.author;
  return new Promise((go) => {
    const answer = (found) => {
      dialog.onclose = null;
      dialog.close();
      dialog.replaceChildren();
      before?.focus?.();
      if (found) keep(found);
      go(found);
    };
    dialog.onclose = () => answer(null); // Esc
    dialog.replaceChildren(el("form", { onsubmit: (event) => { event.preventDefault(); if (name.value.trim()) answer(name.value.trim()); } },
      el("h2", {}, "Who decides?"), el("p", { class: "hint" }, "Every decision by hand is kept with the name of who made it. This browser remembers yours."),
      el("div", { class: "doings" }, name, el("button", { type: "submit" }, "That is me"), el("button", { type: "button", onclick: () => answer(null) }, "Cancel"))));
    dialog.showModal();
    name.select();
  });
}
