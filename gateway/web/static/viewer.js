// The viewer's keys, wheel and quiet changes of picture. Without it every link and form of the page does the same, slower.
// The picture changes at once; what stands beside it comes from the page itself as soon as nobody steps on, so that a mark
// or a warning is never that of another picture: until then it is hidden.
"use strict";

(() => {
  const viewer = document.querySelector("[data-viewer]");
  if (!viewer) return;
  const $ = (selector, under = document) => under.querySelector(selector);
  const all = (selector, under = document) => [...under.querySelectorAll(selector)];
  const SETTLED_MS = 180;
  const AHEAD = [1, -1, 2, -2];

  // every frame of every image is a step; images are kept, not steps: a header may claim as many as it likes
  let count = 0;
  const images = viewer.dataset.pictures.split(",").filter(Boolean).map((one) => {
    const [id, frames] = one.split(":");
    const first = count;
    count += Number(frames);
    return { id, first };
  });
  const firstOf = new Map(images.map((image) => [image.id, image.first]));
  const stepAt = (n) => {
    if (n < 0 || n >= count) return null;
    let low = 0;
    let high = images.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (images[middle].first <= n) low = middle;
      else high = middle - 1;
    }
    return `${images[low].id}/${n - images[low].first + 1}`;
  };
  const indexOf = (step) => {
    const [id, frame] = step.split("/");
    return firstOf.has(id) ? firstOf.get(id) + Number(frame) - 1 : -1;
  };
  const stepOf = (address) => {
    const url = new URL(address, location.href);
    return `${url.pathname.split("/").pop()}/${url.searchParams.get("frame") || 1}`;
  };
  let at = indexOf(stepOf(location.href));
  let loading = null;
  let pending = null; // the address that is on its way: what comes next builds on it, not on the page that still stands
  const heading = () => new URL(pending || location.href);
  let settling = 0;
  let retry = 0;
  const stage = $("[data-stage]");
  const picture = () => $("[data-picture]", stage);
  const said = $("[data-said]");
  const say = (words) => { said.textContent = words; said.hidden = !words; };

  const pageOf = (step) => {
    const url = heading();
    const [id, frame] = step.split("/");
    url.pathname = decodeURI(viewer.dataset.pages) + id;
    url.searchParams.set("frame", frame);
    return url.href;
  };
  const servedOf = (step) => {
    const [id, frame] = step.split("/");
    return `${viewer.dataset.served}${id}/frames/${frame}/rendered${new URL(picture().src).search}`;
  };

  function put(src) {
    const shown = picture();
    if (!shown || shown.getAttribute("src") === src) return;
    clearTimeout(retry);
    say("");
    shown.classList.add("waits");
    shown.src = src;
  }

  // what the page at an address says, in place of what stands here
  async function settle(address) {
    loading?.abort();
    const mine = new AbortController();
    loading = mine;
    pending = address;
    let answer;
    try {
      answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store", credentials: "same-origin", signal: mine.signal });
    } catch { if (!mine.signal.aborted) pending = null; return; }
    if (answer.redirected && !answer.url.includes("/instances/")) { location.reload(); return; }
    if (!answer.ok) { location.assign(address); return; }
    let told;
    try { told = await answer.text(); } catch { if (!mine.signal.aborted) pending = null; return; }
    if (mine.signal.aborted) return;
    const fresh = new DOMParser().parseFromString(told, "text/html");
    const stageThen = $("[data-stage]", fresh);
    if (!stageThen) { location.assign(address); return; }
    history.replaceState(null, "", answer.url);
    pending = null;
    const focused = document.activeElement?.closest("[data-part]");
    const key = document.activeElement?.dataset?.key || document.activeElement?.dataset?.step;
    for (const part of all("[data-part]")) {
      const then = $(`[data-part="${part.dataset.part}"]`, fresh);
      if (then) part.replaceChildren(...then.childNodes);
    }
    if (focused && key) $(`[data-key="${key}"], [data-step="${key}"]`, focused)?.focus();
    const shownThen = $("[data-picture]", stageThen);
    stage.classList.toggle("full", stageThen.classList.contains("full"));
    if (!shownThen || !picture()) $("[data-frame]", stage).replaceChildren(...$("[data-frame]", stageThen).childNodes);
    else { put(shownThen.getAttribute("src")); picture().alt = shownThen.alt; }
    watch();
    at = indexOf(stepOf(location.href));
    viewer.classList.remove("stale");
    rule();
    lookAhead();
  }

  function lookAhead() {
    for (const by of AHEAD) if (picture() && at >= 0 && stepAt(at + by)) new Image().src = servedOf(stepAt(at + by));
  }

  function step(to) {
    const next = Math.min(Math.max(to, 0), count - 1);
    if (at < 0 || next === at) return;
    at = next;
    viewer.classList.add("stale");
    if (picture()) put(servedOf(stepAt(at)));
    const number = $("[data-at]");
    if (number) number.textContent = at + 1;
    const address = pageOf(stepAt(at));
    pending = address;
    loading?.abort();
    clearTimeout(settling);
    settling = setTimeout(() => settle(address), SETTLED_MS);
  }

  // what a link changes, changed on the way there; a key that switches switches back what is not there yet
  function go(link, isKey) {
    const { go: what, step: name } = link.dataset;
    if (what === "step") { step({ first: 0, previous: at - 1, next: at + 1, last: count - 1 }[name]); return; }
    const url = heading();
    const then = new URL(link.href).searchParams;
    const put = (key, value) => { if (value === null) url.searchParams.delete(key); else url.searchParams.set(key, value); };
    if (what === "window") { put("preset", then.get("preset")); put("window", then.get("window")); }
    else if (what === "invert") put("invert", url.searchParams.get("invert") ? null : "true");
    else put("size", isKey ? (url.searchParams.get("size") ? null : "full") : then.get("size"));
    clearTimeout(settling);
    settle(url.href);
  }

  // ---- a picture that does not come says why; one that had to wait comes by itself
  async function failed() {
    const shown = picture();
    stage.classList.add("nothing");
    const src = shown.src;
    try {
      const answer = await fetch(src, { credentials: "same-origin" });
      if (picture()?.src !== src) return;
      if (answer.ok) {
        if (shown.dataset.again === src) { say(viewer.dataset.failed); return; }
        shown.dataset.again = src; // the connection broke off, once
        shown.src = "";
        shown.src = src;
        return;
      }
      if (answer.status === 401) { location.reload(); return; }
      if (answer.status === 503) {
        say(viewer.dataset.busy);
        retry = setTimeout(() => { shown.src = ""; shown.src = src; }, 1000 * Number(answer.headers.get("Retry-After") || 2));
        return;
      }
      say((await answer.json()).detail || viewer.dataset.failed);
    } catch { say(viewer.dataset.failed); }
  }
  function watch() {
    const shown = picture();
    if (!shown || shown.dataset.watched) return;
    shown.dataset.watched = "yes";
    shown.addEventListener("load", () => { say(""); shown.classList.remove("waits"); stage.classList.remove("nothing"); rule(); });
    shown.addEventListener("error", () => { shown.classList.remove("waits"); failed(); });
    if (shown.complete && !shown.naturalWidth) failed();
  }

  // ---- which way the picture faces stands at its own edges, or the stage's where it goes beyond
  function edge() {
    const shown = picture();
    if (!shown?.naturalWidth) return;
    const outer = stage.getBoundingClientRect();
    const box = shown.getBoundingClientRect();
    const scale = stage.classList.contains("full") ? 1 : Math.min(box.width / shown.naturalWidth, box.height / shown.naturalHeight);
    const [width, height] = [shown.naturalWidth * scale, shown.naturalHeight * scale];
    const left = box.left - outer.left + (box.width - width) / 2;
    const top = box.top - outer.top + (box.height - height) / 2;
    const marks = $('[data-part="marks"]');
    for (const [name, past] of [["l", left], ["t", top], ["r", outer.width - left - width], ["b", outer.height - top - height]]) {
      marks.style.setProperty(`--${name}`, `${Math.max(0, past)}px`);
    }
  }

  // ---- a ruler of whole centimetres, as long as they are on the picture
  function rule() {
    edge();
    const ruler = $("[data-ruler]");
    const shown = picture();
    if (!ruler || !shown?.naturalWidth) return;
    const full = stage.classList.contains("full");
    const scale = full ? 1 : Math.min(shown.clientWidth / shown.naturalWidth, shown.clientHeight / shown.naturalHeight);
    const perMm = (shown.naturalWidth * scale) / Number(ruler.dataset.ruler);
    const cm = [10, 5, 2, 1].find((one) => one * 10 * perMm <= stage.clientWidth / 3);
    ruler.hidden = !cm;
    if (!cm) return;
    ruler.style.width = `${cm * 10 * perMm}px`;
    ruler.textContent = `${cm} cm`;
  }
  window.addEventListener("resize", rule);
  $("[data-frame]", stage).addEventListener("scroll", edge);

  // ---- keys, wheel, links
  const isTyping = () => document.activeElement?.matches("input, textarea, select");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      if (isTyping()) document.activeElement.blur();
      else location.assign(decodeURI(viewer.dataset.pages).replace(/\/instances\/$/, ""));
      return;
    }
    if (isTyping()) return;
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (by) step(at + by);
    else if (event.key === "Home") step(0);
    else if (event.key === "End") step(count - 1);
    else {
      const link = $(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
      if (!link) return;
      go(link, true);
    }
    event.preventDefault();
  });
  let rolled = 0;
  stage.addEventListener("wheel", (event) => {
    if (event.ctrlKey || count < 2 || stage.classList.contains("full")) return;
    event.preventDefault();
    rolled += event.deltaMode ? event.deltaY * 40 : event.deltaY;
    const by = Math.trunc(rolled / 60);
    if (by) { rolled -= by * 60; step(at + Math.sign(by)); }
  }, { passive: false });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-go]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(link, false);
  });

  for (const help of all("[data-help]")) help.hidden = false;
  watch();
  if (picture()?.complete) rule();
  lookAhead();
})();
