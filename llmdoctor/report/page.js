"use strict";
// The page is complete without this script: it adds a button that copies each fix, and an order for many findings.
for (const text of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  text.before(button);
}
const cards = [...document.querySelectorAll("main > .finding")];
if (cards.length > 3) {
  const ranks = ["error", "warning", "info"];
  const keys = {
    "as reported": (card) => String(cards.indexOf(card)).padStart(6, "0"),
    severity: (card) => ranks.findIndex((rank) => card.classList.contains(rank)).toString(),
    file: (card) => card.dataset.file,
    rule: (card) => card.dataset.code,
  };
  const slots = cards.map((card) => { const slot = document.createComment("finding"); card.before(slot); return slot; });
  const box = document.createElement("label"), choice = document.createElement("select");
  for (const name of Object.keys(keys)) choice.add(new Option(name));
  choice.addEventListener("change", () => {
    const key = keys[choice.value];
    const order = [...cards].sort((one, other) => (key(one) < key(other) ? -1 : key(one) > key(other) ? 1 : 0));
    order.forEach((card, at) => slots[at].after(card));
  });
  box.className = "order";
  box.append("Order ", choice);
  slots[0].before(box);
}
