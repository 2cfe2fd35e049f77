"use strict";
// Links the views: what is selected in one is marked in the others. Every text is set as text, never as markup.
(() => {
  const main = document.querySelector("main");
  const all = (selector, root = main) => [...root.querySelectorAll(selector)];
  const shown = new Set(main.dataset.shown.split(","));
  const key = (c) => (shown.has(c) ? c : "-1"); // of a class, or of all that are not shown
  const titles = Object.fromEntries(all("#measures tbody tr").map((row) => [row.dataset.network, row.dataset.title]));
  const classNames = Object.fromEntries(all("#classes li").map((item) => [item.dataset.class, item.textContent.trim()]));
  const nameOf = (c) => classNames[key(c)] ?? "another class";
  const points = Object.fromEntries(all(".map").map((map) => [map.dataset.network, all("path", map)]));
  const labels = (Object.values(points)[0] ?? []).map((point) => key(point.dataset.true));

  // The selection: a network, and samples: those of a class, of a cell of a matrix, or of a rectangle on a map.
  let network = main.dataset.first;
  let chosen = null; // { text, samples: Set, class?, cell? }

  const samplesWhere = (test) => new Set(labels.map((_, i) => i).filter(test));
  const predicted = (of, i) => key(points[of][i].dataset.pred);

  function selectClass(c) {
    const again = chosen?.class === c;
    chosen = again ? null : { text: `class ${nameOf(c)}`, class: c, samples: samplesWhere((i) => labels[i] === c) };
    update();
  }

  function selectCell(cell) {
    const [of, t, p] = [cell.closest("[data-network]").dataset.network, cell.parentElement.dataset.true, cell.dataset.pred];
    const inside = points[of] ? samplesWhere((i) => labels[i] === t && predicted(of, i) === p) : new Set();
    const text = `${nameOf(t)} predicted as ${nameOf(p)} by ${titles[of]}`;
    chosen = chosen?.cell === cell ? null : { text, cell, samples: inside };
    update();
  }

  function selectNetwork(index) {
    network = index;
    update();
  }

  function update() {
    for (const part of all(".networks [data-network]"))
      part.hidden = part.dataset.role === "method" && part.dataset.network !== network;
    for (const part of all("#measures tr[data-network], .chart g[data-network]"))
      part.classList.toggle("chosen", part.dataset.network === network);
    for (const part of all("[data-choose] > button, g[data-choose]"))
      part.setAttribute("aria-pressed", (part.dataset.choose ?? part.parentElement.dataset.choose) === network);
    for (const button of all("#classes button"))
      button.setAttribute("aria-pressed", chosen?.class === button.parentElement.dataset.class);
    for (const map of all(".map")) {
      map.classList.toggle("marking", Boolean(chosen));
      points[map.dataset.network].forEach((point, i) => point.classList.toggle("chosen", Boolean(chosen?.samples.has(i))));
    }
    for (const figure of all(".networks figure:not(.map)")) {
      const of = figure.dataset.network;
      const cells = new Set();
      if (chosen && chosen.class === undefined && points[of])
        for (const i of chosen.samples) cells.add(`${labels[i]} ${predicted(of, i)}`);
      for (const row of all("tbody tr", figure)) {
        row.classList.toggle("chosen", chosen?.class === row.dataset.true);
        for (const cell of all("td[data-pred]", row)) {
          const isChosen = chosen?.cell === cell || cells.has(`${row.dataset.true} ${cell.dataset.pred}`);
          cell.classList.toggle("chosen", isChosen);
          cell.setAttribute("aria-selected", isChosen);
        }
      }
    }
    const marked = chosen ? `; ${chosen.text}${labels.length ? `: ${chosen.samples.size} samples on the map` : ""}` : "";
    document.getElementById("status").textContent = `Selected: ${titles[network]}${marked}.`;
    document.getElementById("clear").hidden = !chosen;
  }

  // ---- the table is sorted by a heading

  function sort(heading) {
    const column = [...heading.parentElement.children].indexOf(heading);
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentElement.children) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => {
      const cell = row.children[column];
      return heading.dataset.sort === "text" ? cell.textContent : cell.dataset.value === "" ? null : Number(cell.dataset.value);
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null); // without a value: last
      const order = typeof x === "string" ? x.localeCompare(y, "en") : x - y;
      return down ? -order : order;
    };
    const body = document.querySelector("#measures tbody");
    body.append(...[...body.children].sort(compare));
  }

  // ---- what hovers

  const tip = document.getElementById("tip");
  const tips = new Map();

  function tipOf(target) {
    const point = target.closest(".map path");
    if (point) return `${nameOf(point.dataset.true)}, predicted as ${nameOf(point.dataset.pred)}`;
    const cell = target.closest(".matrix td[data-pred]");
    if (cell) return `${nameOf(cell.parentElement.dataset.true)} predicted as ${nameOf(cell.dataset.pred)}: ${Math.round(100 * cell.style.getPropertyValue("--share"))} %`;
    const same = target.closest(".matrix td.same");
    if (same) return `${nameOf(same.parentElement.dataset.true)}: ${same.textContent} % predicted as by the retrained network`;
    return tips.get(target.closest("g[data-choose]"));
  }

  function hover(event) {
    const [target, isOver] = [event.target, event.type === "mouseover" || event.type === "focusin"];
    const index = target.closest?.("tr[data-network], g[data-network]")?.dataset.network;
    for (const part of all("#measures tr[data-network], .chart g[data-network]"))
      part.classList.toggle("hover", isOver && part.dataset.network === index);
    const text = isOver && target.closest ? tipOf(target) : undefined;
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = (target.closest("g[data-choose]")?.querySelector(".spot") ?? target).getBoundingClientRect();
    const most = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${scrollX + Math.max(8, Math.min(box.right + 8, most))}px`;
    tip.style.top = `${scrollY + Math.max(4, box.top - tip.offsetHeight - 6)}px`;
  }
  for (const type of ["mouseover", "mouseout", "focusin", "focusout"]) main.addEventListener(type, hover);

  // ---- a rectangle on a map selects samples; a click selects the class of a point

  function drag(map) {
    const svg = map.querySelector("svg");
    const of = map.dataset.network;
    let rect = null;
    let start = null;
    const at = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" || event.button !== 0) return;
      start = at(event);
      svg.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    svg.addEventListener("pointermove", (event) => {
      if (!start) return;
      const end = at(event);
      rect ??= svg.appendChild(document.createElementNS(svg.namespaceURI, "rect"));
      rect.setAttribute("x", Math.min(start.x, end.x));
      rect.setAttribute("y", Math.min(start.y, end.y));
      rect.setAttribute("width", Math.abs(end.x - start.x));
      rect.setAttribute("height", Math.abs(end.y - start.y));
    });
    svg.addEventListener("pointerup", (event) => {
      const [from, to] = [start ?? at(event), at(event)];
      rect?.remove();
      start = rect = null;
      if (Math.hypot(to.x - from.x, to.y - from.y) < 4) {
        const point = document.elementFromPoint(event.clientX, event.clientY)?.closest(".map path");
        if (point) selectClass(key(point.dataset.true));
        return;
      }
      const [low, high] = [[Math.min(from.x, to.x), Math.min(from.y, to.y)], [Math.max(from.x, to.x), Math.max(from.y, to.y)]];
      const samples = samplesWhere((i) => {
        const [x, y] = points[of][i].getAttribute("d").slice(1).match(/-?[\d.]+/g).map(Number);
        return low[0] <= x && x <= high[0] && low[1] <= y && y <= high[1];
      });
      chosen = samples.size ? { text: `a rectangle on the map of ${titles[of]}`, samples } : null;
      update();
    });
  }

  // ---- buttons, which a page without scripts has no use for

  function makeButton(parent, action) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...parent.childNodes);
    button.addEventListener("click", action);
    parent.append(button);
  }

  for (const heading of all("#measures thead th")) {
    heading.setAttribute("aria-sort", "none");
    makeButton(heading, () => sort(heading));
  }
  for (const head of all("th[data-choose]")) makeButton(head, () => selectNetwork(head.dataset.choose));
  for (const item of all("#classes li")) makeButton(item, () => selectClass(item.dataset.class));
  for (const point of all("g[data-choose]")) {
    const title = point.querySelector("title");
    tips.set(point, title.textContent);
    point.setAttribute("aria-label", title.textContent);
    title.remove(); // or the browser would show it too
    point.setAttribute("role", "button");
    point.setAttribute("tabindex", "0");
    point.addEventListener("click", () => selectNetwork(point.dataset.choose));
    point.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      selectNetwork(point.dataset.choose);
    });
  }
  for (const table of all(".matrix")) {
    table.setAttribute("role", "grid");
    const rows = all("tbody tr", table).map((row) => all("td[data-pred]", row));
    rows.forEach((cells, y) => cells.forEach((cell, x) => {
      cell.setAttribute("tabindex", x || y ? "-1" : "0"); // one stop for the tab key; arrows move inside
      cell.addEventListener("click", () => selectCell(cell));
      cell.addEventListener("keydown", (event) => {
        const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (event.key === "Enter" || event.key === " ") selectCell(cell);
        else if (!step) return;
        event.preventDefault();
        const next = step && rows[y + step[0]]?.[x + step[1]];
        if (!next) return;
        cell.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
      });
    }));
  }
  for (const map of all(".map")) {
    map.classList.add("ready");
    drag(map);
  }
  const clear = () => {
    chosen = null;
    update();
  };
  document.getElementById("clear").addEventListener("click", clear);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
  });
  for (const part of [document.getElementById("tools"), ...all(".scripted")]) part.hidden = false;
  update();
})();
