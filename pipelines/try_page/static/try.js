"use strict";

// The image in base64, and how many images were chosen: answers about an earlier one are dropped.
let image = null;
let chosen = 0;
const find = (selector, within = document) => within.querySelector(selector);
const panels = [...document.querySelectorAll(".panel")];

async function ask(number, values) {
  let reply;
  try {
    reply = await fetch(`/panels/${number}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ image, ...values }),
    });
    return await reply.json();
  } catch {
    return { error: "the server does not answer; is beit3 try still running?" };
  }
}

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function table(rows) {
  const made = document.createElement("table");
  for (const { label, score } of rows) {
    const row = made.insertRow();
    row.insertCell().textContent = label;
    const meter = document.createElement("meter");
    meter.value = Math.max(0, Math.min(1, score));
    row.insertCell().append(meter);
    row.insertCell().textContent = score.toFixed(3);
  }
  return made;
}

function show(panel, answer) {
  const result = find(".result", panel);
  result.replaceChildren();
  if (answer.error) result.append(element("p", answer.error, "error"));
  if (answer.caption !== undefined) result.append(element("p", answer.caption, "caption"));
  if (answer.drawn) {
    const drawn = element("img", "", "drawn");
    drawn.alt = `the image with what ${find("h2 small", panel).textContent} found`;
    drawn.src = answer.drawn;
    result.append(drawn);
  }
  if (answer.rows) result.append(table(answer.rows));
  if (answer.note) result.append(element("p", answer.note, "wait"));
  for (const mask of answer.masks ?? []) {
    const columns = element("div", "", "columns");
    for (const { title, rows } of mask) {
      const column = element("div", "");
      column.append(element("h3", title), table(rows));
      columns.append(column);
    }
    result.append(columns);
  }
  for (const name of ["without_text", "with_text"]) {
    const drawn = find(`img.${name}`, panel);
    if (!drawn) continue;
    drawn.hidden = !answer[name];
    if (answer[name]) drawn.src = answer[name];
  }
  if (answer.view) find(".grid", panel).style.backgroundImage = `url("${answer.view}")`;
  if (answer.patches) mark(find(".grid", panel), answer.patches);
}

async function run(panel, values = {}) {
  const about = chosen;
  find(".result", panel).replaceChildren(element("p", "…", "wait"));
  const buttons = panel.querySelectorAll("button");
  buttons.forEach((button) => (button.disabled = true));
  const answer = await ask(Number(panel.dataset.number), values);
  buttons.forEach((button) => (button.disabled = false));
  if (about === chosen) show(panel, answer);
}

function mark(grid, patches) {
  const off = new Set(patches);
  [...grid.children].forEach((patch, i) => patch.classList.toggle("off", off.has(i)));
}

function marked(grid) {
  return [...grid.children].flatMap((patch, i) => (patch.classList.contains("off") ? [i] : []));
}

for (const panel of panels) {
  const form = find("form", panel);
  const grid = find(".grid", panel);
  if (grid) {
    const side = Number(grid.dataset.side);
    grid.style.gridTemplateColumns = `repeat(${side}, 1fr)`;
    for (let i = 0; i < side * side; i++) grid.append(document.createElement("i"));
    let paints = null;
    const paint = (event) => {
      const patch = document.elementFromPoint(event.clientX, event.clientY);
      if (patch?.parentElement !== grid) return;
      paints ??= !patch.classList.contains("off");
      patch.classList.toggle("off", paints);
    };
    grid.addEventListener("pointerdown", (event) => { paints = null; paint(event); grid.dataset.on = "yes"; });
    grid.addEventListener("pointermove", (event) => grid.dataset.on && paint(event));
    addEventListener("pointerup", () => delete grid.dataset.on);
  }
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    if (grid) {
      values.patches = marked(grid);
      if (event.submitter?.name === "draw") values.seed = Math.floor(Math.random() * 2 ** 31);
    }
    run(panel, values);
  });
}

async function choose(file) {
  const about = ++chosen;
  const status = find("#about");
  image = null;
  find("#view").hidden = true;
  find("#invite").hidden = false;
  status.className = "";
  status.textContent = "…";
  panels.forEach((panel) => show(panel, {}));
  const fail = (words) => {
    status.className = "error";
    status.textContent = words;
  };
  const limit = Number(document.body.dataset.maxBytes);
  if (file.size > limit) {
    fail(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MiB; at most ${Math.floor(limit / 2 ** 20)} are taken`);
    return;
  }
  const read = await new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => done(null);
    reader.readAsDataURL(file);
  });
  if (about !== chosen) return;
  image = read;
  const answer = read ? await ask(0, {}) : { error: `${file.name} is empty or cannot be read` };
  if (about !== chosen) return;
  if (answer.error) {
    image = null;
    fail(`${file.name}: ${answer.error}`);
    return;
  }
  find("#view").src = answer.image;
  find("#view").alt = file.name;
  find("#view").hidden = false;
  find("#invite").hidden = true;
  status.textContent = `${file.name}, ${answer.size}`;
  for (const panel of panels) {
    if (about !== chosen) return;
    const text = find("[name=text]", panel)?.value;
    const least = find("[name=least]", panel);
    const { kind } = panel.dataset;
    if (["caption", "classes", "pixels"].includes(kind)) await run(panel);
    else if (least) await run(panel, { least: least.value });
    else if (kind === "patches") await run(panel, { text, seed: 0 });
    else if (text && kind !== "text_classes") await run(panel, { text });
  }
}

const drop = find("#drop");
find("#file").addEventListener("change", (event) => {
  if (event.target.files.length) choose(event.target.files[0]);
  event.target.value = "";
});
for (const name of ["dragenter", "dragover"])
  addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const name of ["dragleave", "drop"])
  addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
addEventListener("drop", (event) => {
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
});
