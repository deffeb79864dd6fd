"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 24;

  // All text goes in by textContent: nothing of a file's name or label is ever markup.
  const make = (tag, text, attributes) => {
    const element = document.createElement(tag);
    if (text) element.textContent = text;
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    return element;
  };

  const card = ([number, head, detail]) => {
    const image = data.images[number];
    const item = make("li");
    const link = image.href ? { class: "frame", href: image.href, target: "_blank", rel: "noopener" } : { class: "frame" };
    const frame = make(image.href ? "a" : "div", "", link);
    if (image.thumb) {
      const thumbnail = make("img", "", { src: image.thumb, alt: head + ", " + image.name, decoding: "async" });
      // Of a long strip a square cut out of the middle shows nothing of its shape.
      thumbnail.addEventListener("load", () => {
        const sides = [thumbnail.naturalWidth, thumbnail.naturalHeight];
        thumbnail.classList.toggle("strip", Math.max(...sides) > 2.5 * Math.min(...sides));
      });
      frame.append(thumbnail);
    } else frame.append(make("span", image.problem));
    item.append(frame, make("b", head));
    if (detail) item.append(make("span", detail));
    item.append(make("span", image.name, { class: "name", title: image.uri }));
    return item;
  };

  const plural = (count) => count.toLocaleString("en") + (count === 1 ? " image" : " images");

  // Cards that belong together, such as copies of one image, stand in one frame.
  const inGroups = (cards, sizes) => {
    if (!sizes.length) return cards.map((one) => [one]);
    let from = 0;
    return sizes.map((size) => cards.slice(from, (from += size)));
  };

  const unit = (cards) => {
    if (cards.length === 1) return card(cards[0]);
    const item = make("li", "", { class: "group" });
    const list = make("ul", "", { class: "cards", "aria-label": plural(cards.length) + " that belong together" });
    list.append(...cards.map(card));
    item.append(list);
    return item;
  };

  const gallery = (section, { cards, groups }) => {
    const list = section.querySelector(".cards");
    if (!list) return;
    const filter = section.querySelector("input");
    const more = section.querySelector(".more");
    const status = section.querySelector("[role=status]");
    const text = ([n, head, detail]) => (head + " " + detail + " " + data.images[n].uri).toLowerCase();
    const units = inGroups(cards, groups);
    const texts = units.map((each) => each.map(text).join("\n"));
    const size = (some) => some.reduce((sum, each) => sum + each.length, 0);
    let found = units;
    const extend = () => {
      const first = list.children.length;
      list.append(...found.slice(first, first + PAGE).map(unit));
      const left = size(found.slice(list.children.length));
      more.hidden = !left;
      more.textContent = "Show more (" + left + " left)";
    };
    const show = () => {
      const wanted = filter ? filter.value.trim().toLowerCase() : "";
      found = units.filter((_, i) => texts[i].includes(wanted));
      if (status) status.textContent = wanted ? plural(size(found)) : "";
      list.replaceChildren();
      extend();
    };
    filter?.addEventListener("input", show);
    more.addEventListener("click", () => {
      const first = list.children.length;
      extend();
      // The button may be gone now: the focus goes on with the images.
      list.children[first].querySelector("a")?.focus({ preventScroll: true });
    });
    show();
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const key = (row, column) => {
      const cell = row.cells[column];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    table.querySelectorAll("thead button").forEach((button, column) => {
      button.addEventListener("click", () => {
        const head = button.parentElement;
        // Numbers begin with the largest, names with the first.
        const first = head.className === "text" || !head.className ? "ascending" : "descending";
        const other = { ascending: "descending", descending: "ascending" };
        const order = head.hasAttribute("aria-sort") ? other[head.getAttribute("aria-sort")] : first;
        table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const keyed = [...body.rows].map((row) => [key(row, column), row]);
        // A dash, where there is no number, is last in either order.
        keyed.sort(([a], [b]) => {
          if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
          return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
        });
        body.append(...keyed.map(([, row]) => row));
      });
    });
  };

  const filterRows = (section) => {
    const filter = section.querySelector("input[type=search]");
    if (!filter) return;
    const rows = [...section.querySelector("table").tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    filter.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      let left = 0;
      rows.forEach((row, i) => {
        row.hidden = !texts[i].includes(wanted);
        left += row.hidden ? 0 : 1;
      });
      section.querySelector("[role=status]").textContent = wanted ? left + " of " + rows.length + " rows" : "";
    });
  };

  const dialog = document.querySelector("dialog");
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  const matrix = (section, { cells }) => {
    section.querySelectorAll("button[data-cell]").forEach((button) => {
      button.addEventListener("click", () => {
        const cards = cells[button.dataset.cell] || [];
        const count = Number(button.textContent.replaceAll(",", ""));
        dialog.querySelector("h2").textContent = button.getAttribute("aria-label").replace(/: \d+ images?$/, "");
        dialog.querySelector("p").textContent = plural(count) + (cards.length < count ? ", " + cards.length + " of them shown" : "");
        dialog.querySelector(".cards").replaceChildren(...cards.map(card));
        dialog.showModal();
      });
    });
  };

  const map = (section, { cards, groups }) => {
    const figure = section.querySelector("figure");
    const svg = figure.querySelector("svg");
    const paths = [...svg.querySelectorAll(".mark-symbol path")];
    const points = paths.map((path) => path.getAttribute("transform").match(/-?[\d.]+/g).map(Number));
    const place = section.querySelector("[aria-live]");
    const choice = section.querySelector("select");
    const NEAR = 18;
    const hint = place.firstElementChild;
    let here = -1;
    const list = make("ul", "", { class: "cards" });
    const visible = (i) => choice.value === "" || groups[i] === Number(choice.value);
    const go = (i) => {
      if (i < 0 || i === here) return;
      if (here >= 0) paths[here].classList.remove("here");
      here = i;
      paths[i].classList.add("here");
      list.replaceChildren(card(cards[i]));
      if (!list.isConnected) place.replaceChildren(list);
    };
    const nearest = (x, y, allowed) => {
      let best = -1;
      let least = Infinity;
      points.forEach(([a, b], i) => {
        const distance = (a - x) ** 2 + (b - y) ** 2;
        if (distance < least && visible(i) && allowed(a, b, distance)) [best, least] = [i, distance];
      });
      return best;
    };
    const group = paths.length ? paths[0].parentNode : svg;
    const point = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(group.getScreenCTM().inverse());
      const reach = NEAR / group.getScreenCTM().a;
      go(nearest(at.x, at.y, (a, b, distance) => distance < reach ** 2));
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    figure.addEventListener("keydown", (event) => {
      const way = ways[event.key];
      if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      if (here < 0 || !visible(here)) return go(nearest(320, 230, () => true));
      const [x, y] = points[here];
      go(nearest(x, y, (a, b) => {
        const along = (a - x) * way[0] + (b - y) * way[1];
        const across = Math.abs((a - x) * way[1]) + Math.abs((b - y) * way[0]);
        return along > 0 && along >= across;
      }));
    });
    choice.addEventListener("change", () => {
      svg.classList.toggle("chosen", choice.value !== "");
      paths.forEach((path, i) => path.classList.toggle("on", visible(i)));
      if (here < 0 || visible(here)) return;
      paths[here].classList.remove("here");
      here = -1;
      place.replaceChildren(hint);
    });
  };

  const threshold = (section, { below, counts }) => {
    const level = section.querySelector("input[type=range]");
    const cut = section.querySelector(".cut");
    const output = section.querySelector("output");
    const figure = section.querySelector("figure");
    const rows = section.querySelectorAll("tbody tr");
    const THUMB = 16;
    const total = counts.reduce((a, b) => a + b, 0);
    const frame = section.querySelector("svg .background");
    const update = () => {
      const at = Number(level.value);
      const unknown = below.reduce((sum, row) => sum + row[at], 0);
      const share = ((100 * unknown) / total).toFixed(1);
      output.replaceChildren(
        "Below " + (at / 100).toFixed(2) + ": ",
        make("b", plural(unknown)),
        " of " + total.toLocaleString("en") + " (" + share + " %) would become unknown",
      );
      const box = frame.getBoundingClientRect();
      const left = box.left - figure.getBoundingClientRect().left;
      // The slider's thumb stands under the line: half a thumb beyond the axis at either end.
      level.style.marginLeft = left - THUMB / 2 + "px";
      level.style.width = box.width + THUMB + "px";
      cut.style.left = left + "px";
      cut.style.width = (box.width * at) / 100 + "px";
      cut.style.height = box.height + "px";
      cut.style.top = box.top - figure.getBoundingClientRect().top + "px";
      rows.forEach((row) => {
        const i = Number(row.dataset.row);
        [below[i][at], counts[i] - below[i][at]].forEach((value, k) => {
          const cell = row.cells[3 + k];
          cell.textContent = value.toLocaleString("en");
          cell.dataset.value = value;
        });
      });
    };
    level.addEventListener("input", update);
    addEventListener("resize", update);
    update();
  };

  const kinds = { gallery, matrix, map, threshold };
  document.querySelectorAll("section[data-kind]").forEach((section) => {
    const kind = section.dataset.kind;
    if (kind in kinds) kinds[kind](section, data.sections[section.id]);
  });
  document.querySelectorAll(".filtered").forEach(filterRows);
  document.querySelectorAll("table.sortable").forEach(sortable);
})();
