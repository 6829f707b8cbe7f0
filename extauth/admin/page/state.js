// The verdict at the top, and the service's own state at the bottom.

const RECENT_S = 60;
const tripped = []; // {at, sum}: how many calls were shed, and how many guards tripped, up to then

/** Why the store is away. */
const cause = (store) => store.text.replace(/^down: /, "");

/** What is wrong with extauth itself: [level, text]. */
function faults(event) {
  const { store, config, replicas, service } = event;
  const found = [];
  const since = store.away_s === null ? "" : ` since ${clock(event.at - store.away_s)}`;
  if (service.status !== "ready") found.push(["warn", `This replica is ${service.status}.`]);
  if (service.workers_ready < service.workers) found.push(["warn", `${service.workers_ready} of its ${service.workers} workers take calls; the others are being started again.`]);
  if (store.breaker !== "closed") {
    found.push(["bad", `The store is away${since}: ${store.policy_text}. ${count(store.uncounted)} calls were decided without it. The cause: ${cause(store)}`]);
  } else if (store.away_s !== null) {
    found.push(["warn", `The store was away${since}, and is just back.`]);
  }
  if (replicas.cut_off) found.push(["bad", "This replica alone is cut off: another one reaches the store. Health checks get NOT_SERVING."]);
  if (!config.ok) found.push(["warn", `The last reload, at ${clock(config.tried_s)}, has ${many(config.problem_count, "problem")}: earlier rules stay in force. They are listed under Service.`]);
  if (replicas.agree === false) found.push(["warn", "The replicas do not have the same rules: the same call may be answered differently."]);
  const before = tripped.find((each) => each.at >= event.at - RECENT_S) ?? { shed: 0, guards: 0 };
  const { shed, guards } = tripped.at(-1);
  if (shed > before.shed) found.push(["bad", `${many(shed - before.shed, "call")} in the last minute were not decided in time, and got the failure policy.`]);
  if (guards > before.guards) found.push(["warn", `Guards have refused what clients did ${many(guards - before.guards, "time")} in the last minute.`]);
  return found;
}

/** Whether the replicas have the same rules. */
function agreement({ list, agree }) {
  if (list.length < 2) return "There is one replica.";
  if (agree === null) return "The rules have just changed here. The other replicas are heard from every 3 s.";
  return `${list.length > 2 ? `All ${list.length}` : "Both"} replicas have the same rules.`;
}

/** What is as it should be. */
function well(event) {
  return [
    event.store.in_memory ? "Calls are counted in its own memory." : "The store answers.",
    `The rules are those of the files, since ${clock(event.config.loaded_s)}.`,
    agreement(event.replicas),
    "In the last minute no call was shed, and no guard tripped.",
  ].map((text) => ["good", text]);
}

const total = (counts) => Object.values(counts).reduce((sum, each) => sum + each, 0);

function addIncidents(event) {
  tripped.push({ at: event.at, shed: total(event.shed), guards: total(event.guards) });
  while (tripped[0].at < event.at - 2 * RECENT_S) tripped.shift();
}

function drawHealth(event) {
  const found = faults(event);
  const level = found.some(([each]) => each === "bad") ? "bad" : found.length ? "warn" : "good";
  const headline = {
    good: "extauth is well",
    warn: "extauth answers, and needs a look",
    bad: event.store.breaker === "closed" ? "extauth is not keeping up" : "extauth decides without its store",
  };
  mark(byId("health").closest(".sentence"), "data-level", level);
  setText(byId("health"), headline[level]);
  sync(byId("faults"), found.length ? found : well(event), ([, text]) => text.replace(/[\d,.:]+/g, "#"), () => el("li"),
    (line, [each, text]) => { mark(line, "data-level", each); setText(line, text); });
  mark(byId("verdict"), "data-level", level);
}

