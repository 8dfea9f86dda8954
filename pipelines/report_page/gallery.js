// The gallery: a sample of clips, with filters ------------------------------------------------------------------
const PHONE_CARDS = 12; // at once: a phone shows them one below the other
const SIDES = { all: "All", kept: "Kept", rejected: "Rejected", waiting: "Not decided" };

function chosenBy(state, c) {
  const value = state.score ? valueOf(c.clip, state.score) : null, asked = state.score && (state.min !== null || state.max !== null);
  return (state.which === "all" || c.state === state.which) && (!state.reason || c.reasons.includes(state.reason)) &&
    c.words.includes(state.words) && (!asked || (value !== null && value !== undefined &&
      (state.min === null || value >= state.min) && (state.max === null || value <= state.max)));
}

function ordered(cards, state) {
  if (!state.score || !state.order) return cards;
  const sign = state.order === "low" ? 1 : -1, value = (c) => valueOf(c.clip, state.score) ?? null;
  return [...cards].sort((a, b) => (value(a) === null) - (value(b) === null) || sign * (value(a) - value(b)));
}

// Arrow keys go from picture to picture as they lie on the screen.
function walk(event, wall) {
  const keys = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 0, ArrowUp: 0, Home: 0, End: 0 };
  if (!(event.key in keys) || !event.target.classList.contains("screen")) return;
  const screens = [...wall.querySelectorAll(".clip:not([hidden]) .screen")], at = screens.indexOf(event.target);
  const across = getComputedStyle(wall).gridTemplateColumns.split(" ").length;
  const to = { Home: 0, End: screens.length - 1, ArrowDown: at + across, ArrowUp: at - across }[event.key] ?? at + keys[event.key];
  event.preventDefault();
  if (screens[to]) screens[to].focus();
}

const choice = (label, options, onchange) => {
  const select = el("select", { "aria-label": label, onchange: () => onchange(select.value) },
    options.map(([value, text]) => el("option", { value }, text)));
  return select;
};

function gallery(clips) {
  const few = matchMedia("(max-width: 640px)").matches ? PHONE_CARDS : Infinity;
  const cards = clips.map(clipCard), wall = el("div", { class: "gallery", onkeydown: (event) => walk(event, wall) }, cards.map((c) => c.card));
  const fresh = { which: "all", reason: "", words: "", score: "", min: null, max: null, order: "" };
  const state = { ...fresh }, told = el("output", { "aria-live": "polite" }), nothing = el("p", { class: "nothing", hidden: "" }, "No clip of the sample fits.");
  const sides = Object.entries(SIDES).filter(([which]) => which !== "waiting" || cards.some((c) => c.state === which));
  const buttons = sides.map(([which, word]) => el("button", { type: "button", "data-which": which, onclick: () => set({ which }) }, word));
  const names = [...new Set(cards.flatMap((c) => c.reasons))].sort();
  const reason = choice("Reason", [["", "any reason"], ...names.map((name) => [name, ruleName(name)])], (value) => set({ reason: value }));
  const scores = FACTS.filter((name) => clips.some((clip) => valueOf(clip, name) !== null && valueOf(clip, name) !== undefined));
  const score = choice("Score", [["", "any score"], ...scores.map((name) => [name, plain(name)])], (value) => set({ score: value }));
  const order = choice("Order", [["", "as sampled"], ["low", "lowest first"], ["high", "highest first"]], (value) => set({ order: value }));
  const limit = (name, word, placeholder) => {
    const input = el("input", { type: "number", step: "any", inputmode: "decimal", placeholder, "aria-label": `Score, ${word}`,
      oninput: () => set({ [name]: input.value === "" || !Number.isFinite(Number(input.value)) ? null : Number(input.value) }) });
    return input;
  };
  const min = limit("min", "at least", "min"), max = limit("max", "at most", "max");
  const search = el("input", { type: "search", placeholder: "words in captions or file name", "aria-label": "Search captions",
    oninput: () => set({ words: search.value.toLowerCase() }) });
  const play = el("button", { type: "button", "aria-pressed": "false",
    onclick: () => play.setAttribute("aria-pressed", wall.classList.toggle("playing")) }, "Play all");
  const clear = el("button", { type: "button", onclick: () => {
    for (const input of [reason, score, order, min, max, search]) input.value = "";
    set(fresh);
  } }, "Clear");
  const range = el("div", { class: "range" }, min, max, order);
  const more = el("button", { type: "button", class: "rest", onclick: () => {
    const first = wall.querySelectorAll(".clip:not([hidden])").length;
    set({ most: state.most + few });
    wall.querySelectorAll(".clip:not([hidden]) .screen")[first].focus();
  } });
  function set(change) {
    Object.assign(state, { most: few }, change);
    let n = 0;
    for (const c of ordered(cards, state)) {
      const fits = chosenBy(state, c);
      c.card.hidden = !fits || n >= state.most;
      n += fits;
    }
    more.hidden = n <= state.most;
    more.textContent = `${number(Math.min(few, n - state.most))} more`;
    if ("score" in change || "order" in change) wall.append(...ordered(cards, state).map((c) => c.card));
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.dataset.which === state.which));
    range.hidden = !state.score;
    nothing.hidden = n > 0;
    clear.hidden = Object.keys(fresh).every((key) => state[key] === fresh[key]);
    told.textContent = `${number(Math.min(n, state.most))} of ${number(cards.length)} shown`;
  }
  set({});
  return [el("div", { class: "filters", role: "group", "aria-label": "Filters" }, el("div", { class: "sides" }, buttons),
    names.length ? reason : null, score, range, search, play, clear, told),
    el("a", { class: "past", href: "#after-clips" }, "Skip the clips"), nothing, wall, more, el("span", { id: "after-clips", tabindex: "-1" })];
}
