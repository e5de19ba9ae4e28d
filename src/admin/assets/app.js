// Keeps the status page up to date: gets it as an event every other second, and puts what has changed into place, so that
// focus, selection, scroll position and screen readers stay where they are. Explains queries without leaving the page.
"use strict";

const period = Number(document.currentScript.dataset.refresh) * 1000;
const connection = document.getElementById("connection");
const parse = (text) => new DOMParser().parseFromString(text, "text/html");
let answered = new Date();

// Makes `old` like `fresh`, touching only what differs.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  // What somebody has typed, and what was explained, stays.
  if ("keep" in old.dataset && "keep" in fresh.dataset) return;
  for (const { name } of [...old.attributes]) {
    // What somebody has unfolded stays unfolded.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const [mine, theirs] = [[...old.childNodes], [...fresh.childNodes]];
  // A section that came or went must not make its neighbours into something else.
  const key = (node) => node.nodeName + (node.attributes?.["aria-labelledby"]?.value ?? "");
  let at = 0;
  for (const node of theirs) {
    while (at < mine.length && key(mine[at]) !== key(node) && !theirs.some((other) => key(other) === key(mine[at]))) {
      mine[at++].remove();
    }
    if (at < mine.length && key(mine[at]) === key(node)) morph(mine[at++], node);
    else old.insertBefore(document.importNode(node, true), mine[at] ?? null);
  }
  mine.slice(at).forEach((node) => node.remove());
}

function show(fresh) {
  // Another program answers: its script and style may be others.
  if (fresh.documentElement.dataset.build !== document.documentElement.dataset.build) {
    location.reload();
    return;
  }
  morph(document.querySelector("main"), fresh.querySelector("main"));
  morph(document.querySelector("header"), fresh.querySelector("header"));
  document.title = fresh.title;
  document.querySelector("link[rel=icon]").href = fresh.querySelector("link[rel=icon]").href;
  answered = new Date();
  connection.hidden = true;
  document.body.classList.remove("lost");
}

function lost(error) {
  const reason = error.name === "TimeoutError" || error.name === "TypeError" ? "does not answer" : error.message;
  const text = `tidegate ${reason}. What stands below is as of ${answered.toLocaleTimeString()}.`;
  if (connection.textContent !== text) connection.textContent = text;
  connection.hidden = false;
  document.body.classList.add("lost");
}

async function refresh() {
  try {
    const response = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(period) });
    if (!response.ok) throw new Error(`answers with HTTP ${response.status}`);
    show(parse(await response.text()));
  } catch (error) {
    lost(error);
  }
}

// The browser opens a stream that ended anew by itself, but not one that was refused. Where none brings events for a
// while, the page is fetched.
function follow() {
  let source;
  const open = () => {
    source = new EventSource("/events");
    source.addEventListener("page", ({ data }) => show(parse(data)));
  };
  const look = async () => {
    if (document.hidden || new Date() - answered < period) return;
    await refresh();
    if (source.readyState === EventSource.CLOSED && connection.hidden) open();
  };
  document.addEventListener("visibilitychange", () => {
    // A tab that nobody sees takes nobody's place. Whoever comes back to it sees what is, not what was.
    source.close();
    if (document.hidden) return;
    refresh();
    open();
  });
  setInterval(look, period / 2);
  open();
}

async function explain(event) {
  event.preventDefault();
  const form = event.target;
  const place = document.getElementById("explanation");
  try {
    const words = new URLSearchParams(new FormData(form));
    const response = await fetch(`${form.getAttribute("action")}?${words}`, { cache: "no-store" });
    const fresh = parse(await response.text()).getElementById("explanation");
    if (!fresh) throw new Error(`tidegate answers with HTTP ${response.status}`);
    place.replaceChildren(...document.importNode(fresh, true).childNodes);
  } catch (error) {
    place.textContent = error.name === "TypeError" ? "tidegate does not answer" : error.message;
  }
}

if (document.documentElement.dataset.build) {
  document.querySelectorAll("[data-scripted]").forEach((part) => (part.hidden = false));
  document.querySelector("form.explain").addEventListener("submit", explain);
  follow();
}
