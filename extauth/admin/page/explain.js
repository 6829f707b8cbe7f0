// The explain box: which rules a request hits, what limits it, and what is left.

const OUTCOMES = { limited: "limited", unlimited: "unlimited", replaced: "left out", label: "a label", nothing: "not limited" };

function setUpExplain() {
  byId("explain-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const descriptors = byId("explain-descriptors").value.split("\n").map((line) => line.trim()).filter(Boolean);
    const box = byId("explained");
    try {
      const response = await fetch("explain", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ domain: byId("explain-domain").value, descriptors }),
      });
      const isJson = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
      const told = isJson ? await response.json() : { error: (await response.text()).trim() };
      box.replaceChildren(...(told.error === undefined ? explained(told) : [el("div", { class: "error" }, told.error)]));
    } catch {
      box.replaceChildren(el("div", { class: "error" }, "No answer from extauth. Does it still run?"));
    }
  });
}

function explained(told) {
  return [...told.descriptors.map(explainedDescriptor), left(told)];
}

function explainedDescriptor(each, i) {
  const outcome = el("span", { class: "tag", "data-outcome": each.outcome }, OUTCOMES[each.outcome] ?? each.outcome);
  const lines = [el("p", {}, `${i + 1}. `, el("code", {}, each.descriptor), outcome)];
  const where = [each.rule && `rule ${each.rule}`, each.tier && `tier ${each.tier}`].filter(Boolean).join(", ");
  lines.push(el("p", { class: "why" }, [each.why, where].filter(Boolean).join(" · ")));
  for (const limit of each.limits) {
    const replaced = limit.replaced_by.map((by) => `left out: ${by.limit} of descriptor ${by.descriptor} replaces it`);
    lines.push(el("p", { class: "why" }, [limit.in_words, ...replaced].join(" · ")));
  }
  if (each.steps.length) {
    const items = each.steps.flatMap((step) => [
      el("li", {}, el("code", {}, `${step.key}=${step.value}`), ` hits ${step.hits ?? "nothing"}: ${step.why}`),
      ...step.others.map((other) => el("li", {}, `not ${other.rule}: ${other.why}`)),
      ...(step.more ? [el("li", {}, `nor ${step.more} more with this key`)] : []),
    ]);
    lines.push(el("details", {}, el("summary", { class: "why" }, "why this rule"), el("ul", { class: "why" }, ...items)));
  }
  return el("div", {}, ...lines);
}

/** What is left in the request's counters. */
function left(told) {
  if (told.left === null) return el("div", {}, `What is left is not known, for the store is away: ${told.left_unknown.replace(/^down: /, "")}`);
  if (!told.left.length) return el("div", {}, "The request counts nothing, and is admitted.");
  const rows = told.left.map((counter) => {
    const { limit } = counter;
    const most = Math.max(limit.burst ?? limit.requests_per_unit, counter.remaining, 1);
    const unit = limit.unit_multiplier ? `${limit.unit_multiplier} ${limit.unit}s` : limit.unit;
    const text = `${count(counter.remaining)} left of ${count(limit.requests_per_unit)} per ${unit}`
      + (limit.name ? ` (${limit.name})` : "") + (counter.used ? `, whole again in ${lasting(counter.reset_s)}` : ", nothing is used")
      + (counter.mode === "enforced" ? "" : `; ${counter.mode.replace("_", " ")}`);
    return el("p", {}, text, el("meter", { min: 0, max: most, value: counter.remaining, low: most / 5, "aria-label": text }));
  });
  return el("div", { class: "left" }, ...rows);
}
