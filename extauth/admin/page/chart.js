// Calls per second: the last SECONDS seconds of each tier and rule, the newest last.

const SECONDS = 900;
const SVG = "http://www.w3.org/2000/svg";

class Series {
  constructor() {
    this.allowed = new Array(SECONDS).fill(0);
    this.denied = new Array(SECONDS).fill(0);
  }
  /** Let `seconds` pass, of which nothing is known yet. */
  pass(seconds) {
    for (const numbers of [this.allowed, this.denied]) {
      numbers.splice(0, seconds);
      while (numbers.length < SECONDS) numbers.push(0);
    }
  }
  /** Put the newest numbers in. */
  put(allowed, denied) {
    this.allowed.splice(SECONDS - allowed.length, allowed.length, ...allowed);
    this.denied.splice(SECONDS - denied.length, denied.length, ...denied);
  }
  sum(name, seconds = SECONDS) {
    let total = 0;
    for (let i = SECONDS - seconds; i < SECONDS; i++) total += this[name][i];
    return total;
  }
  /** The seconds since which calls were denied, without a pause of a minute; 0 where none is now. */
  deniedFor() {
    let first = SECONDS;
    for (let i = SECONDS - 1; i >= 0 && first - i <= 60; i--) if (this.denied[i] > 0) first = i;
    return SECONDS - first;
  }
}

const history = { last: 0, at: 0, tiers: new Map(), rules: new Map(), total: new Series() };

/** Take in what is new, or everything: of a new stream, or where some names must not be shown any more. */
function addHistory(slice) {
  if (slice.first <= history.last || !history.last) {
    Object.assign(history, { last: 0, tiers: new Map(), rules: new Map(), total: new Series() });
  }
  const passed = Math.min(history.last ? slice.last - history.last : slice.last, SECONDS);
  history.last = slice.last;
  history.at = slice.last_at_s;
  history.total.pass(passed);
  for (const table of [history.tiers, history.rules]) {
    for (const [key, series] of table) {
      series.pass(passed);
      if (!series.sum("allowed") && !series.sum("denied")) table.delete(key);
    }
  }
  const put = (table, key, each) => {
    if (!table.has(key)) table.set(key, new Series());
    table.get(key).put(each.allowed, each.denied);
  };
  for (const each of slice.tiers) put(history.tiers, each.tier, each);
  for (const each of slice.rules) put(history.rules, ruleKey(each.domain, each.rule), each);
  for (const name of ["allowed", "denied"]) {
    const total = history.total[name];
    for (let i = SECONDS - passed; i < SECONDS; i++) {
      total[i] = 0;
      for (const series of history.tiers.values()) total[i] += series[name][i];
    }
  }
}

/** A path of steps of `each` seconds: the area up to `top`, or its upper line. */
function path(top, each, closed) {
  let d = closed ? `M0,0` : "";
  top.forEach((y, i) => { d += `${d ? "L" : "M"}${i * each},${y.toFixed(3)}`; });
  return closed ? `${d}L${(top.length - 1) * each},0Z` : d;
}

/** Sums of `each` seconds, per second; the first may lack some. */
function coarse(numbers, each) {
  const sums = [];
  for (let end = numbers.length; end > 0; end -= each) {
    let sum = 0;
    for (let i = Math.max(end - each, 0); i < end; i++) sum += numbers[i];
    sums.push(sum / each);
  }
  return sums.reverse();
}

/** An SVG for `draw`; it hides from screen readers, which get the numbers beside it. */
function picture() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["area-denied", "area-allowed", "line-denied", "line-allowed"]) {
    const made = document.createElementNS(SVG, "path");
    made.setAttribute("class", name);
    svg.append(made);
  }
  return svg;
}

/** Draw a series, the denied calls on top of the allowed ones; returns the highest sum. */
function draw(svg, series, each, most = 0) {
  const allowed = coarse(series.allowed, each);
  const sum = coarse(series.denied, each).map((denied, i) => denied + allowed[i]);
  const highest = Math.max(most, ...sum) || 1;
  svg.setAttribute("viewBox", `0 0 ${SECONDS - each} 100`);
  const scaled = (numbers) => numbers.map((number) => 98 * number / highest);
  const [over, under] = [scaled(sum), scaled(allowed)];
  const [areaDenied, areaAllowed, lineDenied, lineAllowed] = svg.children;
  const anyDenied = series.denied.some(Boolean);
  areaDenied.setAttribute("d", anyDenied ? path(over, each, true) : "");
  areaAllowed.setAttribute("d", path(under, each, true));
  lineDenied.setAttribute("d", anyDenied ? path(over, each, false) : "");
  lineAllowed.setAttribute("d", path(under, each, false));
  for (const child of svg.children) child.setAttribute("transform", "matrix(1 0 0 -1 0 100)");
  return highest;
}