/** Who is limited now, by which rule, since when. */
function drawLimited(event) {
  const now = [...history.rules].map(([key, series]) => ({ key, lasts: series.deniedFor(), lately: series.sum("denied", 10) / 10, minute: series.sum("denied", 60) }))
    .filter((each) => each.minute > 0)
    .sort((a, b) => b.minute - a.minute);
  const here = event.replicas.list.length > 1 ? " by this replica" : "";
  setText(byId("limited"), now.length ? `Limited${here} now, by ${many(now.length, "rule")}` : `Nobody is limited${here} now`);
  mark(byId("limited").closest(".sentence"), "data-level", now.length ? "limiting" : "calm");
  const { denied } = history.total;
  const last = SECONDS - 1 - denied.findLastIndex(Boolean);
  const calm = last < SECONDS ? `No call was denied in the last minute; the last one was at ${clock(history.at - last)}.` : "No call was denied in the last 15 minutes.";
  byId("limited-none").hidden = now.length > 0;
  setText(byId("limited-none"), calm);
  const rows = now.slice(0, 4);
  sync(byId("limited-list"), rows, (each) => each.key,
    () => el("li", {}, el("b", { class: "mono" }), el("span", { class: "rate" }), el("span", { class: "sub" })),
    (line, each) => {
      const [name, rateNow, sub] = line.children;
      const who = callers.denied.filter((caller) => caller.key === each.key && event.at - caller.last_s < RECENT_S).map((caller) => caller.caller);
      const named = ruleName(each.key);
      setText(name, who.length ? who.slice(0, 3).join(", ") + (who.length > 3 ? " and more" : "") : named);
      setText(rateNow, each.lately >= 0.05 ? `${rate(each.lately)} denied/s` : `${count(each.minute)} denied in a minute`);
      const rule = rules.rows.get(each.key);
      const since = each.lasts >= SECONDS - RECENT_S ? "for over 14 minutes" : `since ${clock(history.at - each.lasts)}`;
      setText(sub, [since, who.length ? `by ${named}` : null, rule?.limit, rule?.place].filter(Boolean).join(" · "));
    });
}

function drawService(event) {
  const { store, config, replicas, service } = event;
  setText(byId("replica"), service.replica);
  const away = store.away_s === null ? "" : ` for ${lasting(store.away_s)}`;
  facts(byId("store"), [
    ["State", store.breaker === "closed" ? store.text : `away${away}`, store.breaker === "closed" ? "good" : "bad"],
    ["Breaker", store.breaker, store.breaker === "closed" ? null : "bad"],
    ["If it fails", `${store.policy}: ${store.policy_text}`],
    ["Where", store.where],
    ...Object.entries(event.without_store).filter(([, number]) => number).map(([what, number]) => [`Without it: ${what}`, many(number, "call")]),
  ]);
  facts(byId("config"), [
    ["Last read", `${clock(config.tried_s)}, ${config.ok ? "without a problem" : many(config.problem_count, "problem")}`, config.ok ? "good" : "warn"],
    ["In force since", clock(config.loaded_s)],
    ["Rules", count(config.rules)],
    ["Domains", config.domains.join(", ")],
    ["Hash", config.digest],
    ["From", config.path],
    ...(config.retained.length ? [["Kept as they were", config.retained.join(", "), "warn"]] : []),
    ...(config.warning_count ? [["Warnings", count(config.warning_count)]] : []),
  ]);
  const problems = [...config.problems, ...config.warnings];
  sync(byId("problems"), problems, (text) => text, (text) => el("li", {}, text), () => {});
  const same = replicas.list.length < 2 ? "there is one replica" : store.breaker === "closed" ? "all have the same" : "all had the same when last heard";
  const said = replicas.agree ? [same, "good"] : replicas.agree === null ? ["just changed here; the others are heard from every 3 s", null] : ["they differ", "warn"];
  facts(byId("replicas-facts"), [["Rules", ...said]]);
  sync(byId("replicas"), replicas.list.map((each, i) => ({ ...each, i })), (each) => each.i,
    () => el("tr", {}, el("td", {}, el("span", { class: "mono" }), el("span", { class: "sub" })), el("td", { class: "mono" }), el("td")),
    (line, each) => {
      const [name, sub] = line.firstChild.children;
      setText(name, each.address ?? "address unknown");
      setText(sub, `${each.version}${each.own ? ", this one" : ""}`);
      setText(line.children[1], each.rules);
      mark(line.children[1], "data-any", each.rules !== config.digest);
      setText(line.children[2], each.own || store.breaker === "closed" ? each.breaker : `${each.breaker} when last heard`);
    });
  const refused = Object.entries(event.guards).filter(([, number]) => number);
  const shed = Object.entries(event.shed).filter(([, number]) => number);
  facts(byId("guards"), [
    ["Guards", refused.length ? many(total(event.guards), "trip") : "none has tripped", refused.length ? "warn" : "good"],
    ...refused.map(([name, number]) => [`· ${name}`, count(number)]),
    ["Calls shed", shed.length ? many(total(event.shed), "call") : "none", shed.length ? "bad" : "good"],
    ...shed.map(([name, number]) => [`· ${name}`, count(number)]),
  ]);
  sync(byId("domains"), config.domains, (name) => name, (name) => el("option", { value: name }), () => {});
  const domain = byId("explain-domain");
  if (!domain.value && !domain.touched) { domain.value = config.domains[0] ?? ""; domain.touched = true; }
  const workers = service.workers ? ` with ${service.workers} workers` : "";
  setText(byId("footer-text"), `extauth ${service.version}${workers}, up for ${lasting(event.at - service.started_s)}`);
}
