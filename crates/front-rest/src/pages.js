"use strict";
const all = (selector) => [...document.querySelectorAll(selector)];
const root = document.documentElement;
const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
document.getElementById("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const item of all("[data-text]")) {
    item.hidden = !words.every((word) => item.dataset.text.includes(word));
  }
  for (const part of all("section, nav div[data-part]")) {
    part.hidden = words.length > 0 && !part.querySelector("[data-text]:not([hidden])");
  }
});
for (const code of all("pre[data-curl]")) {
  code.textContent = code.textContent.replaceAll("http://localhost:8080", location.origin);
}
