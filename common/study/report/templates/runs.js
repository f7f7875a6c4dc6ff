"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const controls = document.getElementById("controls"), charts = document.getElementById("charts");
  const reading = document.getElementById("reading"), status = document.getElementById("status");
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip"; tip.hidden = true; tip.setAttribute("aria-hidden", "true");
  let state, panels = [];

  // The same rule as the report's: three significant digits, a true minus sign.
  function number(value) {
    if (value === 0) return "0";
    const size = Math.abs(value), sign = value < 0 ? "\u2212" : "";
    if (size < 1e-4 || size >= 1e6) {
      const [mantissa, power] = size.toExponential(2).split("e");
      const high = String(Number(power)).replace(/./g, c => c === "-" ? "\u207b" : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[c]);
      return `${sign}${Number(mantissa)} \u00d7 10${high}`;
    }
    return sign + Number(size.toPrecision(3)).toLocaleString("en-GB", { maximumSignificantDigits: 3 });
  }

  function node(name, attributes = {}, text) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function shape(parent, name, attributes, text) {
    const made = parent.appendChild(document.createElementNS(SVG, name));
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // ---- state: everything that is shown follows from the address, so a link shows the same curves
  const axisOf = (stage, name) => stage.axes.findIndex(axis => axis.name === name);
  const decoded = text => { try { return decodeURIComponent(text); } catch { return text; } };  // a hand-typed address
  const usual = axis => axis.values.filter(value => !axis.off.includes(value));  // validation seeds start switched off
  function readState() {
    const given = new URLSearchParams(location.hash.slice(1));
    const stage = data.stages.find(each => each.name === (given.get("stage") ?? data.start.stage)) || data.stages[0];
    const varied = stage.axes.filter(axis => axis.name !== "seed" && axis.values.length > 1).map(axis => axis.name);
    const favourite = varied.includes("method") ? "method" : varied[varied.length - 1] || "";
    const pick = (name, fallback) => given.get(name) === "none" ? "" : axisOf(stage, given.get(name)) >= 0 ? given.get(name) : fallback;
    const colour = pick("colour", favourite);
    const panel = pick("panel", varied.find(name => name !== colour) || "");
    const on = {};
    for (const axis of stage.axes) {
      const wanted = given.has(axis.name) ? given.get(axis.name).split(",").map(decoded) : usual(axis);
      on[axis.name] = new Set(axis.values.filter(value => wanted.includes(value)));
    }
    const key = [given.get("key"), data.start.key, ...stage.keys].find(each => stage.keys.includes(each));
    const show = given.has("show") ? given.get("show").split(",") : ["runs", "mean"];
    return { stage, colour, panel, on, key, show };
  }
  function writeState() {
    const parts = [["stage", state.stage.name], ["key", state.key], ["colour", state.colour || "none"], ["panel", state.panel || "none"], ["show", state.show.join(",")]];
    for (const axis of state.stage.axes) {
      const on = axis.values.filter(value => state.on[axis.name].has(value));
      if (on.join() !== usual(axis).join()) parts.push([axis.name, on.map(encodeURIComponent).join(",")]);
    }
    history.replaceState(null, "", "#" + parts.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("&"));
    draw();
  }

  // ---- controls
  function choose(label, values, current, change) {
    const wrap = node("label", { class: "pick" }, label + " ");
    const select = wrap.appendChild(node("select"));
    for (const [value, text] of values) {
      const option = select.appendChild(node("option", { value }, text));
      option.selected = value === current;
    }
    select.addEventListener("change", () => { change(select.value); writeState(); buildControls(); });
    return wrap;
  }
  function chip(text, pressed, toggle, swatch) {
    const made = node("button", { type: "button", class: "chip", "aria-pressed": String(pressed) });
    if (swatch !== undefined) made.appendChild(node("span", { class: "swatch", style: `background:var(--c${swatch})` }));
    made.appendChild(document.createTextNode(text));
    made.addEventListener("click", () => made.setAttribute("aria-pressed", String(toggle())));
    return made;
  }
  function buildControls() {
    const focus = document.activeElement && document.activeElement.closest("label.pick") ? [...controls.querySelectorAll("select")].indexOf(document.activeElement) : -1;
    controls.replaceChildren();
    const { stage } = state, names = stage.axes.map(axis => [axis.name, axis.name]);
    const top = controls.appendChild(node("div", { class: "row" }));
    if (data.stages.length > 1) top.append(choose("Stage", data.stages.map(each => [each.name, each.name]), stage.name, value => {
      location.hash = "stage=" + encodeURIComponent(value); state = readState(); }));
    top.append(
      choose("Curve", stage.keys.map(key => [key, key.replaceAll("_", " ")]), state.key, value => { state.key = value; }),
      choose("Colour by", [["", "nothing"], ...names], state.colour, value => { state.colour = value; }),
      choose("Panels by", [["", "nothing"], ...names], state.panel, value => { state.panel = value; }));
    for (const part of ["runs", "mean"]) top.append(chip(part, state.show.includes(part), () => {
      state.show = state.show.includes(part) ? state.show.filter(each => each !== part) : [...state.show, part];
      writeState(); return state.show.includes(part); }));
    for (const axis of stage.axes) {
      const row = controls.appendChild(node("div", { class: "row", role: "group", "aria-label": axis.name }));
      row.append(node("span", { class: "name" }, axis.name.replaceAll("_", " ")));
      axis.values.forEach((value, index) => row.append(chip((value || "\u2013") + (axis.off.includes(value) ? " (validation)" : ""), state.on[axis.name].has(value), () => {
        const on = state.on[axis.name];
        if (!on.delete(value)) on.add(value);
        writeState(); return on.has(value);
      }, axis.name === state.colour ? axis.colours[index] : undefined)));
      if (axis.values.length > 2) {
        const all = node("button", { type: "button", class: "chip all", style: "text-decoration:none" }, "all / none");
        all.addEventListener("click", () => {
          const on = state.on[axis.name], full = on.size === axis.values.length;
          on.clear(); if (!full) axis.values.forEach(value => on.add(value));
          writeState(); buildControls();
          [...controls.querySelectorAll(".row")].find(each => each.getAttribute("aria-label") === axis.name).querySelector(".all").focus();
        });
        row.append(all);
      }
    }
    if (focus >= 0) controls.querySelectorAll("select")[focus].focus();
  }

  // ---- curves
  function chosen() {
    const { stage, key } = state, which = stage.keys.indexOf(key);
    const of = stage.curves.filter(curve => curve[0] === which);
    const shown = of.filter(curve => stage.axes.every((axis, i) => state.on[axis.name].has(axis.values[curve[1][i]])));
    return { all: of.length, shown: shown.map(([, place, x, y]) => ({ place, x: stage.xs[x], y })) };
  }
  function at(curve, x) {
    const xs = curve.x;
    if (x < xs[0] || x > xs[xs.length - 1]) return NaN;
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const mid = (low + high) >> 1; if (xs[mid] <= x) low = mid; else high = mid; }
    return xs[high] === xs[low] ? curve.y[low] : curve.y[low] + (curve.y[high] - curve.y[low]) * (x - xs[low]) / (xs[high] - xs[low]);
  }
  function means(curves) {
    const seed = axisOf(state.stage, "seed"), groups = new Map();
    for (const curve of curves) {
      const name = curve.place.filter((_, i) => i !== seed).join();
      groups.set(name, [...(groups.get(name) || []), curve]);
    }
    return [...groups.values()].map(group => {
      const x = group.reduce((best, curve) => curve.x.length > best.length ? curve.x : best, []);
      const points = x.map(each => { const ys = group.map(curve => at(curve, each)).filter(Number.isFinite); return [each, ys.reduce((a, b) => a + b, 0) / ys.length]; });
      return { place: group[0].place, x: points.map(p => p[0]), y: points.map(p => p[1]), mean: group.length };
    });
  }
  function ticks(low, high, most) {
    const step = [1, 2, 2.5, 5, 10].map(f => f * 10 ** Math.floor(Math.log10((high - low) / most || 1))).find(s => (high - low) / s <= most) || 1;
    const made = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) made.push(Number((i * step).toPrecision(12)));
    return made;
  }
  function describe(curve, x, y) {
    const where = state.stage.axes.filter(axis => !(curve.mean && axis.name === "seed")).map(axis => `${axis.name} ${axis.values[curve.place[axisOf(state.stage, axis.name)]]}`);
    return `${curve.mean ? `mean of ${curve.mean}, ` : ""}${where.join(", ")}: ${state.key.replaceAll("_", " ")} ${number(y)} at step ${number(x)}`;
  }

  function draw() {
    const { all, shown } = chosen(), { stage, panel } = state;
    charts.replaceChildren(); panels = []; tip.hidden = true;
    document.body.dataset.curves = shown.length;
    status.textContent = `${shown.length} of ${all} runs shown`;
    const index = axisOf(stage, panel);
    const groups = index < 0 ? [["", shown]] : stage.axes[index].values.map((value, i) => [value, shown.filter(curve => curve.place[index] === i)]);
    for (const [title, curves] of groups) if (curves.length) drawPanel(title, curves, groups.length);
    if (!shown.length) charts.append(node("p", { class: "note" }, "Nothing is selected: switch on at least one value in every row."));
  }

  function drawPanel(title, runs, panelCount) {
    const box = charts.appendChild(node("section"));
    if (title) box.append(node("h2", {}, title));
    const W = panelCount > 1 && charts.clientWidth > 830 ? 460 : Math.max(320, Math.min(920, charts.clientWidth || 640)), H = panelCount > 1 ? 250 : 380;
    const left = 58, right = 12, top = 10, bottom = 38;
    const label = `${state.key.replaceAll("_", " ")} against step${title ? ", " + title : ""}; ${runs.length} runs. Arrow keys read values.`;
    const svg = shape(box, "svg", { viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: "img", "aria-label": label });
    const every = [...(state.show.includes("runs") ? runs : []), ...(state.show.includes("mean") ? means(runs) : [])];
    const xs = runs.flatMap(curve => [curve.x[0], curve.x[curve.x.length - 1]]);
    let x0 = Math.min(...xs), x1 = Math.max(...xs), y0 = Infinity, y1 = -Infinity;
    for (const curve of every.length ? every : runs) for (const y of curve.y) { if (y < y0) y0 = y; if (y > y1) y1 = y; }
    if (x1 === x0) x1 = x0 + 1;
    if (y1 === y0) { y0 -= 0.5; y1 += 0.5; }
    const room = 0.04 * (y1 - y0); y0 -= room; y1 += room;
    const px = x => left + (x - x0) / (x1 - x0) * (W - left - right), py = y => H - bottom - (y - y0) / (y1 - y0) * (H - top - bottom);
    for (const y of ticks(y0, y1, 5)) {
      shape(svg, "line", { class: "grid", x1: left, x2: W - right, y1: py(y), y2: py(y) });
      shape(svg, "text", { x: left - 7, y: py(y) + 4, "text-anchor": "end" }, number(y));
    }
    shape(svg, "line", { class: "axis", x1: left, x2: W - right, y1: H - bottom, y2: H - bottom });
    for (const x of ticks(x0, x1, 5)) {
      shape(svg, "line", { class: "axis", x1: px(x), x2: px(x), y1: H - bottom, y2: H - bottom + 4 });
      shape(svg, "text", { x: px(x), y: H - bottom + 17, "text-anchor": px(x) > W - 40 ? "end" : "middle" }, number(x));
    }
    shape(svg, "text", { x: W - right, y: H - 4, "text-anchor": "end" }, "step");
    const axis = axisOf(state.stage, state.colour);
    for (const curve of every) {
      const colour = axis < 0 ? "var(--c0)" : `var(--c${state.stage.axes[axis].colours[curve.place[axis]]})`;
      curve.colour = colour;
      curve.path = shape(svg, "path", { class: curve.mean ? "mean" : "run", style: `stroke:${colour}`,
        d: "M" + curve.x.map((x, i) => `${px(x).toFixed(1)} ${py(curve.y[i]).toFixed(1)}`).join("L") });
    }
    const one = { svg, every, px, py, W, H, mark: shape(svg, "circle", { class: "mark", r: 4.5, visibility: "hidden" }), curve: 0, point: 0 };
    panels.push(one);
    svg.addEventListener("pointermove", event => nearest(one, event));
    svg.addEventListener("pointerleave", () => clear(one));
    svg.addEventListener("blur", () => clear(one));
    svg.addEventListener("keydown", event => step(one, event));
  }

  function read(one, event) {
    const curve = one.every[one.curve];
    if (!curve) return;
    for (const each of one.every) each.path.classList.toggle("picked", each === curve);
    const x = curve.x[one.point], y = curve.y[one.point];
    one.mark.setAttribute("cx", one.px(x)); one.mark.setAttribute("cy", one.py(y));
    one.mark.setAttribute("style", `fill:${curve.colour}`); one.mark.setAttribute("visibility", "visible");
    reading.textContent = describe(curve, x, y);
    tip.hidden = !event;
    if (event) {
      tip.textContent = reading.textContent;
      tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
      tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 12) + "px";
    }
  }
  function clear(one) {
    tip.hidden = true; one.mark.setAttribute("visibility", "hidden");
    for (const each of one.every) each.path.classList.remove("picked");
  }
  function nearest(one, event) {
    const frame = one.svg.getBoundingClientRect(), k = one.W / frame.width;
    const mx = (event.clientX - frame.left) * k, my = (event.clientY - frame.top) * k;
    let best = 900;
    one.every.forEach((curve, c) => curve.x.forEach((x, i) => {
      const far = (one.px(x) - mx) ** 2 + (one.py(curve.y[i]) - my) ** 2;
      if (far < best) { best = far; one.curve = c; one.point = i; }
    }));
    if (best < 900) read(one, event); else clear(one);
  }
  function step(one, event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!moves || !one.every.length) return;
    event.preventDefault();
    one.curve = (one.curve + moves[0] + one.every.length) % one.every.length;
    one.point = Math.max(0, Math.min(one.every[one.curve].x.length - 1, one.point + moves[1]));
    read(one, null);
  }

  function start() { state = readState(); buildControls(); draw(); }
  if (!data.stages.length) { status.textContent = "No run recorded a curve."; document.body.dataset.curves = 0; return; }
  addEventListener("hashchange", start);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
  start();
})();
