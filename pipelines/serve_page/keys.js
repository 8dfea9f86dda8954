// Keys: from clip to clip, open, keep, reject, search. They rest while somebody types.
import { filter, go, here } from "./address.js";
import { close, opened, step } from "./clip.js";
import { attempt } from "./decisions.js";
import { decide, page, turn } from "./gallery.js";

export const KEYS = [["j →", "next clip"], ["k ←", "previous clip"], ["↑ ↓", "clip above, below"], ["Enter", "open the clip"], ["Esc", "close it"],
  ["y", "keep it, whatever the rules say"], ["n", "reject it"], ["u", "take that back"], ["s", "clips like it"], ["/", "search"],
  ["[ ]", "previous, next page"], ["1 2 3", "overview, clips, SQL"], ["?", "these keys"]];

const focusedClip = () => {
  const card = document.activeElement?.closest?.("#wall .clip");
  return card ? page.clips.find((clip) => clip.clip_id === card.dataset.clip) : null;
};

function walk(by) {
  const cards = [...document.querySelectorAll("#wall .clip")], at = cards.indexOf(document.activeElement?.closest?.("#wall .clip"));
  const to = cards[at < 0 ? 0 : at + by];
  if (to) to.focus();
}

const across = () => getComputedStyle(document.getElementById("wall")).gridTemplateColumns.split(" ").length;

function inGallery(key) {
  const clip = focusedClip();
  const steps = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1, ArrowDown: across(), ArrowUp: -across() };
  if (key in steps) walk(steps[key]);
  else if (key === "[" || key === "]") turn(key === "]" ? 1 : -1);
  else if (!clip) return false;
  else if (key === "Enter") go({ clip: clip.clip_id });
  else if (key in WORDS) attempt(() => decide(clip, WORDS[key]));
  else if (key === "s") filter({ like: clip.clip_id, q: "", text: "" });
  else return false;
  return true;
}

const WORDS = { y: true, n: false, u: null };

function inDialog(key) {
  const clip = opened(), steps = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };
  if (!clip) return false;
  if (key in steps) step(steps[key]);
  else if (key in WORDS && clip.say) clip.say(WORDS[key]);
  else if (key === "s") filter({ like: clip.clip_id, q: "", text: "" });
  else return false;
  return true;
}

export function help() {
  const dialog = document.getElementById("help");
  dialog.replaceChildren(el("h2", {}, "Keys"), el("dl", { class: "keys" }, KEYS.map(([key, told]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, told)]).flat()),
    el("button", { type: "button", autofocus: "", onclick: () => dialog.close() }, "Close"));
  dialog.showModal();
}

export function listen() {
  const dialog = document.getElementById("clip");
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); close(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) close(); });
  document.addEventListener("keydown", (event) => {
    const on = event.target, typing = on.matches("input, select, textarea, video");
    if (event.ctrlKey || event.metaKey || event.altKey || typing || document.querySelector("#help[open], #who[open]")) return;
    if (on.matches("button, a, summary") && event.key === "Enter") return;
    const done = dialog.open ? inDialog(event.key) : anywhere(event.key) || (here().view === "clips" && inGallery(event.key));
    if (done) event.preventDefault();
  });
}

function anywhere(key) {
  if (key === "?") help();
  else if (key in VIEWS) go({ view: VIEWS[key] });
  else if (key === "/") {
    go({ view: "clips" });
    setTimeout(() => document.getElementById("words")?.select());
  } else return false;
  return true;
}

const VIEWS = { 1: "overview", 2: "clips", 3: "sql" };
