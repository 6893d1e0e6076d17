// Nothing here is needed to read, edit or sign. It keeps the worklist and the study's state up to date, gives keys to the
// worklist, and warns before unsaved words are left behind. No words of a patient are kept here.
"use strict";

const BACKGROUND = { "X-Countersign-Background": "1" }; // says that no person asked: keeps no session alive
const EVERY_MS = 3000;
const REACHED = "a[href], button, summary, [tabindex]"; // what the focus can be on in a list
const $ = (selector, under = document) => under.querySelector(selector);
const all = (selector, under = document) => [...under.querySelectorAll(selector)];

async function ask(address, tag) {
  const headers = tag ? { ...BACKGROUND, "If-None-Match": tag, Accept: "text/html" } : { ...BACKGROUND, Accept: "text/html" };
  return fetch(address, { headers, cache: "no-store", credentials: "same-origin", redirect: "manual" });
}

const isTyping = () => {
  const at = document.activeElement;
  return Boolean(at && at.matches("input:not([type=hidden]), textarea, select"));
};

// ---- times: in the browser's own zone, with its offset where UTC stood; the title keeps UTC
const two = (number) => String(number).padStart(2, "0");
const zoneAt = (at) => {
  const east = -at.getTimezoneOffset();
  return `UTC${east < 0 ? "−" : "+"}${two(Math.floor(Math.abs(east) / 60))}:${two(Math.abs(east) % 60)}`;
};
function localise(under = document) {
  const days = /\d{4}-\d\d-\d\d/;
  for (const time of all("time[datetime]:not([data-since])", under)) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime()) || !at.getTimezoneOffset()) continue;
    const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    const words = document.createTreeWalker(time, NodeFilter.SHOW_TEXT);
    while (words.nextNode()) {
      words.currentNode.data = words.currentNode.data
        .replace(days, day)
        .replace(/\d\d:\d\d(:\d\d)?/, (_, seconds) => `${two(at.getHours())}:${two(at.getMinutes())}${seconds ? `:${two(at.getSeconds())}` : ""}`)
        .replace("UTC", zoneAt(at));
    }
  }
  const now = new Date();
  if (now.getTimezoneOffset()) for (const zone of all("[data-zone]", under)) zone.textContent = zoneAt(now);
}
localise();

// ---- the worklist: rows change in place; the focused study stays focused, the page never scrolls or loads anew
const live = $("[data-live]");
if (live) {
  let tag = live.dataset.tag;
  const [minutes, hours, days] = live.dataset.units.split(",");
  const waits = () => {
    for (const time of all("time[data-since]")) {
      const past = Math.max(0, Math.floor((Date.now() - Date.parse(time.dateTime)) / 60000));
      const [d, h, m] = [Math.floor(past / 1440), Math.floor(past / 60), past % 60];
      time.textContent = d ? `${d} ${days} ${h % 24} ${hours}` : h ? `${h} ${hours} ${m} ${minutes}` : `${m} ${minutes}`;
    }
  };
  const say = (words) => { if (live.textContent !== words) live.textContent = words; };
  const put = (html) => {
    const fresh = $("#rows", new DOMParser().parseFromString(html, "text/html"));
    if (!fresh) return;
    const rows = $("#rows");
    const at = rows.contains(document.activeElement) ? document.activeElement : null;
    const row = at && at.closest("tr[id]");
    const place = row ? all("tr[id]", rows).indexOf(row) : -1;
    const inRow = row ? all(REACHED, row).indexOf(at) : -1;
    const inAll = at ? all(REACHED, rows).indexOf(at) : -1;
    localise(fresh);
    rows.replaceChildren(...fresh.childNodes);
    if (row) {
      const same = document.getElementById(row.id) || all("tr[id]", rows)[Math.min(place, all("tr[id]", rows).length - 1)];
      if (same) (all(REACHED, same)[inRow] || $("a", same))?.focus({ preventScroll: true });
    } else if (at) all(REACHED, rows)[inAll]?.focus({ preventScroll: true });
  };
  const look = async () => {
    if (document.visibilityState !== "visible") return;
    try {
      const answer = await ask(live.dataset.live, tag);
      if (answer.type === "opaqueredirect" || answer.status === 401) { if (!isTyping()) location.reload(); return; }
      say(answer.ok || answer.status === 304 ? live.dataset.reached : live.dataset.away);
      if (answer.status === 200) {
        put(await answer.text());
        tag = answer.headers.get("ETag");
      }
    } catch { say(live.dataset.away); }
    waits();
  };
  look();
  setInterval(look, EVERY_MS);
}

// ---- keys and whole rows to click on
const keys = $("[data-keys]");
if (keys) {
  keys.hidden = false;
  const links = () => all("table.worklist tbody th a");
  const step = (by) => {
    const known = links();
    const row = document.activeElement && document.activeElement.closest("tr");
    const at = row ? known.findIndex((link) => row.contains(link)) : -1;
    const next = known[Math.min(Math.max(at + by, 0), known.length - 1)];
    if (next) { next.focus(); next.closest("tr").scrollIntoView({ block: "nearest" }); }
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { if (isTyping()) document.activeElement.blur(); keys.open = false; return; }
    if (isTyping() || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") { const field = $("[data-search]"); if (!field) return; field.focus(); field.select(); }
    else if (event.key === "?") { keys.open = !keys.open; if (keys.open) $("summary", keys).focus(); }
    else if (/^[1-6]$/.test(event.key)) { const tab = $(`[data-tab="${event.key}"]`); if (!tab) return; tab.click(); }
    else return;
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const row = event.target.closest("table.worklist tbody tr");
    if (!row || event.target.closest("a, button") || String(getSelection())) return;
    $("th a", row)?.click();
  });
}

// ---- a menu closes when somebody looks elsewhere
for (const menu of all("[data-menu], [data-keys]")) {
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  menu.addEventListener("keydown", (event) => { if (event.key === "Escape") { menu.open = false; $("summary", menu).focus(); } });
}

// ---- the editor: unsaved words are said, and not left behind without a question
const editor = $("form[data-unsaved]");
const isChanged = () => Boolean(editor) && $("textarea", editor).value !== $("textarea", editor).defaultValue;
if (editor) {
  const field = $("textarea", editor);
  const note = $("[data-saving]", editor);
  let leaving = false;
  field.addEventListener("input", () => { note.textContent = isChanged() ? note.dataset.saving : ""; });
  editor.addEventListener("submit", () => { leaving = true; });
  window.addEventListener("beforeunload", (event) => { if (!leaving && isChanged()) event.preventDefault(); });
  window.addEventListener("pageshow", () => { leaving = false; });
  field.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey)) return;
    if (event.key === "s") { event.preventDefault(); editor.requestSubmit($("button[value=stay]", editor)); }
    if (event.key === "Enter") { event.preventDefault(); editor.requestSubmit($("[data-sign]", editor) || $("button[value=stay]", editor)); }
  });
}

// ---- a study: when something moved, say so; load anew only where nobody has anything open
const watched = $("[data-watch]");
if (watched) {
  const moved = $("[data-moved]", watched);
  const look = async () => {
    if (document.visibilityState !== "visible" || !moved.hidden) return;
    try {
      const answer = await ask(watched.dataset.watch, watched.dataset.tag);
      if (answer.status !== 204) return;
      const isOpen = isTyping() || isChanged() || $("form :focus");
      if ("reload" in watched.dataset && !isOpen) location.reload();
      else moved.hidden = false;
    } catch { /* the next look may reach the server again */ }
  };
  setInterval(look, EVERY_MS);
}

for (const button of all("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => window.print());
}
