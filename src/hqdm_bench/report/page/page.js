"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const svgNode = (name, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const fill = (select, options) => {
  const wanted = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => String(value) === wanted)) select.value = wanted;
};

// ---- Tables: ascending, descending, as it was ----

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.querySelectorAll("th[data-column]")];
  const order = { none: "ascending", ascending: "descending", descending: "none" };
  const collator = new Intl.Collator("en", { numeric: true });
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
  // What is not there, a blank or the paper's dash, stays below whichever way the rest is sorted.
  const absent = (value) => value === "" || value === "—";
  const sort = (head) => {
    const direction = order[head.getAttribute("aria-sort")];
    for (const other of heads) other.setAttribute("aria-sort", other === head ? direction : "none");
    table.classList.toggle("sorted", direction !== "none");
    const column = Number(head.dataset.column);
    const sign = direction === "descending" ? -1 : 1;
    const rows = original.map((row) => [key(row, column), row]);
    if (direction !== "none") {
      rows.sort(([a], [b]) => absent(a) - absent(b) || (absent(a) ? 0 : sign * compare(a, b)));
    }
    body.append(...rows.map(([, row]) => row));
  };
  for (const head of heads) head.querySelector("button").addEventListener("click", () => sort(head));
}

// ---- Claims: all, or those of one verdict ----

function claimFilter(group) {
  const buttons = [...group.querySelectorAll("button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      for (const claim of document.querySelectorAll(".claim")) {
        claim.hidden = button.dataset.verdict !== "" && claim.dataset.verdict !== button.dataset.verdict;
      }
    });
  }
}

// ---- Images: full precision and a student from the same noise ----

function comparison(root) {
  const count = Number(root.dataset.count);
  const [model, bits, method, image] = ["model", "bits", "method", "image"].map((name) => byId(`compare-${name}`));
  const divider = byId("compare-divider");
  const sheet = root.querySelector(".sheet");
  sheet.style.setProperty("--count", count);
  const ofModel = () => data.gallery.filter((sprite) => sprite.model === model.value);
  const full = () => ofModel().find((sprite) => sprite.method === "fp");
  const students = () => ofModel().filter((sprite) => sprite.method !== "fp" && sprite.bits === bits.value);
  const place = (node, sprite, number) => {
    node.className = `${node.className.replace(/\s*sprite-\d+/, "")} sprite-${sprite.id}`.trim();
    node.style.backgroundPosition = `${count > 1 ? (100 * number) / (count - 1) : 0}% 0`;
  };
  const sheetRow = (sprite, choose) => {
    const name = document.createElement("span");
    name.textContent = sprite.method === "fp" ? "Full precision" : sprite.title;
    const buttons = Array.from({ length: count }, (_, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `${name.textContent}, image ${number}`);
      button.dataset.method = sprite.method;
      button.dataset.image = number;
      place(button, sprite, number);
      button.addEventListener("click", () => choose(sprite, number));
      return button;
    });
    return [name, ...buttons];
  };
  const choose = (sprite, number) => {
    if (sprite.method !== "fp") method.value = sprite.method;
    image.value = number;
    show();
  };
  const facts = (sprite) => {
    const rows = sprite.facts.map(([name, value]) => {
      const row = document.createElement("tr");
      const head = Object.assign(document.createElement("th"), { textContent: name, scope: "row" });
      const fp = full().facts.find(([other]) => other === name);
      const cells = [fp ? fp[1] : "", value].map((text) => Object.assign(document.createElement("td"), { textContent: text }));
      row.append(head, ...cells);
      return row;
    });
    const head = document.createElement("tr");
    head.append(...["whole set", "Full precision", `${sprite.title} ${sprite.bits}`].map((text) =>
      Object.assign(document.createElement("th"), { textContent: text, scope: "col" })));
    const [top, body] = [document.createElement("thead"), document.createElement("tbody")];
    top.append(head);
    body.append(...rows);
    byId("compare-facts").replaceChildren(top, body);
  };
  const show = () => {
    const sprite = students().find((one) => one.method === method.value);
    const number = Number(image.value);
    const [under, over] = root.querySelectorAll(".picture");
    place(under, full(), number);
    place(over, sprite, number);
    under.setAttribute("aria-label", `Full precision, image ${number}`);
    over.setAttribute("aria-label", `${sprite.title} ${sprite.bits}, image ${number}`);
    root.querySelector("output.student").textContent = `${sprite.title} ${sprite.bits}`;
    for (const button of sheet.querySelectorAll("button")) {
      const same = [sprite.method, "fp"].includes(button.dataset.method);
      button.setAttribute("aria-pressed", String(same && Number(button.dataset.image) === number));
    }
    facts(sprite);
  };
  const move = () => {
    root.querySelector(".stage").style.setProperty("--at", `${divider.value}%`);
    divider.setAttribute("aria-valuetext", `${divider.value} % full precision`);
  };
  const changed = (level) => {
    if (level === "model") fill(bits, [...new Set(ofModel().map((one) => one.bits))].filter((text) => text !== full().bits).map((text) => [text, text]));
    if (level !== "method") {
      fill(method, students().map((sprite) => [sprite.method, sprite.title]));
      sheet.replaceChildren(...[full(), ...students()].flatMap((sprite) => sheetRow(sprite, choose)));
    }
    show();
  };
  model.addEventListener("change", () => changed("model"));
  bits.addEventListener("change", () => changed("bits"));
  method.addEventListener("change", () => changed("method"));
  image.addEventListener("change", show);
  divider.addEventListener("input", move);
  changed("model");
  if ([...method.options].some((option) => option.value === "hqdm")) method.value = "hqdm";
  show();
  move();
}

