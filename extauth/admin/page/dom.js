"use strict";
// Whatever comes from the service is put in as text, never as HTML: names and values may be anybody's.

const byId = (id) => document.getElementById(id);

/** An element with attributes, and children that are elements or text. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Change a text only where it differs, so that selections last and nothing is read out again. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set or remove an attribute. */
function mark(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/** Have `parent` hold one child for each item, in order; a child is made once for a key, and filled each time. */
function sync(parent, items, keyOf, make, fill) {
  const known = parent.known ?? (parent.known = new Map());
  const kept = new Set();
  items.forEach((item, i) => {
    const key = keyOf(item);
    let child = known.get(key);
    if (!child) known.set(key, (child = make(item)));
    kept.add(key);
    fill(child, item);
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] ?? null);
  });
  for (const [key, child] of known) {
    if (!kept.has(key)) {
      child.remove();
      known.delete(key);
    }
  }
}

/** Rows of a definition list: [term, text, level]. */
function facts(list, rows) {
  sync(list, rows.flatMap(([term, text, level]) => [["dt", term, term, null], ["dd", term, text, level]]),
    ([kind, term]) => kind + term, ([kind]) => el(kind),
    (node, [kind, , text, level]) => { setText(node, text); if (kind === "dd") mark(node, "data-level", level ?? null); });
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (number) => (number < 1e6 ? whole.format(number) : short.format(number));
const rate = (number) => (number >= 100 ? count(Math.round(number)) : tenth.format(number));
const many = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** Whose numbers are shown. */
const ofReplica = (replicas) => (replicas > 1 ? `of this replica alone, one of ${replicas}` : "of this replica");

/** A time of day, with the day where that is another one. */
function clock(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return (today ? "" : `${dayFormat.format(date)}, `) + clockFormat.format(date);
}

/** How long something took or lasts: `8 s`, `4 min`, `2 h 10 min`, `3 days`. */
function lasting(seconds) {
  const s = Math.max(Math.round(seconds), 0);
  if (s < 60) return `${s} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}
