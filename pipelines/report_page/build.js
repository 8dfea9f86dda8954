"use strict";
// Builds pages from plain values. Every text becomes a text node (el, svg); nothing is parsed as markup.
const number = (n) => n.toLocaleString("en");
const short = (x) => (x === null || x === undefined ? "null" : Number(x.toPrecision(3)).toLocaleString("en"));
const plain = (name) => name.replace(/(?<!_per)_s$/, "").replaceAll("_", " ");
const COLOUR = { good: "var(--good)", rejected: "var(--rejected)", failed: "var(--failed)", waiting: "var(--waiting)" };

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const el = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function section(id, title, hint, ...content) {
  document.getElementById("main").append(
    el("section", { id, "aria-labelledby": `${id}-title` },
      el("h2", { id: `${id}-title` }, title), hint ? el("p", { class: "hint" }, hint) : null, ...content));
  document.getElementById("nav").append(el("a", { href: `#${id}` }, title));
}
