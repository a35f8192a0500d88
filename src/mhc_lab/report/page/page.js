"use strict";
(() => {
  const root = document.documentElement;
  const table = document.getElementById("results");
  const said = document.getElementById("said");
  const heads = [...table.tHead.rows[0].cells];
  const groups = [...table.tBodies]; // the study's order; a row and what it opens to move as one
  const togglers = groups.map((group) => group.querySelector(".name > button"));

  // Rows.
  const open = (place, wanted) => {
    togglers[place].setAttribute("aria-expanded", String(wanted));
    groups[place].classList.toggle("open", wanted);
  };
  const all = document.getElementById("all");
  const tell = () => {
    const every = groups.every((group) => group.classList.contains("open"));
    all.setAttribute("aria-pressed", String(every));
    all.textContent = every ? "Close all rows" : "Open all rows";
  };
  togglers.forEach((button, place) => {
    button.disabled = false;
    open(place, false);
    button.addEventListener("click", () => {
      open(place, !groups[place].classList.contains("open"));
      tell();
    });
  });
  all.addEventListener("click", () => {
    const wanted = all.getAttribute("aria-pressed") !== "true";
    groups.forEach((_, place) => open(place, wanted));
    tell();
  });

  // Sorting: up, down, back to the study's order; blanks stay last.
  const order = (column, kind, sign) => {
    const keys = groups.map((group) => group.rows[0].cells[column].dataset.sort);
    const compare = kind === "number"
      ? (a, b) => Number(a) - Number(b)
      : (a, b) => a.localeCompare(b, "en", { numeric: true });
    return groups.map((_, place) => place).sort((i, j) => {
      if (keys[i] === "" || keys[j] === "") return (keys[i] === "") - (keys[j] === "") || i - j;
      return sign * compare(keys[i], keys[j]) || i - j;
    });
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "" }[head.getAttribute("aria-sort")] ?? "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const places = next ? order(column, head.dataset.kind, sign) : groups.map((_, place) => place);
      table.append(...places.map((place) => groups[place]));
      said.textContent = next ? `Sorted by ${button.innerText}, ${next}` : "In the study's order";
    });
  });

  // Light and dark: the system's, until the button is used; nothing is stored.
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { theme.ariaLabel = theme.title = dark() ? "Light theme" : "Dark theme"; };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();
})();
