
"use strict";
(() => {
  const KEY = "fer-bench-theme";
  const root = document.documentElement;

  // Storage may be forbidden (private windows, pages from a disk): the choice then holds for this visit.
  const remembered = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem(KEY, theme); } catch { /* not remembered */ } };
  const theme = () => root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();

  function offerThemes() {
    const button = document.getElementById("theme");
    const name = () => { button.textContent = theme() === "dark" ? "Light colours" : "Dark colours"; };
    button.addEventListener("click", () => {
      root.dataset.theme = theme() === "dark" ? "light" : "dark";
      remember(root.dataset.theme);
      name();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
    name();
    button.hidden = false;
  }

  const NUMBER = /^[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)/i;
  const text = (row, column) => row.cells[column].textContent.trim();
  const missing = (value) => value === "" || value === "–" || value === "nan";
  // "−0.7 [−1.2, +0.3]" counts as -0.7; NaN where the cell does not begin with a number.
  const number = (value) => {
    const found = NUMBER.exec(value.replace(/−/g, "-"));
    return found ? Number(found[0].replace(/,/g, "")) : NaN;
  };

  // Cells without a value come last in both directions; equal ones keep their first order.
  function sorted(rows, column, direction) {
    const known = rows.filter((row) => !missing(text(row, column)));
    const numeric = known.every((row) => !Number.isNaN(number(text(row, column))));
    const compare = numeric
      ? (a, b) => number(text(a, column)) - number(text(b, column))
      : (a, b) => text(a, column).localeCompare(text(b, column), "en", { numeric: true });
    const sign = direction === "ascending" ? 1 : -1;
    return [...known.sort((a, b) => sign * compare(a, b)), ...rows.filter((row) => missing(text(row, column)))];
  }

  // Numbers start with the largest, text with A; the third time gives the first order back.
  const next = (now, numeric) => {
    const cycle = numeric ? ["none", "descending", "ascending"] : ["none", "ascending", "descending"];
    return cycle[(cycle.indexOf(now) + 1) % 3];
  };

  function makeSortable(table) {
    const body = table.tBodies[0];
    const first = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const direction = next(head.getAttribute("aria-sort"), head.classList.contains("number"));
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", direction);
        body.append(...(direction === "none" ? first : sorted([...first], column, direction)));
      });
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    offerThemes();
    document.querySelectorAll("table.sorts").forEach(makeSortable);
  });
})();
