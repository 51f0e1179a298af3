"use strict";
// Keeps the page live: each event has the content of <main>, and what differs is replaced in place. Nothing else moves, and the focus stays.
const connection = document.getElementById("connection");
const policy = window.trustedTypes
  ? window.trustedTypes.createPolicy("authgate", { createHTML: (html) => html })
  : { createHTML: (html) => html };

function show(state, text) {
  if (connection.textContent !== text) connection.textContent = text;
  connection.className = `connection ${state}`;
}

function sync(from, to) {
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  for (const { name } of [...from.attributes]) {
    // Whether a list is folded is the reader's choice.
    if (name !== "open" && !to.hasAttribute(name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  const wanted = [...to.childNodes];
  wanted.forEach((child, at) => {
    const present = from.childNodes[at];
    if (!present) from.append(document.importNode(child, true));
    else if (present.nodeName !== child.nodeName) present.replaceWith(document.importNode(child, true));
    else sync(present, child);
  });
  while (from.childNodes.length > wanted.length) from.lastChild.remove();
}

function update(html) {
  const page = document.getElementById("live");
  const next = new DOMParser().parseFromString(policy.createHTML(html), "text/html").getElementById("live");
  if (next.dataset.build !== page.dataset.build) return location.reload(); // The gateway is another version now.
  sync(page, next);
  if (document.title !== next.dataset.title) document.title = next.dataset.title;
  const icon = document.getElementById("icon");
  if (icon.getAttribute("href") !== next.dataset.icon) icon.href = next.dataset.icon;
}

function follow() {
  const events = new EventSource("/status/events");
  events.onmessage = (event) => {
    update(event.data);
    show("live", "Live");
  };
  events.onerror = () => {
    show("lost", "Connection lost. The numbers are old.");
    if (events.readyState !== EventSource.CLOSED) return; // The browser connects again.
    events.close();
    setTimeout(follow, 5000);
  };
}

show("", "");
follow();