// ---- Outliers: channel maxima of a layer's input at a step ----

const CHART = { height: 180, left: 44, right: 8, top: 18, bottom: 20 };

function channelChart(maxima, limit, width, title, colour, read) {
  const { height, left, right, top, bottom } = CHART;
  const count = maxima.values.length;
  const x = (channel) => left + ((width - left - right) * channel) / count;
  const y = (value) => height - bottom - ((height - top - bottom) * value) / limit;
  const svg = svgNode("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, style: `--own: var(--${colour})`,
    "aria-label": `${title}: largest channel ${maxima.channel} with ${maxima.values[maxima.channel]}, median ${maxima.median}, max/median ${maxima.ratio}` });
  for (const part of [0, 0.5, 1]) {
    const value = Number((part * limit).toPrecision(2));
    svg.append(svgNode("path", { class: "grid", d: `M${left} ${y(value)}H${width - right}` }));
    svg.append(svgNode("text", { x: left - 6, y: y(value) + 3, "text-anchor": "end" }, value));
  }
  const steps = maxima.values.map((value, channel) => `V${y(value).toFixed(1)}H${x(channel + 1).toFixed(1)}`).join("");
  svg.append(svgNode("path", { class: "bars", d: `M${left} ${y(0)}${steps}V${y(0)}Z` }));
  svg.append(svgNode("path", { class: "median", d: `M${left} ${y(maxima.median)}H${width - right}` }));
  for (const channel of [0, Math.floor(count / 2), count - 1]) {
    svg.append(svgNode("text", { x: x(channel + 0.5), y: height - 6, "text-anchor": "middle" }, channel));
  }
  svg.append(svgNode("text", { class: "strong", x: left, y: 10 }, `${title}: max/median ${maxima.ratio}, largest ${maxima.values[maxima.channel]} (channel ${maxima.channel})`));
  const cursor = svgNode("path", { class: "cursor", d: "" });
  svg.append(cursor);
  let current = maxima.channel;
  const point = (channel) => {
    current = Math.max(0, Math.min(count - 1, channel));
    cursor.setAttribute("d", `M${x(current + 0.5)} ${top}V${height - bottom}`);
    read(`${title}, channel ${current}: ${maxima.values[current]}`);
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    point(Math.floor((((event.clientX - box.left) * width) / box.width - left) / (x(1) - x(0))));
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    point(current + step);
  });
  return svg;
}

function explorer(root) {
  const [layer, step] = [byId("channel-layer"), byId("channel-step")];
  const model = byId("channel-model") || { value: "0", addEventListener: () => {} };
  const buttons = [...document.querySelectorAll(".layers button")];
  const modelOf = (button) => button.closest("table").dataset.model;
  const record = () => data.channels[Number(model.value)];
  const read = (text) => { byId("channel-readout").textContent = text; };
  const show = () => {
    const chosen = record().layers[Number(layer.value)];
    const [index, time] = record().steps[Number(step.value)];
    const [before, after] = chosen.steps[Number(step.value)];
    const width = Math.max(300, root.clientWidth);
    const limit = 1.05 * Math.max(...before.values, ...after.values, 1e-12);
    const parts = chosen.name.split(".").flatMap((part, place) => (place ? [document.createElement("wbr"), `.${part}`] : [part]));
    byId("channel-title").replaceChildren(...parts, `, step ${index} (t = ${time})`);
    byId("channel-before").replaceChildren(channelChart(before, limit, width, "Before", "before", read));
    byId("channel-after").replaceChildren(channelChart(after, limit, width, "After", "after", read));
    read("Point at a channel, or use the arrow keys, to read its value. Dashed: median.");
    for (const button of buttons) {
      const same = modelOf(button) === model.value && button.dataset.layer === layer.value && button.dataset.step === step.value;
      button.setAttribute("aria-pressed", String(same));
    }
  };
  const renew = () => {
    fill(layer, record().layers.map((one, place) => [place, one.name]));
    fill(step, record().steps.map(([index, time], place) => [place, `${index} (t = ${time})`]));
    show();
  };
  const strongest = () => {
    const strength = ([place, step]) => Number(record().layers[place].steps[step][0].ratio) || Infinity;
    const places = record().layers.flatMap((one, place) => one.steps.map((_, at) => [place, at]));
    return places.reduce((best, other) => (strength(other) > strength(best) ? other : best));
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      if (model.value !== modelOf(button)) { model.value = modelOf(button); renew(); }
      layer.value = button.dataset.layer;
      step.value = button.dataset.step;
      show();
    });
  }
  model.addEventListener("change", renew);
  layer.addEventListener("change", show);
  step.addEventListener("change", show);
  new ResizeObserver(show).observe(root);
  renew();
  [layer.value, step.value] = strongest();
  show();
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".filter").forEach(claimFilter);
document.querySelectorAll(".compare").forEach(comparison);
document.querySelectorAll(".explorer").forEach(explorer);