const chart = { back: null, svg: picture() };

function setUpChart() {
  const box = byId("chart");
  box.append(el("div", { class: "rule" }), chart.svg, el("span", { class: "most" }));
  const show = (back) => { chart.back = back === null ? null : Math.min(Math.max(Math.round(back), 0), SECONDS - 1); drawCursor(); };
  box.addEventListener("pointermove", (event) => {
    const frame = box.getBoundingClientRect();
    show((1 - (event.clientX - frame.left) / frame.width) * (SECONDS - 1));
  });
  box.addEventListener("pointerleave", () => show(null));
  box.addEventListener("blur", () => show(null));
  box.addEventListener("focus", () => { if (box.matches(":focus-visible")) show(0); });
  box.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: 1, ArrowRight: -1, ArrowDown: 1, ArrowUp: -1, PageDown: 60, PageUp: -60, Home: SECONDS, End: -SECONDS };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show((chart.back ?? 0) + steps[event.key]);
  });
}

/** The second that the pointer or the arrow keys are at. */
function drawCursor() {
  const box = byId("chart");
  let cursor = box.querySelector(".cursor");
  let tip = box.querySelector(".tip");
  const back = chart.back ?? 0;
  const i = SECONDS - 1 - back;
  const { allowed, denied } = history.total;
  const text = `${clock(history.at - back)}: ${count(allowed[i])} allowed, ${count(denied[i])} denied`;
  mark(box, "aria-valuenow", -back);
  mark(box, "aria-valuetext", text);
  if (chart.back === null) {
    cursor?.remove();
    tip?.remove();
    return;
  }
  if (!cursor) box.append((cursor = el("span", { class: "cursor" })), (tip = el("span", { class: "tip" })));
  const left = i / (SECONDS - 1);
  cursor.style.left = `${left * 100}%`;
  tip.style.left = left < 0.5 ? `calc(${left * 100}% + .5rem)` : "auto";
  tip.style.right = left < 0.5 ? "auto" : `calc(${(1 - left) * 100}% + .5rem)`;
  setText(tip, text);
}

/** Rows of one name, picture and two numbers, those with the most denied calls first. */
function drawTable(body, none, table, named) {
  const rows = [...table].map(([key, series]) => ({ key, series, allowed: series.sum("allowed"), denied: series.sum("denied") }));
  rows.sort((a, b) => b.denied - a.denied || b.allowed - a.allowed || (a.key < b.key ? -1 : 1));
  sync(body, rows.slice(0, 8), (row) => row.key,
    (row) => el("tr", {}, el("td", { class: "mono" }, named(row.key)), el("td", {}, picture()), el("td", { class: "n" }), el("td", { class: "n" })),
    (line, row) => {
      draw(line.children[1].firstChild, row.series, 10);
      setText(line.children[2], count(row.allowed));
      setText(line.children[3], count(row.denied));
      mark(line.children[3], "data-any", row.denied > 0);
      mark(line.children[3], "data-none", row.denied === 0);
    });
  none.hidden = rows.length > 0;
}

function drawTraffic(replicas) {
  setText(byId("traffic-note"), `${ofReplica(replicas)}, last 15 minutes`);
  const { total } = history;
  const highest = draw(chart.svg, total, 3);
  const sums = coarse(total.allowed.map((allowed, i) => allowed + total.denied[i]), 3);
  const any = Math.max(...sums) > 0;
  setText(byId("chart").querySelector(".most"), any ? `${rate(highest)} per second` : "no calls in these 15 minutes");
  const figure = (id, number, text) => { setText(byId(id), text); mark(byId(id), "data-any", number > 0); };
  for (const name of ["allowed", "denied"]) {
    const now = total.sum(name, 5) / 5;
    figure(`${name}-now`, now, rate(now));
    const sum = total.sum(name);
    figure(`${name}-sum`, sum, count(sum));
  }
  [900, 600, 300].forEach((back, i) => setText(byId(`axis-${i}`), clock(history.at - back).slice(0, -3)));
  drawTable(byId("tiers"), byId("tiers-none"), history.tiers, (tier) => tier);
  drawTable(byId("by-rule"), byId("by-rule-none"), history.rules, ruleName);
  drawCursor();
}
