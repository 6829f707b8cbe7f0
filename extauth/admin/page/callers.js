// Who is denied most, and who calls most.

const MOST_CALLERS = 10;

const callers = { denied: [], busiest: [] };

function addCallers(top, replicas) {
  for (const id of Object.keys(callers)) {
    callers[id] = top[id].map((each) => ({ ...each, key: ruleKey(each.domain, each.rule) })).sort((a, b) => b.calls - a.calls);
  }
  setText(byId("who-note"), `${ofReplica(replicas)}, since ${clock(top.since_s)}; ${replicas > 1 ? "/top has those of all; " : ""}secret values are masked`
    + (top.estimated ? "; there are so many calls that the numbers are estimates" : ""));
}

function drawCallers(now) {
  for (const [id, list] of Object.entries(callers)) {
    sync(byId(id), list.slice(0, MOST_CALLERS), (each) => each.key + each.caller,
      () => el("tr", {}, el("td", {}, el("span", { class: "mono" }), el("span", { class: "sub" })), el("td", { class: "n" })),
      (line, each) => {
        const [name, sub] = line.firstChild.children;
        setText(name, each.caller);
        const ago = now - each.last_s;
        setText(sub, `${ruleName(each.key)} · since ${clock(each.first_s)}, ${ago < 3 ? "now" : `last ${lasting(ago)} ago`}`);
        setText(line.children[1], (each.error > 0 ? "≤ " : "") + count(each.calls));
        mark(line.children[1], "data-any", id === "denied");
        mark(line.children[1], "title", each.error > 0 ? `at least ${count(each.calls - each.error)}` : null);
      });
    byId(`${id}-none`).hidden = list.length > 0;
  }
}
