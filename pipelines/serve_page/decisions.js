// What a person says against the rules, and when it counts.
import { NONE, ask, known, link } from "./address.js";
import { whoDecides } from "./names.js";

export const said = (keep) => (keep === true ? "keep" : keep === false ? "reject" : "as the rules say");

// Adds a word on the clip; what it changes of the clip's card.
export async function overrule(clip, keep, note) {
  const author = await whoDecides();
  const word = await ask(`/api/clips/${encodeURIComponent(clip.clip_id)}/decision`, { body: { keep, note: note || null, author } });
  const pending = (keep !== null && keep !== clip.keep) || (keep === null && Boolean(clip.override));
  document.dispatchEvent(new CustomEvent("overruled", { detail: { clip, word } }));
  return { word, pending };
}

// Buttons for the three words; the one that was said is pressed.
export function choose(clip, decide) {
  const now = clip.word ? clip.word.keep : null;
  const button = (words, keep) => el("button", { type: "button", class: `small ${keep ? "yes" : "no"}`, "aria-pressed": String(now === keep),
    title: now === keep ? "Take it back" : `Say ${words.toLowerCase()}, whatever the rules say`,
    onclick: () => attempt(() => decide(now === keep ? null : keep)) }, words);
  return [button("Keep", true), button("Reject", false)];
}

// Does it, and shows the error if there is one until the next thing of the same kind succeeds.
export async function attempt(work, kind = "doing") {
  try {
    await work();
    trouble(kind, null);
  } catch (error) {
    trouble(kind, error.message);
  }
}

export function trouble(kind, words) {
  const place = document.getElementById("trouble");
  if (!words && place.dataset.kind !== kind) return; // somebody else's
  place.dataset.kind = kind;
  place.textContent = words || "";
  place.hidden = !words;
}

// Null where nobody spoke, or the decision that stands beside it says so already.
export function pendingText(clip) {
  if (!clip.word || (clip.override && !clip.pending)) return null;
  const { keep, author, note } = clip.word;
  const told = keep === null ? `${author} took the word back` : `${author} says ${said(keep)}`;
  return `${told}${note ? `: ${note}` : ""}${clip.pending ? " (from the next decide on)" : ""}`;
}

// The line that tells how many words wait, with the button that lets them count.
export function pendingLine(refresh) {
  const place = document.getElementById("pending"), n = known.state ? known.state.pending : 0;
  place.hidden = !n;
  if (!n) return;
  const button = el("button", { type: "button", onclick: () => attempt(async () => {
    button.disabled = true;
    button.textContent = "Deciding…";
    try {
      await ask("/api/decide", { body: {} });
    } finally {
      await refresh();
    }
  }) }, "Decide now");
  const words = link({ ...NONE, view: "clips", state: "pending", offset: "", clip: "" }, `${number(n)} ${n === 1 ? "decision" : "decisions"} by hand`);
  place.replaceChildren(words, ` ${n === 1 ? "waits" : "wait"} for the next `, el("code", {}, "reelmill decide"), ". ", button);
}
