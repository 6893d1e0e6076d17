// Nothing here is needed: the worklist looks for news by itself, and an editor warns before unsaved words are left behind.
"use strict";

const live = document.querySelector("[data-live]");
if (live) {
  let tag = null;
  const look = async () => {
    if (document.visibilityState !== "visible") return;
    try {
      const headers = { "X-Countersign-Background": "1" };
      if (tag) headers["If-None-Match"] = tag;
      const answer = await fetch(live.dataset.live, { headers, cache: "no-store", credentials: "same-origin" });
      if (answer.status === 401) { location.reload(); return; }
      live.textContent = answer.ok || answer.status === 304 ? "live" : "not reached";
      if (answer.status !== 200) return;
      const former = tag;
      tag = answer.headers.get("ETag");
      const typing = document.activeElement && document.activeElement.closest(".filters");
      if (former && former !== tag && !typing) location.reload();
    } catch { live.textContent = "not reached"; }
  };
  look();
  setInterval(look, 3000);
}

const editor = document.querySelector("form[data-unsaved]");
if (editor) {
  const field = editor.querySelector("textarea");
  let leaving = false;
  editor.addEventListener("submit", () => { leaving = true; });
  window.addEventListener("beforeunload", (event) => {
    if (!leaving && field.value !== field.defaultValue) event.preventDefault();
  });
}
