"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  let state = null;
  let busy = false;
  const images = new Map(); // Of this image and the next: number -> promise of {url} or {problem}.

  const read = (number) => {
    if (!images.has(number)) {
      images.set(number, fetch("image/" + number).then(async (answer) =>
        answer.ok ? { url: URL.createObjectURL(await answer.blob()) } : { problem: await answer.text() },
      ).catch((error) => ({ problem: "the server does not answer: " + error.message })));
    }
    return images.get(number);
  };

  const forget = (kept) => {
    for (const [number, found] of images) {
      if (kept.includes(number)) continue;
      images.delete(number);
      found.then(({ url }) => url && URL.revokeObjectURL(url));
    }
  };

  const tell = (text, bad) => {
    $("status").textContent = text;
    $("status").classList.toggle("bad", Boolean(bad));
    clearTimeout(tell.timer);
    tell.timer = setTimeout(() => ($("status").textContent = ""), bad ? 8000 : 1600);
  };

  const percent = (score) => (100 * score).toFixed(1) + "\u00a0%";

  const button = ({ key, label }, ranking) => {
    const known = ranking.find((item) => item.label === label);
    const item = document.createElement("li");
    const element = document.createElement("button");
    element.type = "button";
    element.classList.toggle("best", ranking.length > 0 && ranking[0].label === label);
    const parts = [["kbd", key], ["span", label], ["span", known ? percent(known.score) : ""]];
    for (const [tag, text] of parts) element.append(Object.assign(document.createElement(tag), { textContent: text }));
    element.lastChild.className = "score";
    if (known) element.style.setProperty("--score", 100 * known.score + "%");
    element.addEventListener("click", () => decide(label));
    item.append(element);
    return item;
  };

  const show = async () => {
    const { image } = state;
    document.body.classList.toggle("over", !image);
    $("end").hidden = Boolean(image);
    $("count").textContent = state.done.toLocaleString("en") + " of " + state.total.toLocaleString("en") + " done";
    $("progress").max = state.total;
    $("progress").value = state.done;
    $("undo").disabled = $("undo-last").disabled = !state.undo;
    if (!image) return;
    const [first, second] = image.ranking;
    $("says").textContent = !state.labels.length
      ? "No label yet: type the first one. Keys 1 to 9 then stand for the labels."
      : first
      ? "The model says " + first.label + " (" + percent(first.score) + ")" + (second ? ", or " + second.label + " (" + percent(second.score) + ")." : ".")
      : "";
    $("name").textContent = image.uri;
    $("labels").replaceChildren(...state.labels.map((label) => button(label, image.ranking)));
    $("known").replaceChildren(...state.labels.map(({ label }) => Object.assign(document.createElement("option"), { value: label })));
    forget([image.number, state.next]);
    $("frame").ariaBusy = "true";
    const found = await read(image.number);
    if (state.image !== image) return;
    $("image").hidden = !found.url;
    $("problem").hidden = Boolean(found.url);
    $("problem").textContent = found.problem || "";
    if (found.url) $("image").src = found.url;
    $("image").alt = image.uri;
    $("frame").ariaBusy = "false";
    if (!state.labels.length) $("text").focus();
    if (state.next !== null) read(state.next);
  };

  const send = async (action, body, said) => {
    if (busy || !state) return;
    busy = true;
    try {
      const answer = await fetch(action, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
      const found = await answer.json();
      if (!answer.ok) return tell(found.error, true);
      state = found;
      tell(said);
      show();
    } catch (error) {
      tell("Not saved: the server does not answer (" + error.message + ")", true);
    } finally {
      busy = false;
    }
  };

  // A key too early would label an image that was not seen yet.
  const seen = () => {
    if (state?.image && !busy && $("frame").ariaBusy === "false") return true;
    if (state?.image) tell("The image is not there yet");
    return false;
  };
  const decide = (label) => seen() && send("decide", { number: state.image.number, label }, label || "Left out of training");
  const skip = () => state?.image && send("skip", { number: state.image.number }, "Skipped");
  const undo = () => state?.undo && send("undo", {}, "Undone");

  $("skip").addEventListener("click", skip);
  $("undo").addEventListener("click", undo);
  $("undo-last").addEventListener("click", undo);
  $("out").addEventListener("click", () => decide(""));
  // A slip of the hand would be a label of its own for good.
  let asked = null;
  const ask = (label) => {
    asked = label;
    $("confirm").textContent = label ? "\u201c" + label + "\u201d is a new label. Enter again adds it; Escape takes it back." : "";
  };
  $("text").addEventListener("input", () => ask(null));
  $("new").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = $("text").value.trim();
    const isKnown = state?.labels.some((known) => known.label === label);
    if (label && !isKnown && asked !== label) return ask(label);
    if (label && !decide(label)) return;
    ask(null);
    $("text").value = "";
    $("text").blur();
  });

  addEventListener("keydown", (event) => {
    if (event.target === $("text")) {
      if (event.key === "Escape") {
        $("text").value = "";
        ask(null);
        $("text").blur();
      }
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !state) return;
    const onButton = event.target.closest("button") && (event.key === "Enter" || event.key === " ");
    if (onButton) return;
    const keys = {
      [$("skip").textContent.trim()[0]]: skip,
      [$("undo").textContent.trim()[0]]: undo,
      [$("out").textContent.trim()[0]]: () => decide(""),
      Enter: () => state.image?.ranking.length && decide(state.image.ranking[0].label),
      n: () => $("text").focus(),
      "/": () => $("text").focus(),
    };
    for (const { key, label } of state.labels) if (key) keys[key] = () => decide(label);
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  fetch("state").then((answer) => answer.json()).then((found) => {
    state = found;
    return show();
  }).catch((error) => tell("The server does not answer: " + error.message, true));
})();
