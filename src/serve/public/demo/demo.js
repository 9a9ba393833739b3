// The badge and the frame show the visits that the block shows: they are fetched again when those have changed, by the
// reader's own view first.
let visits;
document.addEventListener("footfall:counters", ({ detail }) => {
  if (!detail.visits || visits === detail.visits.all) return;
  visits = detail.visits.all;
  for (const part of document.querySelectorAll(".blocks [src]"))
    part.src = part.src.replace(/&visits=.*|$/, "&visits=" + visits);
});
