// The stream of events. A browser opens it again by itself; where the server refuses it, this does, a little later.
// A page that nobody sees gives its place up: a browser has six connections to a server, and that has 16 streams.

const HIDDEN_MS = 30_000;
const stream = { source: null, heard: 0, again: null, latest: null };

function heard(event) {
  addRules(event.rules);
  addHistory(event.history);
  addCallers(event.top, event.replicas.list.length);
  addIncidents(event);
  stream.latest = event;
  if (!document.hidden) drawAll(event);
}

function drawAll(event) {
  drawTraffic(event.replicas.list.length);
  drawCallers(event.at);
  drawRules();
  drawHealth(event);
  drawLimited(event);
  drawService(event);
}

function setLink(state, text) {
  mark(byId("link"), "data-state", state);
  setText(byId("link-text"), text);
  mark(document.body, "data-lost", state === "lost" ? "" : null);
}

function listen() {
  stream.source?.close();
  const source = stream.source = new EventSource("live");
  source.onopen = () => { history.last = 0; };
  source.onmessage = (message) => {
    stream.heard = Date.now();
    heard(JSON.parse(message.data));
    setLink("live", "live");
  };
  source.onerror = () => {
    setLink("lost", stream.heard ? `lost, last heard at ${clock(stream.heard / 1000)}` : "no stream: extauth does not answer, or has 16 already");
    if (source.readyState === EventSource.CLOSED && !document.hidden) {
      clearTimeout(stream.again);
      stream.again = setTimeout(listen, 3000);
    }
  };
}

function pause() {
  stream.source?.close();
  stream.source = null;
  setLink("paused", "paused while hidden");
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(stream.again);
  if (document.hidden) stream.again = setTimeout(pause, HIDDEN_MS);
  else if (stream.source?.readyState !== EventSource.OPEN) listen();
  else if (stream.latest) drawAll(stream.latest);
});
setUpChart();
setUpRules();
setUpExplain();
listen();
