"use strict";
/* Dragging a row of the order by its handle, with mouse, pen or finger: between two rows, or onto one to tie with it. */

const EDGE = 60;
const STEP = 12;

/* rows(): the rows that can be dropped on, top to bottom. dropped(place, target): target is {index, tied} among the
   other rows. over(place, target): where it would go now; null: nowhere any more. Returns what ends a drag undone. */
function makeDraggable(list, rows, dropped, over) {
  let held = null;

  function targetAt(y) {
    const others = rows().filter((row) => row !== held.row);
    let index = 0;
    for (const row of others) {
      const box = row.getBoundingClientRect();
      const share = (y - box.top) / box.height;
      if (share < 0.28) return { index, tied: false, row, side: "before" };
      if (share <= 0.72) return { index: index + 1, tied: true, row, side: "onto" };
      index += 1;
    }
    const last = others[others.length - 1];
    return { index, tied: false, row: last || null, side: "after" };
  }

  function clearMarks() {
    for (const row of list.querySelectorAll("[data-drop]")) delete row.dataset.drop;
  }

  function move(event) {
    if (!held || event.pointerId !== held.pointer) return;
    event.preventDefault();
    held.y = event.clientY;
    held.row.style.transform = `translateY(${event.clientY + window.scrollY - held.start}px)`;
    clearMarks();
    held.target = targetAt(event.clientY);
    if (held.target.row) held.target.row.dataset.drop = held.target.side;
    over(held.place, held.target);
  }

  /* Near the edge of the window the page follows */
  function scroll() {
    if (!held) return;
    if (held.y < EDGE) window.scrollBy(0, -STEP);
    if (held.y > window.innerHeight - EDGE) window.scrollBy(0, STEP);
    held.frame = requestAnimationFrame(scroll);
  }

  function stop(drop) {
    if (!held) return;
    const { row, place, target, frame } = held;
    cancelAnimationFrame(frame);
    clearMarks();
    row.style.transform = "";
    row.classList.remove("held");
    held = null;
    over(place, null);
    if (drop && target) dropped(place, target);
  }

  list.addEventListener("pointerdown", (event) => {
    const grip = event.target.closest(".grip");
    if (!grip || event.button !== 0 || held) return;
    const row = grip.closest("li");
    event.preventDefault();
    grip.setPointerCapture(event.pointerId);
    held = {
      row, place: Number(row.dataset.place), pointer: event.pointerId,
      start: event.clientY + window.scrollY, y: event.clientY, target: null,
    };
    row.classList.add("held");
    held.frame = requestAnimationFrame(scroll);
  });
  list.addEventListener("pointermove", move);
  /* A second finger lifts and stays where it likes */
  const end = (drop) => (event) => held && event.pointerId === held.pointer && stop(drop);
  list.addEventListener("pointerup", end(true));
  list.addEventListener("pointercancel", end(false));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop(false);
  });
  return () => stop(false);
}
