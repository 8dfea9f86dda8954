// The bar above the gallery: search and filters. It is drawn once per state of the tables, and then follows the address.
import { NONE, filter, here, known } from "./address.js";

const STATES = { "": "All", kept: "Kept", rejected: "Rejected", undecided: "Undecided", overruled: "By hand", pending: "Waiting" };
let drawn_for = null, controls = null;

export function bar_of_filters(place) {
  const state = here(), choices = known.state.choices, now = JSON.stringify([known.state.view, known.state.models.length]);
  if (drawn_for !== now) {
    drawn_for = now;
    controls = build_bar(choices);
    place.replaceChildren(controls.search, controls.bar);
  }
  if (document.activeElement !== controls.words) controls.words.value = state.q || state.text;
  controls.by.value = state.text ? "text" : state.q ? "q" : controls.by.value;
  for (const name of ["reason", "camera", "score", "sort"]) set(controls[name], state[name]);
  for (const name of ["least", "most", "source"]) if (document.activeElement !== controls[name]) controls[name].value = state[name];
  controls.order.textContent = state.order === "desc" ? "↓ highest first" : "↑ lowest first";
  controls.order.hidden = !state.sort;
  controls.sort.options[0].textContent = state.q || state.text || state.like ? "best first" : "in order of ids";
  controls.least.hidden = controls.most.hidden = !state.score;
  for (const [name, button] of Object.entries(controls.states)) button.setAttribute("aria-pressed", String(state.state === name));
  controls.like.hidden = !state.like;
  controls.like.textContent = `like ${state.like.slice(0, 8)}… ×`;
}

// An address may name what the tables no longer hold.
function set(select, value) {
  if (value && ![...select.options].some((option) => option.value === value)) select.append(el("option", { value }, plain(value)));
  select.value = value;
}

function build_bar(choices) {
  const select = (label, first, options, name) => {
    const made = el("select", { "aria-label": label, onchange: () => filter({ [name]: made.value }) }, el("option", { value: "" }, first), options);
    return made;
  };
  const named = (rows, word = plain) => rows.map((row) => el("option", { value: row.name }, `${word(row.name)} (${number(row.n)})`));
  const scores = (sort) => choices.scores.map((name) => el("option", { value: name }, sort ? `by ${plain(name)}` : plain(name)));
  const text = (label, name, attributes) => {
    const made = el("input", { "aria-label": label, placeholder: label, onchange: () => filter({ [name]: made.value.trim() }), ...attributes });
    return made;
  };
  const by = el("select", { "aria-label": "Search by" }, el("option", { value: "q" }, "captions"), el("option", { value: "text" }, "looks (CLIP)"));
  const words = el("input", { type: "search", id: "words", "aria-label": "Search", maxlength: 500,
    placeholder: 'words, "a phrase", begin*  (press /)' });
  const look = () => filter({ q: "", text: "", like: "", [by.value]: words.value.trim() });
  by.addEventListener("change", () => { if (words.value.trim()) look(); });
  words.addEventListener("search", look); // Enter, and the cross that empties it
  const states = Object.fromEntries(Object.entries(STATES).map(([name, word]) =>
    [name, el("button", { type: "button", "aria-pressed": "false", onclick: () => filter({ state: name }) }, word)]));
  const found = {
    by, words, states,
    like: el("button", { type: "button", class: "chip", title: "No longer by similarity", onclick: () => filter({ like: "" }) }),
    reason: select("Reason", "any reason", named(choices.reasons, ruleName), "reason"),
    camera: select("Camera motion", "any camera", named(choices.cameras), "camera"),
    score: select("Score to filter by", "any score", scores(false), "score"),
    least: text("from", "least", { type: "number", step: "any", class: "bound" }),
    most: text("to", "most", { type: "number", step: "any", class: "bound" }),
    source: text("source file", "source", { type: "search" }),
    sort: select("Order", "in order of ids", scores(true), "sort"),
    order: el("button", { type: "button", onclick: () => filter({ order: here().order === "desc" ? "" : "desc" }) }),
  };
  found.score.addEventListener("change", () => { if (!found.score.value) filter({ score: "", least: "", most: "" }); });
  found.search = el("form", { class: "filters search", role: "search", onsubmit: (event) => { event.preventDefault(); look(); } },
    by, words, el("button", { type: "submit" }, "Search"), found.like, found.sort, found.order);
  found.bar = el("div", { class: "filters" }, el("span", { class: "states", role: "group", "aria-label": "Decision" }, Object.values(states)),
    found.reason, found.camera, found.source, found.score, found.least, found.most,
    el("button", { type: "button", onclick: () => filter(NONE) }, "Clear"));
  return found;
}
