"use strict";
/* The order that is being made: entries best first, `tied` to the one above or not. Pure, no page. */

const Order = {
  /* [{place, tied}] -> [[place, ...], ...], best group first */
  groups(entries) {
    const found = [];
    for (const { place, tied } of entries) {
      if (tied && found.length) found[found.length - 1].push(place);
      else found.push([place]);
    }
    return found;
  },

  of(groups) {
    return groups.flatMap((group) => group.map((place, index) => ({ place, tied: index > 0 })));
  },

  at(entries, place) {
    return entries.findIndex((entry) => entry.place === place);
  },

  /* The next in a group whose first one goes becomes its first */
  without(entries, place) {
    const index = Order.at(entries, place);
    if (index < 0) return entries;
    const left = entries.filter((entry) => entry.place !== place);
    const next = left[index];
    if (next && next.tied && !entries[index].tied) left[index] = { place: next.place, tied: false };
    return left;
  },

  /* Between two that tie it ties with both; `tied` ties it to the one above anywhere */
  insert(entries, place, index, tied = false) {
    const left = [...entries];
    left.splice(index, 0, { place, tied: index > 0 && (tied || Boolean(entries[index] && entries[index].tied)) });
    return left;
  },

  /* Past its neighbour; between two that tie it joins them */
  move(entries, place, step) {
    const index = Order.at(entries, place);
    const target = index + step;
    if (index < 0 || target < 0 || target >= entries.length) return entries;
    return Order.insert(Order.without(entries, place), place, target);
  },

  toggle(entries, place) {
    const index = Order.at(entries, place);
    return entries.map((entry, at) => (at === index && at > 0 ? { place, tied: !entry.tied } : entry));
  },

  /* place -> its group's number from 1 */
  ranks(entries) {
    const found = new Map();
    Order.groups(entries).forEach((group, index) => group.forEach((place) => found.set(place, index + 1)));
    return found;
  },

  formula(entries, pendingTie) {
    const text = Order.groups(entries).map((group) => group.map((place) => place + 1).join(" = ")).join(" > ");
    return pendingTie ? `${text} =` : text;
  },
};
