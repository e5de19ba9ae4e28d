// Keeps the status page up to date: fetches it every few seconds, and puts what has changed into place, so that focus,
// selection, scroll position and screen readers stay where they are.
"use strict";

const period = Number(document.currentScript.dataset.refresh) * 1000;
const connection = document.getElementById("connection");
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
  for (const { name } of [...old.attributes]) {
    // What somebody has unfolded stays unfolded.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const [mine, theirs] = [[...old.childNodes], [...fresh.childNodes]];
  theirs.forEach((node, at) => {
    if (at < mine.length) morph(mine[at], node);
    else old.append(document.importNode(node, true));
  });
  mine.slice(theirs.length).forEach((node) => node.remove());
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
    show(new DOMParser().parseFromString(await response.text(), "text/html"));
  } catch (error) {
    lost(error);
  }
}

async function run() {
  for (;;) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, period);
      // Whoever comes back to the tab sees what is, not what was.
      document.addEventListener("visibilitychange", () => (clearTimeout(timer), resolve()), { once: true });
    });
    if (!document.hidden) await refresh();
  }
}

run();
