// The stream of events. A browser opens it again by itself; where the server refuses it, this does, a little later.

const stream = { source: null, heard: 0, again: null, latest: null };

function heard(event) {
  addRules(event.rules);
  addHistory(event.history);
  addCallers(event.top);
  addIncidents(event);
  stream.latest = event;
  if (!document.hidden) drawAll(event);
}

function drawAll(event) {
  drawTraffic();
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
  stream.source = new EventSource("live");
  stream.source.onopen = () => { history.last = 0; };
  stream.source.onmessage = (message) => {
    stream.heard = Date.now();
    heard(JSON.parse(message.data));
    setLink("live", "live");
  };
  stream.source.onerror = () => {
    setLink("lost", stream.heard ? `lost, last heard at ${clock(stream.heard / 1000)}` : "no stream: extauth does not answer, or has 16 already");
    if (stream.source.readyState === EventSource.CLOSED) {
      clearTimeout(stream.again);
      stream.again = setTimeout(listen, 3000);
    }
  };
}

document.addEventListener("visibilitychange", () => { if (!document.hidden && stream.latest) drawAll(stream.latest); });
setUpChart();
setUpRules();
setUpExplain();
listen();
