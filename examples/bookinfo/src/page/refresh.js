// Reloads the page while the box is ticked; the tab remembers the tick.
(() => {
  const box = document.getElementById("refresh");
  box.closest("label").hidden = false;
  box.checked = sessionStorage.getItem("refresh") === "on";
  let timer;
  const schedule = () => {
    clearTimeout(timer);
    if (box.checked) timer = setTimeout(() => location.reload(), 2000);
  };
  box.addEventListener("change", () => {
    sessionStorage.setItem("refresh", box.checked ? "on" : "off");
    schedule();
  });
  // A name half typed must not be lost.
  document.getElementById("sign-in")?.addEventListener("toggle", (event) => {
    if (event.newState === "open") clearTimeout(timer); else schedule();
  });
  schedule();
})();
