// The rules in force, with what this replica has counted of each.

const rules = { rows: new Map(), domains: 0, total: 0, sort: "denied", descending: true, filter: "", all: false };
const FIRST_ROWS = 20;

const ruleKey = (domain, rule) => JSON.stringify([domain, rule]);

/** A rule as it is called here: with its domain only where there are several. */
function ruleName(key) {
  const [domain, rule] = JSON.parse(key);
  return domain && rules.domains > 1 ? `${domain}: ${rule}` : rule;
}

function addRules(news) {
  if (news.reset) rules.rows.clear();
  for (const row of news.rows) rules.rows.set(ruleKey(row.domain, row.rule), row);
  rules.domains = new Set([...rules.rows.values()].map((row) => row.domain)).size;
  rules.total = news.total;
}

function setUpRules() {
  byId("rules-filter").addEventListener("input", (event) => { rules.filter = event.target.value.trim().toLowerCase(); drawRules(); });
  byId("rules-more").addEventListener("click", () => { rules.all = !rules.all; drawRules(); });
  for (const button of byId("rules-head").querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const by = button.dataset.sort;
      rules.descending = rules.sort === by ? !rules.descending : by !== "rule";
      rules.sort = by;
      drawRules();
    });
  }
}

function compareRules(a, b) {
  const by = rules.sort;
  const order = by === "rule" ? (ruleName(a.key) < ruleName(b.key) ? -1 : 1) : a[by] - b[by];
  return (rules.descending ? -order : order) || b.denied - a.denied || b.calls - a.calls || a.order - b.order;
}

function drawRules() {
  for (const button of byId("rules-head").querySelectorAll("button")) {
    const sorted = button.dataset.sort === rules.sort;
    mark(button.parentElement, "aria-sort", sorted ? (rules.descending ? "descending" : "ascending") : null);
  }
  const words = rules.filter.split(/\s+/);
  const found = [...rules.rows].map(([key, row], order) => ({ ...row, key, order }))
    .filter((row) => words.every((word) => `${row.domain} ${row.rule} ${row.tier} ${row.limit} ${row.place}`.toLowerCase().includes(word)))
    .sort(compareRules);
  sync(byId("rules-body"), rules.all ? found : found.slice(0, FIRST_ROWS), (row) => row.key,
    () => el("tr", { role: "row" }, el("td", { role: "cell" }, el("span", { class: "mono" }), el("span", { class: "sub" })), ...Array.from({ length: 4 }, () => el("td", { role: "cell", class: "n" }))),
    (line, row) => {
      const [name, sub] = line.firstChild.children;
      setText(name, ruleName(row.key));
      setText(sub, [row.tier && `tier ${row.tier}`, row.limit, row.place].filter(Boolean).join(" · "));
      [row.calls, row.denied, row.near, row.shadowed].forEach((number, i) => {
        setText(line.children[i + 1], count(number));
        mark(line.children[i + 1], "data-any", i === 1 && number > 0);
        mark(line.children[i + 1], "data-none", number === 0);
      });
    });
  byId("rules-none").hidden = found.length > 0 || !rules.filter;
  const more = byId("rules-more");
  more.hidden = found.length <= FIRST_ROWS;
  setText(more, rules.all ? `Show the first ${FIRST_ROWS}` : `Show all ${found.length}`);
  const left = rules.total - rules.rows.size;
  setText(byId("rules-note"), `${many(rules.total, "rule")}, counted by this replica since it started` + (left > 0 ? `; the ${count(rules.rows.size)} that matter most are shown` : ""));
}
