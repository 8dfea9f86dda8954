// Copies side by side -------------------------------------------------------------------------------------------
const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

function half(side, kept) {
  const what = side.is_file ? "file" : "clip", name = fileOf(side);
  const size = [side.width ? `${side.width}×${side.height}` : null,
    side.is_file ? null : `${side.start_s.toFixed(2)} to ${side.end_s.toFixed(2)} s`, side.is_file && side.size_bytes ? megabytes(side.size_bytes) : null];
  const stays = kept && !side.is_file && side.keep === false;  // an original that another rule rejected, or a person
  return el("div", { class: "half" },
    screenOf(side, `${what} ${side.is_file ? name : side.clip_id}`, el("span", { class: kept && !stays ? "mark" : "mark no" }, kept ? (stays ? "rejected" : "kept") : "copy")),
    el("p", { class: "facts" }, el("b", {}, name), size.filter(Boolean).map((part) => [el("span", { class: "part" }, part), " "]),
      side.is_file ? null : el("span", { class: "mono" }, side.clip_id)));
}

function copiesOf(found) {
  return el("div", { class: "pairs" }, found.pairs.map((pair) => el("article", { class: "card pair", "aria-label": "a pair of copies" },
    el("div", { class: "two" }, half(pair.kept, true), half(pair.copy, false)),
    el("p", { class: "why" }, pair.kept.is_file ? "exact copy: the same bytes" : pair.reason || "copy"))));
}

function copiesHint(found) {
  const parts = [found.n_clips ? `${number(found.n_clips)} ${found.n_clips === 1 ? "shot is a copy" : "shots are copies"} of a better one, looked for among those that passed the filters` : null,
    found.n_files ? `${number(found.n_files)} ${found.n_files === 1 ? "file has" : "files have"} the bytes of another` : null];
  const n = found.pairs.length, all = found.n_clips + found.n_files;
  return `${parts.filter(Boolean).join("; ")}. ${n < all ? `${number(n)} of these pairs are shown, the least alike first.` : ""}`;
}
