"use strict";
(() => {
  const tip = document.getElementById("tip");
  const say = (target, x, y) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth - box.width - 8;
    tip.style.left = `${Math.max(8, Math.min(x + 14, right))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18}px`;
    document.querySelectorAll(".on").forEach((e) => e.classList.remove("on"));
    target.classList.add("on");
  };
  const hush = () => {
    tip.hidden = true;
    document.querySelectorAll(".on").forEach((e) => e.classList.remove("on"));
  };
  const follow = (event) => {
    const target = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (target) say(target, event.clientX, event.clientY);
    else hush();
  };
  document.addEventListener("pointermove", follow);
  document.addEventListener("click", follow);
  addEventListener("scroll", hush, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });

  const views = [...document.querySelectorAll(".view")];
  const buttons = [...document.querySelectorAll("button[data-key]")];
  const now = views.length ? { x: views[0].dataset.x, y: views[0].dataset.y } : {};
  const show = (key, value) => {
    now[key] = value;
    let found = views.find((v) => v.dataset.x === now.x && v.dataset.y === now.y);
    if (!found) {
      found = views.find((v) => v.dataset[key] === value);
      now.x = found.dataset.x;
      now.y = found.dataset.y;
    }
    views.forEach((v) => { v.hidden = v !== found; });
    buttons.forEach((b) => b.setAttribute("aria-pressed", String(now[b.dataset.key] === b.dataset.value)));
  };
  buttons.forEach((b) => b.addEventListener("click", () => show(b.dataset.key, b.dataset.value)));

  let opened = [];
  addEventListener("beforeprint", () => {
    hush();
    opened = [...document.querySelectorAll("details:not([open]):not(.long)")];
    opened.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((d) => { d.open = false; }));
})();
